//! Children of ours that are none of the program's: helpers. Each leads a process group, which ends with it.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// How long one is waited for that was killed, and how often is looked.
const ENDING: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(1);

/// Those that have not been waited for; shared by those who start them and those who look at processes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Aside(Arc<Mutex<HashSet<Pid>>>);

impl Aside {
    /// Notes a child that was started just now, before anybody looks for processes.
    pub(crate) fn add(&self, child: Pid) {
        self.lock().insert(child);
    }

    /// Kills a child with its group, and waits for it. False: it is still there after a second, because the kernel
    /// holds it up, or because it has become another user, whom we may not kill. It stays one of these.
    #[expect(clippy::disallowed_methods, reason = "waitpid(2) has no limit of time")]
    pub(crate) fn end(&self, child: Pid) -> bool {
        if !self.kill_group(child) {
            return true;
        }
        let until = Instant::now() + ENDING;
        loop {
            match waitpid(child, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(Errno::EINTR) if Instant::now() < until => {
                    sleep(LOOK);
                }
                Ok(WaitStatus::StillAlive) | Err(Errno::EINTR) => return false,
                _ => break,
            }
        }
        self.lock().remove(&child);
        true
    }

    /// Kills a child's group, if it is one of these: until it was waited for, nobody else has its number.
    fn kill_group(&self, child: Pid) -> bool {
        let children = self.lock();
        let is_one = children.contains(&child);
        if is_one {
            let _ = killpg(child, Signal::SIGKILL);
        }
        is_one
    }

    /// The child has ended, and is about to be waited for by somebody who waits for all: true if it is one of these.
    pub(super) fn let_go(&self, child: Pid) -> bool {
        let is_one = self.kill_group(child);
        self.lock().remove(&child);
        is_one
    }

    pub(crate) fn all(&self) -> Vec<Pid> {
        self.lock().iter().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<Pid>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
