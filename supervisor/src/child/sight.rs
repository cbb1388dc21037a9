//! The program as it is seen from outside: which of its processes are alive, and which of them holds
//! the listening socket. It is told nothing by the program; it looks.

use std::net::SocketAddr;

use nix::unistd::Pid;
use tracing::error;

use super::reap::Reaper;
use super::state::Left;
use super::tree::{Process, Tree};
use crate::exit::{ExitStatus, words};

/// How often a listener whose owner is not found is looked for again: whoever holds it may be
/// forking, and a look takes about as long as a fork.
const LOOKS: usize = 10;

/// What was seen when we looked last.
#[derive(Debug)]
pub(crate) struct Sight {
    tree: Tree,
    reaper: Reaper,
    /// The relocated port.
    port: u16,
    listener: Option<Listener>,
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
    pub(crate) fn new(port: u16) -> Self {
        Self { tree: Tree::new(), reaper: Reaper::default(), port, listener: None }
    }

    /// Whoever is left now belongs to no instance that follows.
    pub(crate) fn begin_instance(&mut self) {
        self.tree.begin_instance();
        self.listener = None;
    }

    /// The listener, as it was seen last.
    pub(crate) fn listener(&self) -> Option<&Listener> {
        self.listener.as_ref()
    }

    /// Looks, and tells what has changed.
    pub(crate) fn look(&mut self) -> Option<Change> {
        let before = self.listener.take().map(|listener| listener.address);
        self.listener = self.find(before).1;
        match (before, self.listener.as_ref().map(|listener| listener.address)) {
            (Some(_), None) => Some(Change::Gone),
            (before, Some(now)) if before != Some(now) => Some(Change::Appeared),
            _ => None,
        }
    }

    /// Looks who of the instance is left.
    pub(crate) fn left(&mut self) -> Left {
        let before = self.listener.take().map(|listener| listener.address);
        let (instance, listener) = self.find(before);
        self.listener = listener;
        match (&self.listener, instance.is_empty()) {
            (Some(_), _) => Left::Listener,
            (None, true) => Left::Nobody,
            (None, false) => Left::Idle,
        }
    }

    /// Whether nobody of the instance is left.
    pub(crate) fn is_instance_over(&mut self) -> bool {
        self.tree.instance(&mut self.reaper).is_empty()
    }

    /// Who is left of all instances.
    pub(crate) fn everyone(&mut self) -> Vec<Process> {
        self.tree.everyone(&mut self.reaper)
    }

    /// Reaps, and returns the status of the leader if it has ended.
    pub(crate) fn reap(&mut self, leader: Option<Pid>) -> Option<ExitStatus> {
        self.reaper.collect();
        self.reaper.take(leader)
    }

    /// The instance, and its listener: the one that was `known`, if it is still there.
    fn find(&mut self, known: Option<SocketAddr>) -> (Vec<Process>, Option<Listener>) {
        let mut instance = self.tree.instance(&mut self.reaper);
        for _ in 0..LOOKS {
            let mut listeners = match bridge::sock_diag::listeners(self.port) {
                Ok(listeners) => listeners,
                Err(failure) => {
                    error!("cannot ask the kernel who listens: {}", words(&failure));
                    return (instance, None);
                }
            };
            listeners.sort_by_key(|listener| Some(listener.addr) != known);
            let held = listeners.iter().find_map(|listener| held(listener, &instance));
            if held.is_some() || listeners.is_empty() {
                return (instance, held);
            }
            // Others' listeners do not count (W2); but this one's owner may have been born since.
            instance = self.tree.instance(&mut self.reaper);
        }
        (instance, None)
    }
}

fn held(listener: &bridge::sock_diag::Listener, instance: &[Process]) -> Option<Listener> {
    let holds = |process: &&Process| process.holds(listener.inode.into(), listener.uid);
    let holders: Vec<_> = instance.iter().filter(holds).cloned().collect();
    (!holders.is_empty()).then_some(Listener { address: listener.addr, holders })
}
