//! What the kernel has heard of a peer: TCP_INFO of tcp(7).
#![allow(unsafe_code)]

use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use nix::libc;

/// What was heard of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Heard {
    /// Whether the peer owes an acknowledgement: of bytes that were sent, or of a probe whether its window is open
    /// again.
    pub(crate) is_asked: bool,
    /// How long ago the last acknowledgement of the peer came.
    pub(crate) ago: Duration,
}

/// What was heard of the peer of a TCP connection; `None` if the kernel does not say.
pub(super) fn heard(socket: &impl AsFd) -> Option<Heard> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = libc::socklen_t::try_from(size_of::<libc::tcp_info>()).ok()?;
    let number = socket.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open as long as it is borrowed, and the kernel writes no more than there is room for.
    let said = unsafe {
        libc::getsockopt(
            number,
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    // SAFETY: `tcp_info` consists of integers alone, and those that the kernel has not written are zero.
    let info = (said == 0).then(|| unsafe { info.assume_init() })?;
    Some(Heard {
        is_asked: info.tcpi_unacked > 0 || info.tcpi_probes > 0,
        ago: Duration::from_millis(info.tcpi_last_ack_recv.into()),
    })
}
