//! Waits for the end of processes, the last of them: by pidfd, or where that is refused (kernels before
//! 5.3, containers) or cannot be had, by looking.

use std::future::pending;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::process::{Process, has_ended};

/// How often we look at a process of which we are told nothing. An orphan is our child, and we look at
/// each SIGCHLD as well: mostly its end is seen at once.
const INTERVAL: Duration = Duration::from_secs(1);

/// Processes whose end is waited for.
#[derive(Debug, Default)]
pub(crate) struct Exits {
    told: Vec<(Process, AsyncFd<OwnedFd>)>,
    looked_at: Vec<Process>,
}

impl Exits {
    /// Watches those of them who have not ended. Needs a runtime.
    pub(crate) fn of(processes: &[Process]) -> Self {
        let mut watched = Self::default();
        for process in processes {
            match register(process) {
                Ok(told) => watched.told.push((process.clone(), told)),
                Err(error) if has_ended(&error) => {}
                Err(_) if process.is_there() => watched.looked_at.push(process.clone()),
                Err(_) => {}
            }
        }
        watched
    }

    /// Whether nobody is watched.
    pub(crate) fn is_empty(&self) -> bool {
        self.told.is_empty() && self.looked_at.is_empty()
    }

    /// Watches only those who are among these, if any is.
    pub(crate) fn narrow(&mut self, processes: &[Process]) {
        let stays = |process: &Process| processes.contains(process);
        if self.told.iter().map(|(process, _)| process).chain(&self.looked_at).any(stays) {
            self.told.retain(|(process, _)| stays(process));
            self.looked_at.retain(stays);
        }
    }

    /// Returns when the last has ended; pending for ever if there is none. Cancel-safe: begun anew, it
    /// looks before it waits.
    pub(crate) async fn ended(&mut self) {
        if self.is_empty() {
            pending::<()>().await;
        }
        while let Some((_, end)) = self.told.last() {
            // An error here would be one of epoll's own; nothing better can be done than to go on.
            let _ = end.readable().await;
            self.told.pop();
        }
        loop {
            self.looked_at.retain(Process::is_there);
            if self.looked_at.is_empty() {
                return;
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }
}

/// A descriptor that becomes readable when the process ends.
#[allow(unsafe_code)]
fn register(process: &Process) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is open, and the same, for as long as it is owned.
    let told = unsafe { AsyncFd::register_with_interest(process.pidfd()?, Interest::READABLE) };
    Ok(told?)
}
