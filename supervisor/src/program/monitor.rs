//! The program as it is seen from outside: which of its processes are alive, and which of them holds
//! the listening socket. It is told nothing by the program; it looks.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, SocketAddr};

use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tracing::{error, warn};

use super::state::Left;
use crate::engine::Owner;
use crate::exit::ExitStatus;
use crate::processes::{Aside, Process, Reaper, ReaperState, Tree, TreeState};

/// No socket is bound to port 0: asked for it, the kernel lists the listeners on all ports.
const ANY_PORT: u16 = 0;

/// How often we look for the holder of a listener that no process is seen to hold: it is being passed from one process
/// to the next by a fork, and a look takes about as long as a fork.
const LOOKS: usize = 50;
/// How often processes that are not seen among the program's are looked for again.
const RELOOKS: usize = 3;

/// What was seen when we looked last.
#[derive(Debug)]
pub(crate) struct Monitor {
    tree: Tree,
    reaper: Reaper,
    /// The relocated port.
    port: u16,
    listener: Option<Listener>,
    /// Who has the port in this instance.
    owner: Owner,
    /// The processes of the instance.
    instance: Vec<Process>,
    /// The last look at the processes failed, or that at the sockets: what we know may be old.
    blind: Blind,
    /// Whether it was said that /proc hides processes.
    hiding_named: bool,
    /// Whether it was said of this instance that it shares its port.
    sharing_named: bool,
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(default)]
struct Blind {
    processes: bool,
    sockets: bool,
}

/// Where a process of the instance listens, and which processes hold that socket.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Listener {
    pub(crate) address: SocketAddr,
    pub(crate) holders: Vec<Process>,
}

/// What the new binary needs to know of that.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct MonitorState {
    tree: TreeState,
    reaper: ReaperState,
    listener: Option<Listener>,
    #[serde(default = "Owner::unknown")]
    owner: Owner,
    instance: Vec<Process>,
    blind: Blind,
    hiding_named: bool,
    sharing_named: bool,
}

/// Which processes of the instance that have another user than the port may listen on the relocated port now, and where.
#[derive(Debug)]
pub(crate) enum Room {
    /// None listens yet: each may, anywhere.
    Free,
    /// Some listen: those that hold a listener may listen where nobody does, as a server of two families listens on one
    /// after the other. No other process may listen beside them.
    Taken { holders: HashSet<Pid>, addresses: HashSet<IpAddr> },
    /// The first one that listened had the port's own user. So the program's socket is none of another user's: who asks has
    /// logged in through the program.
    Closed,
}

impl Room {
    pub(crate) fn is_for(&self, process: Pid, ip: IpAddr) -> bool {
        match self {
            Self::Free => true,
            Self::Closed => false,
            Self::Taken { holders, addresses } => {
                holders.contains(&process) && !addresses.contains(&ip.to_canonical())
            }
        }
    }
}

/// What has changed since the last look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// A process of the instance listens, where none did or somewhere else.
    Appeared,
    Gone,
}

impl Monitor {
    /// The processes that are our children now are none of the program's, nor are those that come to be in `aside`. Of
    /// the launcher that holds for the process alone, and not for its process group.
    ///
    /// # Errors
    ///
    /// /proc cannot be used.
    pub(crate) fn new(port: u16, aside: Aside, launcher: Option<Pid>) -> io::Result<Self> {
        let tree = Tree::new(aside.clone(), launcher)?;
        Ok(Self {
            tree,
            reaper: Reaper::new(aside),
            port,
            listener: None,
            owner: Owner::default(),
            instance: vec![],
            blind: Blind::default(),
            hiding_named: false,
            sharing_named: false,
        })
    }

    pub(crate) fn save(&self) -> MonitorState {
        MonitorState {
            tree: self.tree.save(),
            reaper: self.reaper.save(),
            listener: self.listener.clone(),
            owner: self.owner,
            instance: self.instance.clone(),
            blind: self.blind,
            hiding_named: self.hiding_named,
            sharing_named: self.sharing_named,
        }
    }

    /// # Errors
    ///
    /// /proc cannot be used.
    pub(crate) fn resume(
        port: u16,
        aside: Aside,
        launcher: Option<Pid>,
        state: MonitorState,
    ) -> io::Result<Self> {
        Ok(Self {
            tree: Tree::resume(aside.clone(), launcher, state.tree)?,
            reaper: Reaper::resume(aside, state.reaper),
            port,
            listener: state.listener,
            owner: state.owner,
            instance: state.instance,
            blind: state.blind,
            hiding_named: state.hiding_named,
            sharing_named: state.sharing_named,
        })
    }

    /// The processes that are left now belong to no instance that follows.
    pub(crate) fn begin_instance(&mut self) {
        let begun = self.tree.begin_instance();
        self.note_processes(begun);
        self.listener = None;
        self.owner = Owner::default();
        self.instance.clear();
        self.sharing_named = false;
    }

    /// The listener, as it was seen last.
    pub(crate) fn listener(&self) -> Option<&Listener> {
        self.listener.as_ref()
    }

    /// The processes of the instance, as they were seen last.
    pub(crate) fn instance(&self) -> &[Process] {
        &self.instance
    }

    /// Whether the last look failed.
    pub(crate) fn is_blind(&self) -> bool {
        self.blind.processes || self.blind.sockets
    }

    /// Looks, and tells what has changed.
    pub(crate) fn look(&mut self) -> Option<Change> {
        let before = self.listener.as_ref().map(|listener| listener.address);
        self.find()?;
        match (before, self.listener.as_ref().map(|listener| listener.address)) {
            (Some(_), None) => Some(Change::Gone),
            (before, Some(now)) if before != Some(now) => Some(Change::Appeared),
            _ => None,
        }
    }

    /// Looks which processes of the instance are left; `None` if that cannot be seen now.
    pub(crate) fn left(&mut self) -> Option<Left> {
        self.find()?;
        Some(match (&self.listener, self.instance.is_empty()) {
            (Some(_), _) => Left::Listener,
            (None, true) => Left::Nobody,
            (None, false) => Left::Idle,
        })
    }

    /// Those of these processes that are the instance's. One whose parent ends while we look is not found by that look: so
    /// we look several times, for all of them together.
    pub(crate) fn of_instance(&mut self, asked: &HashSet<Pid>) -> HashSet<Pid> {
        let those = |instance: &[Process]| -> HashSet<Pid> {
            let pids = instance.iter().map(|process| process.pid);
            pids.filter(|pid| asked.contains(pid)).collect()
        };
        let mut found = those(&self.instance);
        for _ in 0..RELOOKS {
            if found.len() == asked.len() {
                break;
            }
            found.extend(those(&self.processes().unwrap_or_default()));
        }
        found
    }

    /// Which processes may listen on the relocated port: by the processes that were seen last, and the sockets that listen
    /// now. If we cannot see those, none may.
    pub(crate) fn room(&mut self) -> Room {
        if !self.owner.may_give() {
            return Room::Closed;
        }
        if self.listener.is_none() {
            return Room::Free;
        }
        let all = self.listeners().unwrap_or_default();
        let held = all.iter().filter_map(|listener| held(listener, &self.instance));
        let holders = held.flat_map(|listener| listener.holders).map(|process| process.pid);
        Room::Taken {
            holders: holders.collect(),
            addresses: all.iter().map(|listener| listener.addr.ip()).collect(),
        }
    }

    /// The port was given to a process that has another user.
    pub(crate) fn note_given(&mut self) {
        self.owner.is_given();
    }

    /// The ports, other than the relocated one, that processes of the instance are seen to listen on.
    pub(crate) fn other_ports(&mut self) -> Vec<u16> {
        let Some(instance) = self.processes() else { return vec![] };
        let all = bridge::sock_diag::listeners(ANY_PORT).unwrap_or_default();
        let ours = all.iter().filter(|listener| held(listener, &instance).is_some());
        let mut ports: Vec<_> = ours.map(|listener| listener.addr.port()).collect();
        ports.retain(|port| *port != self.port);
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    /// Whether it is known that no process of the instance is left.
    pub(crate) fn is_instance_over(&mut self) -> bool {
        self.processes().is_some_and(|instance| instance.is_empty())
    }

    /// Whether it is known that no process of any instance is left.
    pub(crate) fn is_everyone_gone(&mut self) -> bool {
        let everyone = self.tree.everyone(&mut self.reaper);
        self.note_processes(everyone).is_some_and(|everyone| everyone.is_empty())
    }

    /// The processes of all instances that are left; `None` if that cannot be seen now.
    pub(crate) fn everyone(&mut self) -> Option<Vec<Process>> {
        let everyone = self.tree.everyone(&mut self.reaper);
        let everyone = self.note_processes(everyone)?;
        self.name_hidden(&everyone);
        Some(everyone)
    }

    /// Whether the leader was stopped (SIGTSTP, SIGTTIN) since this was asked last.
    pub(crate) fn has_stopped(&mut self, leader: Option<Pid>) -> bool {
        self.reaper.take_stopped(leader)
    }

    /// Reaps, and returns the status of the leader if it has ended.
    pub(crate) fn reap(&mut self, leader: Option<Pid>) -> Option<ExitStatus> {
        self.reaper.collect();
        self.reaper.take(leader)
    }

    /// Notes the processes of the instance, and its listener: the one that was known, if it is still there. `None` if
    /// we cannot look: then what we knew stands.
    fn find(&mut self) -> Option<()> {
        let known = self.listener.as_ref().map(|listener| listener.address);
        let mut instance = self.processes()?;
        for _ in 0..LOOKS {
            let Some(mut listeners) = self.listeners() else {
                if !instance.is_empty() {
                    return None;
                }
                self.listener = None;
                break;
            };
            listeners.sort_by_key(|listener| Some(listener.addr) != known);
            self.listener = listeners.iter().find_map(|listener| held(listener, &instance));
            if self.is_shared(&listeners, &instance) {
                self.listener = None;
                break;
            }
            if self.listener.is_some() || listeners.is_empty() {
                break;
            }
            // Listeners of processes outside of the instance do not count (W2).
            let outside = listeners.iter().map(|at| self.tree.is_held_outside(at.inode.into()));
            let outside = outside.collect::<io::Result<Vec<_>>>();
            if self.note_processes(outside)?.into_iter().all(|outside| outside) {
                break;
            }
            instance = self.processes()?;
        }
        if self.listener.is_some() {
            self.owner.listens();
        }
        self.instance = instance;
        Some(())
    }

    /// Whether a process outside of the instance listens on the listener's address too: the kernel would give it some
    /// of the clients. It can be a leftover of the program's, or another process of our own user.
    fn is_shared(&mut self, all: &[bridge::sock_diag::Listener], instance: &[Process]) -> bool {
        let Some(address) = self.listener.as_ref().map(|listener| listener.address) else {
            return false;
        };
        let mut others = all.iter().filter(|other| other.addr == address);
        let is_shared = others.any(|other| {
            held(other, instance).is_none()
                && self.tree.is_held_outside(other.inode.into()).unwrap_or(true)
        });
        if is_shared && !std::mem::replace(&mut self.sharing_named, is_shared) {
            warn!(
                "a process that is not the program's listens on its relocated port too: no client is let through"
            );
        }
        is_shared
    }

    fn processes(&mut self) -> Option<Vec<Process>> {
        let instance = self.tree.instance(&mut self.reaper);
        let instance = self.note_processes(instance)?;
        self.name_hidden(&instance);
        Some(instance)
    }

    /// Warns once that /proc hides some of the processes.
    fn name_hidden(&mut self, seen: &[Process]) {
        let hidden = seen.iter().find(|process| process.is_hidden());
        if let Some(process) = hidden.filter(|_| !self.hiding_named) {
            self.hiding_named = true;
            warn!(
                "/proc hides processes of the program ({} is one): what they have open cannot be \
                 seen, and those of other users cannot be stopped",
                process.pid
            );
        }
    }

    /// All sockets that listen on the relocated port. Says once that we cannot look.
    fn listeners(&mut self) -> Option<Vec<bridge::sock_diag::Listener>> {
        let listeners = bridge::sock_diag::listeners(self.port);
        note(&mut self.blind.sockets, "who listens", listeners)
    }

    fn note_processes<T>(&mut self, seen: io::Result<T>) -> Option<T> {
        note(&mut self.blind.processes, "the program's processes", seen)
    }
}

/// Says once that we cannot look.
fn note<T>(blind: &mut bool, object: &str, seen: io::Result<T>) -> Option<T> {
    let was_blind = std::mem::replace(blind, seen.is_err());
    seen.inspect_err(|failure| {
        if !was_blind {
            error!("cannot see {object}: {}", bridge::error_text(failure));
        }
    })
    .ok()
}

/// The processes that hold a listener: those that are seen to hold it, and only if there are none, those that may.
fn held(listener: &bridge::sock_diag::Listener, instance: &[Process]) -> Option<Listener> {
    let those = |hold: &dyn Fn(&Process) -> bool| -> Vec<Process> {
        instance.iter().filter(|process| hold(process)).cloned().collect()
    };
    let mut holders = those(&|process| process.holds(listener.inode.into()));
    if holders.is_empty() {
        holders = those(&|process| process.may_hold(listener.uid));
    }
    (!holders.is_empty()).then_some(Listener { address: listener.addr, holders })
}
