//! The table of our children that are none of the program's: helpers, new binaries that are tried for a hand-over, and
//! *rests*. A rest is a forked copy of the old process that carries to their end the TLS sessions that could not be
//! handed over (O2). Each child leads a process group, which ends with it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::sync::watch;

use super::children::{has_ended, wait};
use crate::exit::End;

/// How long a killed child is waited for, and how often we look whether it has ended.
const EXIT_TIMEOUT: Duration = Duration::from_secs(1);
const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// The children that have not been waited for; shared by those who start them and those who look at processes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Aside(Arc<Mutex<Children>>);

#[derive(Debug, Default)]
struct Children {
    running: HashSet<Pid>,
    /// Those of them that are rests, with sessions of their own (O2).
    rests: HashSet<Pid>,
    /// Says whether there are rests.
    has_rests: watch::Sender<bool>,
    /// The children whose end somebody wants to know, and how they have ended, once they were waited for.
    asked: HashMap<Pid, Option<End>>,
}

impl Children {
    fn forget(&mut self, child: Pid) {
        self.running.remove(&child);
        self.rests.remove(&child);
        self.tell();
    }

    fn tell(&self) {
        let has_rests = !self.rests.is_empty();
        self.has_rests.send_if_modified(|told| std::mem::replace(told, has_rests) != has_rests);
    }
}

impl Aside {
    /// Notes a child that was started just now, before anybody looks for processes.
    pub(crate) fn add(&self, child: Pid) {
        self.lock().running.insert(child);
    }

    /// The same for a child whose end somebody [wants to know](Self::collect).
    pub(crate) fn add_asked(&self, child: Pid) {
        let mut children = self.lock();
        children.running.insert(child);
        children.asked.insert(child, None);
    }

    /// How a child has ended, whoever has waited for it. A child that has not ended is killed, and gives none.
    pub(crate) fn collect(&self, child: Pid) -> Option<End> {
        // The reaper, which waits for all children, waits for these under the same lock.
        let end = self.wait_for(child);
        if end.is_none() {
            self.end(child);
        }
        self.lock().asked.remove(&child).flatten()
    }

    /// Waits for a child that has ended, if it is one of these. Its process group is killed.
    pub(super) fn wait_for(&self, child: Pid) -> Option<End> {
        let mut children = self.lock();
        if !children.running.contains(&child) || !has_ended(child) {
            return None;
        }
        let _ = killpg(child, Signal::SIGKILL);
        let end = wait(child).ok()??;
        children.forget(child);
        if let Some(asked) = children.asked.get_mut(&child) {
            *asked = Some(end);
        }
        Some(end)
    }

    /// Notes a child that is a rest.
    pub(crate) fn add_rest(&self, child: Pid) {
        let mut children = self.lock();
        children.running.insert(child);
        children.rests.insert(child);
        children.tell();
    }

    /// Whether there are rests, and when that changes.
    pub(crate) fn has_rests(&self) -> watch::Receiver<bool> {
        self.lock().has_rests.subscribe()
    }

    /// The rests that have not been waited for.
    pub(crate) fn rests(&self) -> Vec<Pid> {
        self.lock().rests.iter().copied().collect()
    }

    /// Waits for the rests that have ended, where the caller hears of no SIGCHLD.
    pub(crate) fn reap_rests(&self) {
        let mut children = self.lock();
        let rests: Vec<_> = children.rests.iter().copied().collect();
        for child in rests {
            match wait(child) {
                Ok(None) | Err(Errno::EINTR) => {}
                _ => children.forget(child),
            }
        }
    }

    /// Sends the rests a signal. Until they were waited for, no other process can have their ids.
    pub(crate) fn signal_rests(&self, signal: Signal) {
        for child in &self.lock().rests {
            let _ = kill(*child, signal);
        }
    }

    /// Kills all but rests, as at our end.
    pub(crate) fn end_all(&self) {
        let rests = self.rests();
        for child in self.all().into_iter().filter(|child| !rests.contains(child)) {
            self.end(child);
        }
    }

    /// Kills a child with its group, and waits for it. False: it is still there after a second, because the kernel
    /// holds it up, or because it has become another user, whom we may not kill. Then it stays in the table.
    #[expect(clippy::disallowed_methods, reason = "waitpid(2) has no limit of time")]
    pub(crate) fn end(&self, child: Pid) -> bool {
        if !self.kill_group(child) {
            return true;
        }
        let until = Instant::now() + EXIT_TIMEOUT;
        loop {
            match wait(child) {
                Ok(None) | Err(Errno::EINTR) if Instant::now() < until => sleep(POLL_INTERVAL),
                Ok(None) | Err(Errno::EINTR) => return false,
                _ => break,
            }
        }
        self.lock().forget(child);
        true
    }

    /// Kills a child's group, if it is one of these: until it was waited for, no other process can have its id.
    fn kill_group(&self, child: Pid) -> bool {
        let children = self.lock();
        let is_one = children.running.contains(&child);
        if is_one {
            let _ = killpg(child, Signal::SIGKILL);
        }
        is_one
    }

    pub(crate) fn all(&self) -> Vec<Pid> {
        self.lock().running.iter().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Children> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
