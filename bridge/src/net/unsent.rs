//! How many bytes written to a socket its peer's kernel has not taken yet: SIOCOUTQ of tcp(7) and
//! unix(7).
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::os::fd::{AsFd, AsRawFd};

use nix::libc::TIOCOUTQ;

// On Linux, SIOCOUTQ is another name of TIOCOUTQ.
nix::ioctl_read_bad!(siocoutq, TIOCOUTQ, c_int);

/// Of a TCP socket, the bytes without an acknowledgement, including those in flight; a FIN that was sent counts as one
/// byte. Of a Unix socket, the memory of what the peer has not read. 0 if the kernel does not say.
pub(super) fn unsent(socket: &impl AsFd) -> u64 {
    let mut bytes = 0;
    // SAFETY: the descriptor is open as long as it is borrowed, and the kernel writes one int.
    let said = unsafe { siocoutq(socket.as_fd().as_raw_fd(), &raw mut bytes) };
    said.map_or(0, |_| u64::try_from(bytes).unwrap_or(0))
}
