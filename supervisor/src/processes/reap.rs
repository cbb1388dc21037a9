//! The wait for the program's processes: every child that has ended is collected here, the leader, those that became
//! ours as orphans, and those we were born with alike (wait(2), prctl(2) for subreapers). A helper, which `aside`
//! knows, is waited for by whoever comes first.

use nix::errno::Errno;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;

use super::aside::Aside;
use crate::exit::ExitStatus;

/// Children that have ended, or were stopped, and have not been asked about.
#[derive(Debug)]
pub(crate) struct Reaper {
    aside: Aside,
    ended: Vec<(Pid, ExitStatus)>,
    stopped: Vec<Pid>,
}

impl Reaper {
    /// Of those in `aside` it tells nothing.
    pub(crate) fn new(aside: Aside) -> Self {
        Self { aside, ended: vec![], stopped: vec![] }
    }

    /// Collects all children that have ended by now. False: there was none.
    pub(crate) fn collect(&mut self) -> bool {
        let before = self.ended.len();
        loop {
            let seen = match peek(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WSTOPPED) {
                Err(Errno::EINTR) => continue,
                seen => seen,
            };
            let Some(pid) = seen.ok().and_then(|status| status.pid()) else { break };
            self.collect_one(pid, seen);
        }
        self.ended.len() > before
    }

    /// What is set apart is let go before it is waited for: from then on others may get its number.
    fn collect_one(&mut self, pid: Pid, seen: nix::Result<WaitStatus>) {
        let has_ended = !matches!(seen, Ok(WaitStatus::Stopped(..)));
        let is_aside =
            if has_ended { self.aside.let_go(pid) } else { self.aside.all().contains(&pid) };
        match waitpid(pid, Some(WaitPidFlag::WNOHANG | WaitPidFlag::WUNTRACED)) {
            Ok(status) if is_aside => self.aside.note(pid, status),
            Ok(WaitStatus::Stopped(pid, _)) => self.stopped.push(pid),
            Ok(status) => {
                let ended = status.pid().zip(ExitStatus::of_program(status));
                self.ended.extend(ended);
            }
            // Interrupted, or waited for elsewhere: the next look shows it.
            Err(_) => {}
        }
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
    !matches!(peek(Id::Pid(child), WaitPidFlag::WEXITED), Ok(WaitStatus::StillAlive))
}

/// Whether we have children at all, seen or not: what /proc hides is still ours to wait for.
pub(super) fn has_children() -> bool {
    peek(Id::All, WaitPidFlag::WEXITED).is_ok()
}

fn peek(whom: Id, what: WaitPidFlag) -> nix::Result<WaitStatus> {
    waitid(whom, what | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT)
}
