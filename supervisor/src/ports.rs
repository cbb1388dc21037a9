//! Ports that are held before anybody may use them: the public one, on which the bridge will listen,
//! and the relocated one on loopback, which the program will get.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::OwnedFd;

use anyhow::{Context, Result, bail};
use nix::sys::stat::fstat;
use nix::unistd::{Uid, fchown, geteuid};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::config::address::Source;

/// How many pending connections the kernel keeps for us; it lowers this to net.core.somaxconn.
const BACKLOG: i32 = 4096;
/// What a port below net.ipv4.ip_unprivileged_port_start (1024) asks for.
const PRIVILEGED: &str =
    "it takes root, CAP_NET_BIND_SERVICE (setcap(8), systemd.exec(5)) or a socket from systemd";
/// How often a free port that one address family has and the other has not is tried anew.
const ATTEMPTS: usize = 20;

/// The public port: bound and not yet listening, so that a client is refused and nobody else can
/// have it; or passed to us listening, so that a client waits in its backlog (D4).
#[derive(Debug)]
pub(crate) struct Public {
    sockets: Vec<Socket>,
}

impl Public {
    /// Binds every address that `source` means.
    pub(crate) fn reserve(source: &Source) -> Result<Self> {
        let addresses = match &source.host {
            None => both_families(IpAddr::V4(Ipv4Addr::UNSPECIFIED), source.port),
            Some(host) => resolve(host, source.port)?,
        };
        // With SO_REUSEADDR only where sessions of our last run in TIME_WAIT ask for it, and then
        // cleared: an unshimmed program that sets it could bind beside us. Kernels before 6.8
        // remember that the first one was bound with it, and would let that program in.
        let sockets = bind_all(&addresses, false)
            .or_else(|error| match error.kind() {
                io::ErrorKind::AddrInUse => bind_all(&addresses, true),
                _ => Err(error),
            })
            .map_err(|error| {
                let error = if error.kind() == io::ErrorKind::PermissionDenied {
                    anyhow::anyhow!("{}: {PRIVILEGED}", bridge::words(&error))
                } else {
                    error.into()
                };
                let host = source.host.as_deref().unwrap_or("any address");
                error.context(format!("cannot bind port {} of {host}", source.port))
            })?;
        for socket in &sockets {
            socket.set_reuse_address(false).context("cannot hold the public port")?;
        }
        Ok(Self { sockets })
    }

    /// Sockets that listen already.
    pub(crate) fn passed(sockets: Vec<Socket>) -> Self {
        Self { sockets }
    }

    /// The addresses held.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.sockets.iter().filter_map(|socket| socket.local_addr().ok()?.as_socket()).collect()
    }

    /// Begins to listen, and then sets SO_REUSEADDR: accepted sockets inherit it, and without it the
    /// next start would fail on those in TIME_WAIT. Before listen(2) others could bind beside us with
    /// it; only where sockets of our last run are in TIME_WAIT now, there is no other way.
    pub(crate) fn listen(self) -> Result<Vec<TcpListener>> {
        let addresses = self.addresses();
        let listen = |socket: Socket| {
            if socket.is_listener()? {
                return Ok(TcpListener::from(socket));
            }
            if let Err(error) = socket.listen(BACKLOG) {
                if error.kind() != io::ErrorKind::AddrInUse {
                    return Err(error);
                }
                socket.set_reuse_address(true)?;
                socket.listen(BACKLOG)?;
            }
            socket.set_reuse_address(true)?;
            Ok(TcpListener::from(socket))
        };
        self.sockets
            .into_iter()
            .map(listen)
            .collect::<io::Result<_>>()
            .with_context(|| format!("cannot listen on {addresses:?}"))
    }
}

/// The relocated port, held on every address against everybody but the program. A port whose
/// sockets all have SO_REUSEPORT is shared among those of one user id alone (socket(7)), whatever
/// options others set; a socket of ours that never listens is in its way all the time, before the
/// program listens, after it, and between two instances. `rebind.so` sets the option for the program.
#[derive(Debug)]
pub(crate) struct Relocated {
    pub(crate) port: u16,
    /// Whose sockets may be bound there.
    user: Uid,
    _held: Vec<Socket>,
}

impl Relocated {
    pub(crate) fn hold() -> Result<Self> {
        let any = both_families(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        let held = bind_all(&any, false).context("cannot find a free port")?;
        let port = port_of(&held[0]).context("cannot read the relocated port")?;
        for socket in &held {
            // After bind(): where it is set before, Linux lets whoever has it bind unexamined, and
            // the program could listen twice (rebind/src/moved.rs).
            socket.set_reuse_port(true).context("cannot share the relocated port")?;
        }
        Ok(Self { port, user: geteuid(), _held: held })
    }

    /// Whether a socket is another user's, so that it cannot be bound beside ours.
    pub(crate) fn is_foreign(&self, socket: &OwnedFd) -> bool {
        fstat(socket).is_ok_and(|stat| stat.st_uid != self.user.as_raw())
    }

    /// Binds a TCP socket that another user has made, and that is not bound yet, to the port on this
    /// loopback address. fchown(2) makes it one of our user's for the kernel. The port itself stays
    /// ours, so that nobody else of that user gets in.
    ///
    /// # Errors
    /// EPERM without CAP_CHOWN; EINVAL for anything but such a socket and address; those of bind(2).
    pub(crate) fn bind(&self, socket: &OwnedFd, ip: IpAddr) -> io::Result<()> {
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
}

fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>> {
    let found = match bridge::zone::resolve(host, port) {
        Some(found) => found.map(|found| vec![found]),
        None => (host, port).to_socket_addrs().map(Iterator::collect),
    };
    let mut addresses = found.with_context(|| format!("cannot resolve source address {host}"))?;
    addresses.sort_unstable();
    addresses.dedup();
    if addresses.is_empty() {
        bail!("cannot resolve source address {host}: it has no address");
    }
    Ok(addresses)
}

/// Binds all of them. Port 0 is any port that is free on every one.
fn bind_all(addresses: &[SocketAddr], reuse: bool) -> io::Result<Vec<Socket>> {
    let any_port = addresses.iter().all(|address| address.port() == 0);
    let mut attempts = 1..=ATTEMPTS;
    loop {
        match bind_each(addresses, reuse) {
            Err(error)
                if any_port
                    && error.kind() == io::ErrorKind::AddrInUse
                    && attempts.next().is_some() => {}
            bound => return bound,
        }
    }
}

fn bind_each(addresses: &[SocketAddr], reuse: bool) -> io::Result<Vec<Socket>> {
    let mut sockets: Vec<Socket> = Vec::with_capacity(addresses.len());
    for &(mut address) in addresses {
        // Port 0: what the first got, the others get too.
        if let (0, Some(first)) = (address.port(), sockets.first()) {
            address.set_port(port_of(first)?);
        }
        match bind(address, reuse) {
            Ok(socket) => sockets.push(socket),
            Err(error) if no_such_family(&error) && !sockets.is_empty() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sockets)
}

/// The IPv4 address and its IPv6 counterpart; a host without IPv6 binds the first alone.
fn both_families(address: IpAddr, port: u16) -> Vec<SocketAddr> {
    let counterpart =
        if address.is_loopback() { Ipv6Addr::LOCALHOST } else { Ipv6Addr::UNSPECIFIED };
    vec![SocketAddr::new(address, port), SocketAddr::new(counterpart.into(), port)]
}

fn bind(address: SocketAddr, reuse: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(reuse)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

fn port_of(socket: &Socket) -> io::Result<u16> {
    let address = socket.local_addr()?;
    address
        .as_socket()
        .map(|address| address.port())
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn no_such_family(error: &io::Error) -> bool {
    let errno = error.raw_os_error();
    errno == Some(libc::EAFNOSUPPORT) || errno == Some(libc::EADDRNOTAVAIL)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any(port: u16) -> Source {
        Source { host: None, port }
    }

    #[test]
    fn w3_a_reserved_port_refuses_clients_and_other_owners() {
        let public = Public::reserve(&any(0)).expect("a free port");
        let port = public.addresses()[0].port();
        let refused = std::net::TcpStream::connect(("127.0.0.1", port)).expect_err("refused");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        // std's listener sets SO_REUSEADDR, as most servers do.
        let taken = TcpListener::bind(("127.0.0.1", port)).expect_err("ours");
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        let error = Public::reserve(&any(port)).expect_err("ours");
        assert!(
            format!("{error:#}").starts_with(&format!("cannot bind port {port} of any address"))
        );
    }

    #[test]
    fn c2_a_bare_port_is_every_address_of_both_families() {
        let public = Public::reserve(&any(0)).expect("a free port");
        let port = public.addresses()[0].port();
        let listeners = public.listen().expect("listening");
        std::net::TcpStream::connect(("127.0.0.1", port)).expect("IPv4");
        if listeners.len() == 2 {
            let connected = std::net::TcpStream::connect(("::1", port));
            // Any IPv6 address can be listened on where there is none.
            let none = |error: &io::Error| error.kind() == io::ErrorKind::AddrNotAvailable;
            assert!(connected.as_ref().err().is_none_or(none), "{connected:?}");
        }
    }

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
        let relocated = Relocated::hold().expect("a free port");
        for reuse in [(false, false), (true, false)] {
            let error = try_to_bind(relocated.port, reuse).expect_err("held");
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        }
        try_to_bind(relocated.port, (true, true)).expect("the program, with SO_REUSEPORT");
    }

    /// F1: root binds one socket of another user to its port, and nothing else of his.
    #[test]
    fn f1_a_tcp_socket_is_bound_for_another_user_and_nothing_else() {
        let relocated = Relocated::hold().expect("a free port");
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
