//! The relocated port: the port on loopback that the program gets in place of its own, held before, between and after
//! its instances. Knows sockets, and not which process has them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use anyhow::{Context, Result, ensure};
use nix::sys::stat::fstat;
use nix::unistd::{Uid, fchown, geteuid};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::handed::Handed;
use crate::machine::ports::{bind_all, both_families, port_of};

/// The relocated port, held on every address against everybody but the program. A port whose sockets all have
/// SO_REUSEPORT is shared among sockets of one user id alone (socket(7)), whatever options the sockets of others have.
/// A socket of ours that never listens keeps those others out all the time: before the program listens, after it, and
/// between two instances. `rebind.so` sets the option for the program.
#[derive(Debug)]
pub(crate) struct RelocatedPort {
    pub(super) port: u16,
    /// The user whose sockets may be bound there.
    user: Uid,
    held: Vec<Socket>,
}

impl RelocatedPort {
    pub(super) fn hold() -> Result<Self> {
        let any = both_families(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        let held = bind_all(&any, false).context("cannot find a free port")?;
        let port = port_of(&held[0]).context("cannot read the relocated port")?;
        for socket in &held {
            // After bind(): if the option is set before, Linux lets any socket that has it bind without the usual
            // check, and the program could listen twice (rebind/src/moved.rs).
            socket.set_reuse_port(true).context("cannot share the relocated port")?;
        }
        Ok(Self { port, user: geteuid(), held })
    }

    /// The sockets that hold it, for the new binary of a hand-over.
    pub(super) fn descriptors(&self) -> Vec<RawFd> {
        self.held.iter().map(AsRawFd::as_raw_fd).collect()
    }

    /// Holds the port that the old binary has held.
    ///
    /// # Errors
    /// These sockets do not hold it.
    pub(super) fn resume(numbers: &[RawFd], handed: &mut Handed<'_>) -> Result<Self> {
        let families = [Domain::IPV4, Domain::IPV6];
        let held = numbers.iter().map(|number| handed.socket(*number, &families, Type::STREAM));
        let held = held.collect::<Result<Vec<_>>>()?;
        let port = held.first().map_or(Ok(0), port_of).context("cannot read the relocated port")?;
        for socket in &held {
            let is_held =
                socket.reuse_port()? && !socket.is_listener()? && port_of(socket)? == port;
            ensure!(port != 0 && is_held, "a socket does not hold the relocated port");
        }
        ensure!(port != 0, "nothing holds the relocated port");
        let owners = held.iter().map(|socket| Ok(Uid::from_raw(fstat(socket)?.st_uid)));
        let owners = owners.collect::<Result<Vec<_>>>()?;
        let user = owners[0];
        ensure!(owners.iter().all(|owner| *owner == user), "the relocated port is of two users");
        Ok(Self { port, user, held })
    }

    /// Holds the port for a program of another user than we are to be: it is shared among that user's sockets. To be
    /// called as root.
    pub(crate) fn hold_for(user: Uid) -> Result<Self> {
        let mut relocated = Self::hold()?;
        let give = |held| fchown(held, Some(user), None);
        relocated.held.iter().try_for_each(give).context("cannot hold the relocated port")?;
        relocated.user = user;
        Ok(relocated)
    }

    /// Whether it is shared among another user's sockets than ours.
    pub(super) fn is_of_another_user(&self) -> bool {
        self.user != geteuid()
    }

    /// Whether a socket is another user's, so that it cannot be bound beside ours.
    pub(super) fn is_foreign(&self, socket: &OwnedFd) -> bool {
        fstat(socket).is_ok_and(|stat| stat.st_uid != self.user.as_raw())
    }

    /// Binds a TCP socket that another user has made, and that is not bound yet, to the port on this loopback address.
    /// fchown(2) makes the socket one of the port's user for the kernel. The port itself keeps its user, so that no
    /// other socket of the other user gets in.
    ///
    /// # Errors
    /// EPERM without CAP_CHOWN; EINVAL for anything but such a socket and address; those of bind(2).
    pub(super) fn bind(&self, socket: &OwnedFd, ip: IpAddr) -> io::Result<()> {
        let tcp = SockRef::from(socket);
        let is_tcp = tcp.r#type()? == Type::STREAM && tcp.protocol()? == Some(Protocol::TCP);
        if !is_tcp || port_of(&tcp)? != 0 || !ip.to_canonical().is_loopback() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        fchown(socket, Some(self.user), None)?;
        tcp.set_reuse_port(true)?;
        tcp.set_reuse_address(true)?;
        tcp.bind(&SocketAddr::new(ip, self.port).into())
    }

    /// Does a `deed` with a socket that another user has made, while the port is that user's, too. This is for a socket
    /// that cannot be made ours, such as an MPTCP socket, whose inner socket keeps its user. Other processes of that
    /// user can bind the port in that time: they can be in the program's way, but get no client.
    ///
    /// # Errors
    /// EPERM without CAP_CHOWN.
    pub(super) fn lend<T>(&self, socket: &OwnedFd, deed: impl FnOnce() -> T) -> io::Result<T> {
        let give_to = |user| self.held.iter().try_for_each(|held| fchown(held, Some(user), None));
        let done = give_to(Uid::from_raw(fstat(socket)?.st_uid)).map(|()| deed());
        give_to(self.user)?;
        Ok(done?)
    }
}

#[cfg(test)]
mod tests {
    use bridge::Descriptors;

    use super::*;
    use crate::handed::tests::steal;

    /// A socket bound to the port with these options, SO_REUSEADDR and SO_REUSEPORT.
    fn try_to_bind(port: u16, reuse: (bool, bool)) -> io::Result<Socket> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_reuse_address(reuse.0)?;
        socket.set_reuse_port(reuse.1)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
        Ok(socket)
    }

    #[test]
    fn w2_the_relocated_port_can_be_bound_beside_us_by_who_asks_for_it_only() {
        let relocated = RelocatedPort::hold().expect("a free port");
        for reuse in [(false, false), (true, false)] {
            let error = try_to_bind(relocated.port, reuse).expect_err("held");
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        }
        try_to_bind(relocated.port, (true, true)).expect("the program, with SO_REUSEPORT");
    }

    #[test]
    fn o2_the_relocated_port_is_held_on_by_who_takes_over() {
        let old = RelocatedPort::hold().expect("a free port");
        let copies: Vec<_> = old.descriptors().into_iter().map(steal).collect();
        let numbers: Vec<_> = copies.iter().map(AsRawFd::as_raw_fd).collect();
        let mut all: Descriptors = copies.into_iter().collect();
        let mut handed = Handed::of(&mut all);
        let new = RelocatedPort::resume(&numbers, &mut handed).expect("the same port");
        handed.settle();
        assert_eq!(new.port, old.port);
        drop(old);
        let error = try_to_bind(new.port, (true, false)).expect_err("held");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        try_to_bind(new.port, (true, true)).expect("the program, with SO_REUSEPORT");
    }

    /// Only root can give the port to another user.
    #[test]
    fn o2_w16_the_relocated_port_stays_that_of_the_programs_user() {
        if !geteuid().is_root() {
            return crate::skip::skip_even_in_ci("only root can do this");
        }
        let resumed = |old: RelocatedPort| {
            let sockets: Vec<_> = old.held.into_iter().map(OwnedFd::from).collect();
            let numbers: Vec<_> = sockets.iter().map(AsRawFd::as_raw_fd).collect();
            let mut all: Descriptors = sockets.into_iter().collect();
            RelocatedPort::resume(&numbers, &mut Handed::of(&mut all))
        };
        let user = Uid::from_raw(33);
        let old = RelocatedPort::hold_for(user).expect("a free port");
        let new = resumed(old).expect("the same port");
        assert!(new.user == user && new.is_of_another_user());
        let new = resumed(RelocatedPort::hold().expect("a free port")).expect("the same port");
        assert!(!new.is_of_another_user());
        let mixed = RelocatedPort::hold_for(user).expect("a free port");
        if let [one, _other] = &mixed.held[..] {
            fchown(one, Some(geteuid()), None).expect("given back");
            let line = resumed(mixed).expect_err("two users").to_string();
            assert_eq!(line, "the relocated port is of two users");
        }
    }

    #[test]
    fn o2_what_does_not_hold_the_relocated_port_is_refused() {
        let refused = |sockets: Vec<OwnedFd>| {
            let numbers: Vec<_> = sockets.iter().map(AsRawFd::as_raw_fd).collect();
            let mut all: Descriptors = sockets.into_iter().collect();
            let resumed = RelocatedPort::resume(&numbers, &mut Handed::of(&mut all));
            resumed.expect_err("not held").to_string()
        };
        assert_eq!(refused(vec![]), "nothing holds the relocated port");
        let one = || Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        let holds_not = "a socket does not hold the relocated port";
        assert_eq!(refused(vec![one().into()]), holds_not, "not bound");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("listening");
        assert_eq!(refused(vec![listener.into()]), holds_not, "it listens");
        let ports = [(); 2].map(|()| RelocatedPort::hold().expect("a free port"));
        let sockets = ports.each_ref().map(|port| steal(port.descriptors()[0]));
        assert_eq!(refused(sockets.into()), holds_not, "two ports");
    }

    /// F1: root binds one socket of another user to its port, and nothing else of that user.
    #[test]
    fn f1_a_tcp_socket_is_bound_for_another_user_and_nothing_else() {
        let relocated = RelocatedPort::hold().expect("a free port");
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let tcp = || Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        let file = tempfile::tempfile().expect("a file");
        relocated.bind(&file.into(), loopback).expect_err("a file");
        let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
        relocated.bind(&datagrams.into(), loopback).expect_err("no TCP socket");
        let bound = tcp();
        bound.bind(&SocketAddr::new(loopback, 0).into()).expect("bound");
        relocated.bind(&bound.into(), loopback).expect_err("it is bound");
        let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        relocated.bind(&tcp().into(), any).expect_err("everybody's address");
        let good = OwnedFd::from(tcp());
        assert!(!relocated.is_foreign(&good));
        relocated.bind(&good, loopback).expect("bound");
        assert_eq!(port_of(&SockRef::from(&good)).expect("a port"), relocated.port);
    }
}
