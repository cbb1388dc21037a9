//! The only wait in the program: every child that has ended is collected here, the leader, those
//! that became ours as orphans, and those we were born with alike (wait(2), prctl(2) for subreapers).

use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use crate::exit::ExitStatus;

/// Collects all children that have ended by now.
pub(crate) fn ended() -> Vec<(Pid, ExitStatus)> {
    let mut ended = Vec::new();
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(status) => match (status.pid(), ExitStatus::of_program(status)) {
                (Some(pid), Some(status)) => ended.push((pid, status)),
                (Some(_), None) => {}
                (None, _) => return ended,
            },
            Err(Errno::EINTR) => {}
            Err(_) => return ended,
        }
    }
}
