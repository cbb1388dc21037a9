//! A moved `bind()` and `listen()`: which calls of the kernel they take. Knows
//! what the kernel answers and why; must not know where the ports come from, nor
//! who is told.
//!
//! The supervisor holds the new port with sockets that do not listen. Only one
//! with `SO_REUSEADDR` can be bound beside them, and only one with it can listen.

use core::ffi::c_int;
use core::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::address::{self, Encoded, Stack};
use crate::sys;

/// What a TCP socket asks for, and the port that it gets.
#[derive(Clone, Copy)]
pub(crate) struct Move {
    pub(crate) fd: c_int,
    pub(crate) wanted: IpAddr,
    pub(crate) stack: Stack,
    pub(crate) port: u16,
}

/// The kernel's `bind()`, or what stands before it; an error is its errno.
type Bind = fn(c_int, &Encoded) -> Result<(), c_int>;

impl Move {
    /// Binds the socket; `None` if the kernel refuses what it asks for anyway.
    ///
    /// Between `bind()` and `listen()` the socket has the program's own
    /// `SO_REUSEADDR` again: without it a second `bind()` must fail (R1).
    pub(crate) fn bind(self, bind: Bind) -> Option<Result<(), c_int>> {
        let first = address::relocate(self.wanted, self.stack, self.port)?;
        let own = share(self.fd);
        let result = match bind(self.fd, &Encoded::new(first)) {
            Err(sys::EADDRINUSE) => self.bind_elsewhere(bind).unwrap_or(Err(sys::EADDRINUSE)),
            Err(sys::EADDRNOTAVAIL) => self.bind_device(bind).unwrap_or(Err(sys::EADDRNOTAVAIL)),
            result => result,
        };
        restore(self.fd, own);
        Some(result)
    }

    /// To the address that evades another one which has come to the same. We keep
    /// no state and cannot tell that from the same one being bound twice, so this
    /// fails the third time only.
    fn bind_elsewhere(self, bind: Bind) -> Option<Result<(), c_int>> {
        let other = address::evade(self.wanted, self.stack, self.port)?;
        Some(bind(self.fd, &Encoded::new(other)))
    }

    /// Where IPv6 is switched off (`net.ipv6.conf.*.disable_ipv6`) nobody has
    /// `::1`, while any address can still be bound: on the loopback device alone
    /// it is as private. Without privileges only Linux 5.7 lets us choose one.
    fn bind_device(self, bind: Bind) -> Option<Result<(), c_int>> {
        // An MPTCP socket that cannot say so could be a public one for IPv4.
        let v6_only = sys::option(self.fd, sys::IPPROTO_IPV6, sys::IPV6_V6ONLY) == Some(1);
        let any = self.wanted == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        // A device that the program has chosen could not be given back.
        if !v6_only || !any || sys::has_device(self.fd) || !sys::set_device(self.fd, c"lo") {
            return None;
        }
        let result = bind(self.fd, &Encoded::new(SocketAddr::new(self.wanted, self.port)));
        if result.is_err() {
            // Where we may not, it stays the more private.
            sys::set_device(self.fd, c"");
        }
        Some(result)
    }
}

/// Lets a moved socket listen. The kernel looks for conflicts once more then.
///
/// Once it listens it keeps `SO_REUSEADDR`: accepted sockets inherit it, and
/// without it those in TIME_WAIT would refuse the port to the program's next
/// start for a minute. A program that forgoes it asks for that, but who has it
/// wrapped wants it back at once. Nobody can be bound beside a listener anyway.
pub(crate) fn listen(fd: c_int, listen: impl Fn(c_int) -> c_int) -> c_int {
    let own = share(fd);
    let result = listen(fd);
    if result != 0 {
        let errno = sys::errno();
        restore(fd, own);
        sys::set_errno(errno);
    }
    result
}

/// Sets `SO_REUSEADDR` and returns what it was.
fn share(fd: c_int) -> Option<c_int> {
    let own = sys::option(fd, sys::SOL_SOCKET, sys::SO_REUSEADDR);
    sys::set_option(fd, sys::SOL_SOCKET, sys::SO_REUSEADDR, 1);
    own
}

fn restore(fd: c_int, own: Option<c_int>) {
    if let Some(own) = own {
        sys::set_option(fd, sys::SOL_SOCKET, sys::SO_REUSEADDR, own);
    }
}
