//! A notice: what an engine hears of the program. It is a hint, and no more: its receiver looks before it acts.

use std::net::IpAddr;
use std::os::fd::OwnedFd;

use nix::unistd::Pid;

/// What was heard at one time.
#[derive(Debug, Default)]
pub(crate) struct Notices {
    /// A process of the program listens now, perhaps.
    pub(crate) listens: bool,
    pub(crate) requests: Vec<BindRequest>,
}

/// The request of a process that cannot bind its socket to the relocated port, as it runs as another user than we. The
/// process waits until this is dropped.
#[derive(Debug)]
pub(crate) struct BindRequest {
    /// The process, as the kernel says (SCM_CREDENTIALS).
    pub(crate) pid: Pid,
    /// The socket that it would bind, and the address.
    pub(super) socket: OwnedFd,
    pub(crate) ip: IpAddr,
    pub(super) _waits: OwnedFd,
}
