//! What an engine hears of the program. It is a hint, and no more: whoever acts on it looks first.

use std::net::IpAddr;
use std::os::fd::OwnedFd;

use nix::unistd::Pid;

/// What was heard at once.
#[derive(Debug, Default)]
pub(crate) struct Notices {
    /// Somebody listens, perhaps.
    pub(crate) listens: bool,
    pub(crate) requests: Vec<BindRequest>,
}

/// A process that cannot bind its socket to the relocated port, as it has another user than we, and
/// waits until this is dropped.
#[derive(Debug)]
pub(crate) struct BindRequest {
    /// By the kernel's word.
    pub(crate) pid: Pid,
    /// What it would bind, and where.
    pub(super) socket: OwnedFd,
    pub(super) ip: IpAddr,
    pub(super) _waits: OwnedFd,
}
