//! The wait for the end of processes, until the last of them has ended: by pidfd, or where that is refused (kernels
//! before 5.3, containers) or cannot be had, by looking from time to time.

use std::future::pending;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::process::{Process, has_ended};

/// How often we look at a process without a pidfd. An orphan is our child, and we look at each SIGCHLD as well: mostly
/// its end is seen at once.
const INTERVAL: Duration = Duration::from_secs(1);

/// Processes whose end is waited for.
#[derive(Debug, Default)]
pub(crate) struct ExitWatcher {
    told: Vec<(Process, AsyncFd<OwnedFd>)>,
    looked_at: Vec<Process>,
}

impl ExitWatcher {
    /// Watches those of the processes that have not ended. Needs a runtime.
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

    /// Watches the processes that the old binary has watched. One that has ended meanwhile is reported as any other.
    /// Needs a runtime.
    pub(crate) fn resume(processes: Vec<Process>) -> Self {
        let mut watched = Self::default();
        for process in processes {
            match register(&process) {
                Ok(told) => watched.told.push((process, told)),
                Err(_) => watched.looked_at.push(process),
            }
        }
        watched
    }

    /// The processes that are watched.
    pub(crate) fn processes(&self) -> Vec<Process> {
        let told = self.told.iter().map(|(process, _)| process);
        told.chain(&self.looked_at).cloned().collect()
    }

    /// Whether no process is watched.
    pub(crate) fn is_empty(&self) -> bool {
        self.told.is_empty() && self.looked_at.is_empty()
    }

    /// Goes on watching only those that are among these processes; but if none is, all stay watched.
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

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use nix::sys::signal::Signal;
    use nix::sys::wait::waitpid;
    use nix::unistd::Pid;
    use tokio::time::timeout;

    use super::*;

    /// A process that leads a group, and sleeps until it is killed.
    fn sleeper() -> (Process, Child) {
        use std::os::unix::process::CommandExt;
        let mut command = Command::new("sleep");
        let child = command.arg("1000").process_group(0).stdout(Stdio::null()).spawn();
        let child = child.expect("started");
        let pid = Pid::from_raw(child.id().try_into().expect("a pid"));
        (Process::of_leader(pid), child)
    }

    /// One process ends before the new binary goes on, and one after that.
    #[tokio::test]
    async fn o2_who_has_ended_meanwhile_is_told_as_any_other() {
        let ((one, _first), (other, _second)) = (sleeper(), sleeper());
        let watched = ExitWatcher::of(&[one.clone(), other.clone()]).processes();
        let end = |process: &Process| {
            process.signal(Signal::SIGKILL).expect("killed");
            waitpid(process.pid, None).expect("waited for");
        };
        end(&one);
        let mut watched = ExitWatcher::resume(watched);
        let early = timeout(Duration::from_millis(50), watched.ended()).await;
        early.expect_err("one lives");
        end(&other);
        timeout(Duration::from_secs(20), watched.ended()).await.expect("both have ended");
        let mut watched = ExitWatcher::resume(vec![one, other]);
        assert!(!watched.is_empty());
        timeout(Duration::from_secs(20), watched.ended()).await.expect("they had ended before");
    }
}
