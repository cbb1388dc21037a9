//! The rules: bind(2) and listen(2) on a copy of the program's socket, moved by the very rules of `rebind.so`, whose
//! sources are included here and know nothing of where they run. Must not know which process has the socket.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use super::call::Answer;
use crate::engine::owner::Owner;
use crate::engine::relocated::RelocatedPort;
use address::{Encoded, Ports};
use moved::Move;

#[path = "../../../../rebind/src/address.rs"]
mod address;
#[path = "../../../../rebind/src/moved.rs"]
mod moved;
#[path = "../../../../rebind/src/socket.rs"]
mod socket;
#[path = "../../../../rebind/src/sys.rs"]
#[allow(dead_code, unsafe_code, reason = "rebind.so needs more of the C library than we do")]
mod sys;

/// Whether this address is of a family that can be moved, and its port is the program's own or the relocated one.
pub(super) fn concern(bytes: &[u8], ports: (u16, u16)) -> bool {
    let (old, new) = ports;
    address::decode(bytes).is_some_and(|wanted| Ports { old, new }.concern(wanted.port()))
}

/// Binds a socket that asks for this address, which [concerns](concern) us. The socket of another user gets the port only
/// if the instance's `owner` lets it; if it may not be made ours, `refused` gets the reason.
pub(super) fn bind(
    socket: &OwnedFd,
    bytes: &[u8],
    (relocated, owner): (&RelocatedPort, &Cell<Owner>),
    refused: impl Fn(io::Error),
) -> Answer {
    let fd = socket.as_raw_fd();
    let (Some(wanted), Some(stack)) = (address::decode(bytes), socket::stack(fd)) else {
        return Answer::Continue;
    };
    let of_another_user = |_, address: SocketAddr| {
        let may_give = relocated.is_foreign(socket) && owner.get().may_give();
        let is_bound = may_give && bind_for(socket, address, relocated).map_err(&refused).is_ok();
        if is_bound {
            let mut now = owner.get();
            now.is_given();
            owner.set(now);
        }
        is_bound
    };
    let wanted = Move { fd, wanted: wanted.ip(), stack, port: relocated.port };
    // None: the kernel refuses this anyway, and is left to do so.
    wanted.bind(bind_to, of_another_user).map_or(Answer::Continue, Answer::Done)
}

/// Binds the socket of another user, who may not share the port.
fn bind_for(socket: &OwnedFd, address: SocketAddr, relocated: &RelocatedPort) -> io::Result<()> {
    let fd = socket.as_raw_fd();
    if sys::option(fd, sys::SOL_SOCKET, sys::SO_PROTOCOL) != Some(sys::IPPROTO_MPTCP) {
        return relocated.bind(socket, address.ip());
    }
    let bound = relocated.lend(socket, || bind_to(fd, &Encoded::new(address)))?;
    bound.map_err(io::Error::from_raw_os_error)
}

/// Lets a socket listen, if it is one that was moved.
pub(super) fn listen(socket: &OwnedFd, backlog: u64, relocated: &RelocatedPort) -> Answer {
    let fd = socket.as_raw_fd();
    if socket::stack(fd).is_none() || !is_moved(socket, relocated.port) {
        return Answer::Continue;
    }
    #[expect(clippy::cast_possible_truncation, reason = "the kernel takes the lower half")]
    let backlog = backlog as i32;
    let listen = || match moved::listen(fd, relocated.port, bind_to, |fd| listen_on(fd, backlog)) {
        0 => Ok(()),
        _ => Err(sys::errno()),
    };
    // A socket that could not be made ours (MPTCP).
    let lent = relocated.is_foreign(socket).then(|| relocated.lend(socket, listen));
    Answer::Done(lent.and_then(io::Result::ok).unwrap_or_else(listen))
}

/// Whether a socket is bound to this port, the relocated one.
pub(super) fn is_moved(socket: &OwnedFd, port: u16) -> bool {
    socket::local_port(socket.as_raw_fd()) == Some(port)
}

#[allow(unsafe_code)]
fn bind_to(fd: i32, address: &Encoded) -> Result<(), i32> {
    let (bytes, length) = address.parts();
    // SAFETY: the bytes of the address outlive the call, and there are `length` of them.
    match unsafe { libc::bind(fd, bytes.as_ptr().cast(), length) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error().raw_os_error().unwrap_or_default()),
    }
}

#[allow(unsafe_code)]
fn listen_on(fd: i32, backlog: i32) -> i32 {
    // SAFETY: listen(2) takes no pointers.
    unsafe { libc::listen(fd, backlog) }
}
