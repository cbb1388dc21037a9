//! Facts that the kernel knows of a socket whose bind may be moved. Knows socket
//! options; must not know what is done with the answers.

use core::ffi::c_int;

use super::address::{self, Stack};
use super::sys;

/// The families over which a TCP socket can be reached; `None` for all other descriptors.
pub(crate) fn stack(fd: c_int) -> Option<Stack> {
    let of_socket = |name| sys::option(fd, sys::SOL_SOCKET, name);
    // SCTP has stream sockets too, and its ports are others.
    let tcp = matches!(of_socket(sys::SO_PROTOCOL)?, sys::IPPROTO_TCP | sys::IPPROTO_MPTCP);
    if !tcp || of_socket(sys::SO_TYPE)? != sys::SOCK_STREAM {
        return None;
    }
    match of_socket(sys::SO_DOMAIN)? {
        sys::AF_INET => Some(Stack::V4),
        // Older kernels cannot say it of an MPTCP socket. It counts as one for IPv6 alone: ::1 can always be bound.
        sys::AF_INET6 => match sys::option(fd, sys::IPPROTO_IPV6, sys::IPV6_V6ONLY) {
            Some(0) => Some(Stack::Dual),
            _ => Some(Stack::V6Only),
        },
        _ => None,
    }
}

/// The port that a TCP socket is bound to; 0 if it is not.
pub(crate) fn local_port(fd: c_int) -> Option<u16> {
    let mut buffer = [0; 28];
    address::decode(sys::local_address(fd, &mut buffer)?).map(|address| address.port())
}
