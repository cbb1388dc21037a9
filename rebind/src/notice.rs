//! What the supervisor is told: that a moved socket listens, and that one was
//! refused its port. Knows how a message gets there, whatever the program has done
//! to itself; must not know what is made of it.

use core::ffi::c_int;
use core::net::IpAddr;

use crate::settings::{self, MAX_NAME, MAX_TOKEN, Notify};
use crate::sys;
use crate::text::Text;

/// How long a program waits for the supervisor's answer, in milliseconds.
const PATIENCE: c_int = 5000;
/// How often a full queue is tried, and after how many milliseconds again.
const ATTEMPTS: usize = 500;
const PAUSE: c_int = 10;

/// Says that a socket listens. It is a hint to look and may be lost: the
/// receiver's queue is short, and a program is never kept waiting for it.
pub(crate) fn listens() {
    if let Some(notify) = notify() {
        let _ = send(notify, &[], None);
    }
}

/// Says that a socket was refused the port at this address, and waits for what the
/// supervisor does about it. True: it has looked.
///
/// A program that has changed its user may not share the port with the supervisor. So
/// it hands it the socket, which the supervisor makes one of its own user's and binds,
/// if it may and if the program is the one that it has started. When it has done with
/// it, it closes the other descriptor that it is sent.
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

/// Repeats what fails because the supervisor's queue is full.
fn insist(send: impl Fn() -> Result<(), c_int>) -> bool {
    for _ in 0..ATTEMPTS {
        match send() {
            Err(sys::EAGAIN) => sys::pause(PAUSE),
            result => return result.is_ok(),
        }
    }
    false
}

/// Sends the token, the process id, and the bytes of an address, if there is one. A fresh socket each time, because daemons
/// close what descriptors they find; an abstract address, because it outlives
/// `chroot()` and a change of user (R3).
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
