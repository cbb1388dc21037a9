//! Our children, as the kernel knows them: looked at (waitid(2) with WNOWAIT), or waited for (waitpid(2)). Without nix, which
//! fails on a child that a real-time signal has ended: it has no name for such a signal.

use nix::errno::Errno;
use nix::unistd::Pid;
use rustix::process::{WaitOptions, WaitStatus, waitpid};

use crate::exit::End;

/// A child that has ended or was stopped, and was not waited for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) pid: Pid,
    pub(super) is_stopped: bool,
}

/// What a child was waited for with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waited {
    Ended(End),
    Stopped,
}

/// Whether it is a child of ours that was not waited for.
pub(crate) fn is_child(pid: Pid) -> bool {
    look(Some(pid), libc::WEXITED).is_ok()
}

/// Whether this child of ours has ended, or is none of ours any more. Collects nothing.
pub(super) fn has_ended(child: Pid) -> bool {
    !matches!(look(Some(child), libc::WEXITED), Ok(None))
}

/// Whether we have children at all, seen or not: what /proc hides is still ours to wait for.
pub(super) fn has_children() -> bool {
    look(None, libc::WEXITED).is_ok()
}

/// A child that has ended or was stopped, if there is one. Waits for nobody.
///
/// # Errors
/// `ECHILD`: we have no children. `EINTR`.
pub(super) fn next() -> nix::Result<Option<Seen>> {
    look(None, libc::WEXITED | libc::WSTOPPED)
}

/// Waits for this child if it has ended.
///
/// # Errors
/// `ECHILD`: it is no child of ours, or was waited for. `EINTR`.
pub(crate) fn wait(child: Pid) -> nix::Result<Option<End>> {
    let waited = wait_with(child, WaitOptions::NOHANG)?;
    Ok(waited.and_then(|waited| match waited {
        Waited::Ended(end) => Some(end),
        Waited::Stopped => None,
    }))
}

/// The same, and a child that was stopped is told of once.
pub(super) fn wait_for_change(child: Pid) -> nix::Result<Option<Waited>> {
    wait_with(child, WaitOptions::NOHANG | WaitOptions::UNTRACED)
}

fn wait_with(child: Pid, options: WaitOptions) -> nix::Result<Option<Waited>> {
    let child = rustix::process::Pid::from_raw(child.as_raw()).ok_or(Errno::ECHILD)?;
    match waitpid(Some(child), options) {
        Ok(waited) => Ok(waited.map(|(_, status)| waited_with(status))),
        Err(error) => Err(Errno::from_raw(error.raw_os_error())),
    }
}

fn waited_with(status: WaitStatus) -> Waited {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Waited::Ended(End::Exited(code)),
        (None, Some(signal)) => Waited::Ended(End::Killed(signal)),
        (None, None) => Waited::Stopped,
    }
}

/// Any child if `whom` is none.
#[allow(unsafe_code)]
fn look(whom: Option<Pid>, what: i32) -> nix::Result<Option<Seen>> {
    let (kind, id) = match whom {
        Some(pid) => (libc::P_PID, pid.as_raw().unsigned_abs()),
        None => (libc::P_ALL, 0),
    };
    // SAFETY: zeroes are a siginfo_t, which the kernel only writes to; `si_pid` reads what waitid(2) has written, or zero.
    let (done, pid, code) = unsafe {
        let mut told: libc::siginfo_t = std::mem::zeroed();
        let done = libc::waitid(kind, id, &raw mut told, what | libc::WNOHANG | libc::WNOWAIT);
        (done, told.si_pid(), told.si_code)
    };
    Errno::result(done)?;
    let is_stopped = code == libc::CLD_STOPPED;
    Ok((pid != 0).then(|| Seen { pid: Pid::from_raw(pid), is_stopped }))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    /// W8: 40 is a real-time signal.
    #[test]
    fn w8_a_child_that_any_signal_has_ended_is_seen_and_waited_for() {
        for signal in [9, 40, 64] {
            let script = format!("kill -{signal} $$");
            let child = Command::new("sh").args(["-c", &script]).stderr(Stdio::null()).spawn();
            let pid = Pid::from_raw(child.expect("a shell").id().try_into().expect("a pid"));
            while !has_ended(pid) {
                std::thread::yield_now();
            }
            assert!(is_child(pid) && has_children());
            assert_eq!(wait(pid), Ok(Some(End::Killed(signal))));
            assert!(!is_child(pid) && has_ended(pid));
            assert_eq!(wait(pid), Err(Errno::ECHILD));
        }
    }
}
