//! Our children, as the kernel knows them: looked at, and not waited for (waitid(2), WNOWAIT).

use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

/// Whether it is a child of ours that was not waited for.
pub(crate) fn is_child(pid: Pid) -> bool {
    peek(Id::Pid(pid), WaitPidFlag::WEXITED).is_ok()
}

/// Whether this child of ours has ended, or is none of ours any more. Collects nothing.
pub(super) fn has_ended(child: Pid) -> bool {
    !matches!(peek(Id::Pid(child), WaitPidFlag::WEXITED), Ok(WaitStatus::StillAlive))
}

/// Whether we have children at all, seen or not: what /proc hides is still ours to wait for.
pub(super) fn has_children() -> bool {
    peek(Id::All, WaitPidFlag::WEXITED).is_ok()
}

/// Looks, and waits for nobody.
pub(super) fn peek(whom: Id, what: WaitPidFlag) -> nix::Result<WaitStatus> {
    waitid(whom, what | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT)
}
