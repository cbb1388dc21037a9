//! A moved `bind()` and `listen()`: which calls of the kernel they take. Knows
//! what the kernel answers and why; must not know where the ports come from, nor
//! who is told.
//!
//! The supervisor holds the new port, on all addresses, with sockets that have
//! `SO_REUSEPORT` and do not listen. The kernel shares such a port among sockets
//! of one user id that all have the option (socket(7)), so other users can
//! neither bind it nor listen on it, whatever options they set. The program's
//! sockets have the option during `bind()` and during `listen()`, and not in
//! between: there the program's own options decide whether it can bind a second
//! time (R1).

use core::ffi::c_int;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::address::{self, Encoded, Stack};
use super::sys;

/// What a TCP socket asks for, and the port that it gets.
#[derive(Clone, Copy)]
pub(crate) struct Move {
    pub(crate) fd: c_int,
    pub(crate) wanted: IpAddr,
    pub(crate) stack: Stack,
    pub(crate) port: u16,
}

/// The kernel's `bind()`, or that of a library in front of it; an error is its errno.
type Bind = fn(c_int, &Encoded) -> Result<(), c_int>;

impl Move {
    /// Binds the socket; `None` if the kernel refuses what it asks for anyway.
    ///
    /// EADDRINUSE may also mean that the socket's user may not share the port. Then `ask_for`
    /// has the socket bound by a process that may, and says whether that was done.
    pub(crate) fn bind(
        self,
        bind: Bind,
        ask_for: impl Fn(c_int, SocketAddr) -> bool,
    ) -> Option<Result<(), c_int>> {
        let first = address::relocate(self.wanted, self.stack, self.port)?;
        let own = share(self.fd);
        compare(self.port, bind);
        let result = match bind(self.fd, &Encoded::new(first)) {
            Err(sys::EADDRINUSE) if ask_for(self.fd, first) => Ok(()),
            Err(sys::EADDRINUSE) => self.bind_elsewhere(bind).unwrap_or(Err(sys::EADDRINUSE)),
            Err(sys::EADDRNOTAVAIL) => self.bind_device(bind).unwrap_or(Err(sys::EADDRNOTAVAIL)),
            result => result,
        };
        restore(self.fd, own);
        Some(result)
    }

    /// Binds the address of [`address::fallback`]: the first one may be taken because
    /// another wanted address was moved to the same. There is no state here that
    /// tells this from a program that binds one address twice, so such a program
    /// gets the error at the third time only.
    fn bind_elsewhere(self, bind: Bind) -> Option<Result<(), c_int>> {
        let other = address::fallback(self.wanted, self.stack, self.port)?;
        Some(bind(self.fd, &Encoded::new(other)))
    }

    /// Where IPv6 is switched off (`net.ipv6.conf.*.disable_ipv6`) there is no
    /// `::1`, but `::` can still be bound: restricted to the loopback device, it is
    /// as private. Without privileges a device can be chosen since Linux 5.7 only.
    fn bind_device(self, bind: Bind) -> Option<Result<(), c_int>> {
        // An MPTCP socket of which the kernel cannot say so could be public over IPv4.
        let v6_only = sys::option(self.fd, sys::IPPROTO_IPV6, sys::IPV6_V6ONLY) == Some(1);
        let any = self.wanted == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        // If the program had chosen a device, its choice could not be restored.
        if !v6_only || !any || sys::has_device(self.fd) || !sys::set_device(self.fd, c"lo") {
            return None;
        }
        let result = bind(self.fd, &Encoded::new(SocketAddr::new(self.wanted, self.port)));
        if result.is_err() {
            // Where this is not permitted, the socket stays restricted to loopback, which is more private.
            sys::set_device(self.fd, c"");
        }
        Some(result)
    }
}

/// Lets a moved socket listen. The kernel looks for conflicts once more then.
///
/// Once the socket listens it keeps `SO_REUSEADDR`: accepted sockets inherit it,
/// and without it those in TIME_WAIT would refuse the port to the program's next
/// start for a minute. A program that does not set the option accepts that, but
/// the user who wraps it wants it to listen again at once. No other socket can be
/// bound beside a listener anyway.
pub(crate) fn listen(fd: c_int, port: u16, bind: Bind, listen: impl Fn(c_int) -> c_int) -> c_int {
    let own = share(fd);
    compare(port, bind);
    let result = listen(fd);
    let errno = sys::errno();
    restore(fd, if result == 0 { Own { reuse_address: None, ..own } } else { own });
    sys::set_errno(errno);
    result
}

/// The options as the program has set them; `None` where the kernel does not say.
#[derive(Clone, Copy)]
struct Own {
    reuse_address: Option<c_int>,
    reuse_port: Option<c_int>,
}

/// Lets a socket be bound beside the supervisor's sockets that hold the port, and
/// beside the program's own connections in TIME_WAIT.
fn share(fd: c_int) -> Own {
    let set = |name| {
        let own = sys::option(fd, sys::SOL_SOCKET, name);
        sys::set_option(fd, sys::SOL_SOCKET, name, 1);
        own
    };
    Own { reuse_address: set(sys::SO_REUSEADDR), reuse_port: set(sys::SO_REUSEPORT) }
}

fn restore(fd: c_int, own: Own) {
    for (name, value) in
        [(sys::SO_REUSEADDR, own.reuse_address), (sys::SO_REUSEPORT, own.reuse_port)]
    {
        if let Some(value) = value {
            sys::set_option(fd, sys::SOL_SOCKET, name, value);
        }
    }
}

/// Makes the kernel compare the next socket with all that are bound to the port.
/// Where the socket that was bound last with `SO_REUSEPORT` is of the same user and
/// address, the kernel does not (`sk_reuseport_match()`), and a program could listen
/// twice. So a socket with another address is bound, and closed again, before.
fn compare(port: u16, bind: Bind) {
    let Some(fd) = sys::tcp_socket() else { return };
    share(fd);
    let nobodys = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 255, 255, 254)), port);
    // If this fails, a second listen() may succeed that should have failed; there is no other effect.
    let _ = bind(fd, &Encoded::new(nobodys));
    sys::close(fd);
}
