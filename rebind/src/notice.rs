//! Notices to the supervisor: that a moved socket listens, and that a socket was
//! refused its port. Knows how a message gets there even if the program has changed
//! its root, its user or its descriptors; must not know what the supervisor does then.

use core::ffi::c_int;
use core::net::IpAddr;

use crate::settings::{self, MAX_NAME, MAX_TOKEN, Notify};
use crate::sys;
use crate::text::Text;

/// How long a program waits for the supervisor's answer, in milliseconds.
const PATIENCE: c_int = 5000;
/// How often a message is sent while the supervisor's queue is full, and how many milliseconds lie between two attempts.
const ATTEMPTS: usize = 500;
const PAUSE: c_int = 10;

/// Says that a socket listens. It is a hint to look and may be lost: the
/// receiver's queue is short, and a program is never kept waiting for it.
pub(crate) fn listens() {
    if let Some(notify) = notify() {
        let _ = send(notify, &[], None);
    }
}

/// Says that a socket was refused the port at this address, and waits until the
/// supervisor has dealt with that. True: the supervisor has answered.
///
/// A program that has changed its user may not share the port with the supervisor. So
/// the socket is sent to the supervisor, which makes it a socket of its own user and
/// binds it, if it may and if the sender is a process of the program that it has
/// started. When the supervisor is done, it closes the second descriptor that it is
/// sent with the socket.
pub(crate) fn refused(fd: c_int, ip: IpAddr) -> bool {
    let Some(notify) = notify() else { return false };
    let Some([ours, theirs]) = sys::socket_pair() else { return false };
    let sent = insist(|| match ip {
        IpAddr::V4(ip) => send(notify, &ip.octets(), Some([fd, theirs])),
        IpAddr::V6(ip) => send(notify, &ip.octets(), Some([fd, theirs])),
    });
    sys::close(theirs);
    let answered = sent && sys::wait_for_end(ours, PATIENCE);
    sys::close(ours);
    answered
}

fn notify() -> Option<&'static Notify> {
    settings::settings()?.notify.as_ref()
}

/// Sends again and again while that fails because the supervisor's queue is full.
fn insist(send: impl Fn() -> Result<(), c_int>) -> bool {
    for _ in 0..ATTEMPTS {
        match send() {
            Err(sys::EAGAIN) => sys::pause(PAUSE),
            result => return result.is_ok(),
        }
    }
    false
}

/// Sends the token, the process id, and the bytes of an address, if there is one. The socket is a new one each
/// time, because daemons close all descriptors that they find. The supervisor's address is an abstract one,
/// because it can still be reached after `chroot()` and a change of user (R3).
fn send(notify: &Notify, ip: &[u8], descriptors: Option<[c_int; 2]>) -> Result<(), c_int> {
    let Some(fd) = sys::datagram_socket() else { return Err(sys::errno()) };
    // sa_family and the leading NUL, then the name: its length is the address' length.
    let [low, high] = sys::AF_UNIX.to_ne_bytes();
    let address = Text::<{ 3 + MAX_NAME }>::EMPTY.with(&[low, high, 0]).with(notify.name.bytes());
    let message = Text::<{ MAX_TOKEN + 1 + 10 + 1 + 16 }>::EMPTY
        .with(notify.token.bytes())
        .with(b" ")
        .with_decimal(sys::process_id())
        .with(if ip.is_empty() { b"" } else { b" " })
        .with(ip);
    let sent = sys::send(fd, message.bytes(), address.bytes(), descriptors);
    sys::close(fd);
    sent
}
