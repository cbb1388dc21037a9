//! The only wait in the program: every child that has ended is collected here, the leader, those
//! that became ours as orphans, and those we were born with alike (wait(2), prctl(2) for subreapers).

use nix::errno::Errno;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;

use crate::exit::ExitStatus;

/// Children that have ended, or were stopped, and have not been asked about.
#[derive(Debug, Default)]
pub(crate) struct Reaper {
    ended: Vec<(Pid, ExitStatus)>,
    stopped: Vec<Pid>,
}

impl Reaper {
    /// Collects all children that have ended by now. False: there was none.
    pub(crate) fn collect(&mut self) -> bool {
        let before = self.ended.len();
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG | WaitPidFlag::WUNTRACED)) {
                Ok(WaitStatus::Stopped(pid, _)) => self.stopped.push(pid),
                Ok(status) => match (status.pid(), ExitStatus::of_program(status)) {
                    (Some(pid), Some(status)) => self.ended.push((pid, status)),
                    (Some(_), None) => {}
                    (None, _) => break,
                },
                Err(Errno::EINTR) => {}
                Err(_) => break,
            }
        }
        self.ended.len() > before
    }

    /// The status of a child that was collected. The others are forgotten.
    pub(crate) fn take(&mut self, pid: Option<Pid>) -> Option<ExitStatus> {
        let ended = std::mem::take(&mut self.ended);
        ended.into_iter().find(|(ended, _)| Some(*ended) == pid).map(|(_, status)| status)
    }

    /// Whether a child was stopped since this was asked last.
    pub(crate) fn take_stopped(&mut self, pid: Option<Pid>) -> bool {
        let stopped = std::mem::take(&mut self.stopped);
        stopped.into_iter().any(|stopped| Some(stopped) == pid)
    }
}

/// Whether this child of ours has ended, or is none of ours any more. Collects nothing.
pub(super) fn has_ended(child: Pid) -> bool {
    !matches!(peek(Id::Pid(child)), Ok(WaitStatus::StillAlive))
}

/// Whether we have children at all, seen or not: what /proc hides is still ours to wait for.
pub(super) fn has_children() -> bool {
    peek(Id::All).is_ok()
}

fn peek(whom: Id) -> Result<WaitStatus, Errno> {
    waitid(whom, WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT)
}
