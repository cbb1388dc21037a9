//! The program as it is seen from outside: which of its processes are alive, and which of them holds
//! the listening socket. It is told nothing by the program; it looks.

use std::io;
use std::net::SocketAddr;

use nix::unistd::Pid;
use tracing::error;

use super::reap::Reaper;
use super::state::Left;
use super::tree::{Process, Tree};
use crate::exit::ExitStatus;

/// No socket is bound to it: whoever asks the kernel for it asks for all.
const ANY_PORT: u16 = 0;

/// How often the owner of a listener that nobody is seen to hold is looked for: it is being forked
/// from one process to the next, and a look takes about as long as a fork.
const LOOKS: usize = 50;

/// What was seen when we looked last.
#[derive(Debug)]
pub(crate) struct Sight {
    tree: Tree,
    reaper: Reaper,
    /// The relocated port.
    port: u16,
    listener: Option<Listener>,
    /// The last look failed: what we know may be old.
    blind: bool,
}

/// Where a process of the instance listens, and who holds that socket.
#[derive(Debug, Clone)]
pub(crate) struct Listener {
    pub(crate) address: SocketAddr,
    pub(crate) holders: Vec<Process>,
}

/// What has changed since the last look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// A process of the instance listens, where none did or somewhere else.
    Appeared,
    Gone,
}

impl Sight {
    /// Whoever is our child now is none of the program's.
    ///
    /// # Errors
    ///
    /// /proc cannot be used.
    pub(crate) fn new(port: u16) -> io::Result<Self> {
        let tree = Tree::new()?;
        Ok(Self { tree, reaper: Reaper::default(), port, listener: None, blind: false })
    }

    /// Whoever is left now belongs to no instance that follows.
    pub(crate) fn begin_instance(&mut self) {
        let begun = self.tree.begin_instance();
        self.note(begun);
        self.listener = None;
    }

    /// The listener, as it was seen last.
    pub(crate) fn listener(&self) -> Option<&Listener> {
        self.listener.as_ref()
    }

    /// Whether the last look failed.
    pub(crate) fn is_blind(&self) -> bool {
        self.blind
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

    /// Looks who of the instance is left; `None` if that cannot be seen now.
    pub(crate) fn left(&mut self) -> Option<Left> {
        let instance = self.find()?;
        Some(match (&self.listener, instance.is_empty()) {
            (Some(_), _) => Left::Listener,
            (None, true) => Left::Nobody,
            (None, false) => Left::Idle,
        })
    }

    /// The ports, other than the relocated one, that processes of the instance are seen to listen on.
    pub(crate) fn other_ports(&mut self) -> Vec<u16> {
        let Some(instance) = self.instance() else { return vec![] };
        let all = bridge::sock_diag::listeners(ANY_PORT).unwrap_or_default();
        let ours = all.iter().filter(|listener| held(listener, &instance).is_some());
        let mut ports: Vec<_> = ours.map(|listener| listener.addr.port()).collect();
        ports.retain(|port| *port != self.port);
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    /// Whether nobody of the instance is known to be left.
    pub(crate) fn is_instance_over(&mut self) -> bool {
        let instance = self.tree.instance(&mut self.reaper);
        self.note(instance).is_some_and(|instance| instance.is_empty())
    }

    /// Whether nobody of any instance is known to be left.
    pub(crate) fn is_everyone_gone(&mut self) -> bool {
        let everyone = self.tree.everyone(&mut self.reaper);
        self.note(everyone).is_some_and(|everyone| everyone.is_empty())
    }

    /// Who is seen to be left of all instances.
    pub(crate) fn everyone(&mut self) -> Vec<Process> {
        let everyone = self.tree.everyone(&mut self.reaper);
        self.note(everyone).unwrap_or_default()
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

    /// The instance; and notes its listener, the one that was known if it is still there. `None` if
    /// we cannot look: then what we knew stands.
    fn find(&mut self) -> Option<Vec<Process>> {
        let known = self.listener.as_ref().map(|listener| listener.address);
        let mut instance = self.instance()?;
        for _ in 0..LOOKS {
            let listeners = bridge::sock_diag::listeners(self.port);
            let mut listeners = self.note(listeners)?;
            listeners.sort_by_key(|listener| Some(listener.addr) != known);
            self.listener = listeners.iter().find_map(|listener| held(listener, &instance));
            if self.listener.is_some() || listeners.is_empty() {
                break;
            }
            // Others' listeners do not count (W2).
            let outside = listeners.iter().map(|at| self.tree.is_held_outside(at.inode.into()));
            let outside = outside.collect::<io::Result<Vec<_>>>();
            if self.note(outside)?.into_iter().all(|outside| outside) {
                break;
            }
            instance = self.instance()?;
        }
        Some(instance)
    }

    fn instance(&mut self) -> Option<Vec<Process>> {
        let instance = self.tree.instance(&mut self.reaper);
        self.note(instance)
    }

    /// Says once that we cannot look.
    fn note<T>(&mut self, seen: io::Result<T>) -> Option<T> {
        let was_blind = std::mem::replace(&mut self.blind, seen.is_err());
        seen.inspect_err(|failure| {
            if !was_blind {
                error!("cannot see the program's processes: {}", bridge::words(failure));
            }
        })
        .ok()
    }
}

fn held(listener: &bridge::sock_diag::Listener, instance: &[Process]) -> Option<Listener> {
    let holds = |process: &&Process| process.holds(listener.inode.into(), listener.uid);
    let holders: Vec<_> = instance.iter().filter(holds).cloned().collect();
    (!holders.is_empty()).then_some(Listener { address: listener.addr, holders })
}
