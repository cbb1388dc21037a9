//! The public port, held before clients may connect, and how ports are bound that nobody listens on yet. Knows sockets;
//! must not know who connects to them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};

use anyhow::{Context, Result, bail};
use socket2::{Domain, Protocol, Socket, Type};

use crate::config::address::Source;

/// How many pending connections the kernel keeps for us; it lowers this to net.core.somaxconn.
pub(super) const BACKLOG: i32 = 4096;
/// What a port below net.ipv4.ip_unprivileged_port_start (1024) asks for.
const PRIVILEGED: &str =
    "it takes root, CAP_NET_BIND_SERVICE (setcap(8), systemd.exec(5)) or a socket from systemd";
/// How often another free port is tried, where a port is free in one address family and not in the other.
const ATTEMPTS: usize = 20;

/// The public port: bound and not yet listening, so that a client is refused and nobody else can
/// have it.
#[derive(Debug)]
pub(crate) struct PublicPort {
    sockets: Vec<Socket>,
}

impl PublicPort {
    /// Binds every address that `source` means.
    pub(crate) fn reserve(source: &Source) -> Result<Self> {
        let addresses = match source.host.as_deref() {
            None => both_families(IpAddr::V4(Ipv4Addr::UNSPECIFIED), source.port),
            Some(host) => resolve(host, source.port)?,
        };
        let addresses = in_order(addresses, source.prefer_ipv6);
        // SO_REUSEADDR is set only where sockets of our last run are in TIME_WAIT, and is cleared after the bind: a
        // program without rebind.so that sets it could bind the port beside us. Kernels before 6.8 remember that the
        // first socket was bound with it, and would let that program in.
        let sockets = bind_all(&addresses, false)
            .or_else(|error| match error.kind() {
                io::ErrorKind::AddrInUse => bind_all(&addresses, true),
                _ => Err(error),
            })
            .map_err(|error| {
                let error = if error.kind() == io::ErrorKind::PermissionDenied {
                    anyhow::anyhow!("{}: {PRIVILEGED}", bridge::error_text(&error))
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

    /// The port that the old binary has held, by its sockets.
    pub(super) fn of(sockets: Vec<Socket>) -> Self {
        Self { sockets }
    }

    /// The sockets that hold it.
    pub(super) fn sockets(&self) -> &[Socket] {
        &self.sockets
    }

    /// The addresses held.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.sockets.iter().filter_map(|socket| socket.local_addr().ok()?.as_socket()).collect()
    }

    /// Begins to listen, and then sets SO_REUSEADDR: accepted sockets inherit it, and without it the next start would
    /// fail on those in TIME_WAIT. It is not set before listen(2), as others that set it could then bind the port
    /// beside us; only where sockets of our last run are in TIME_WAIT now, there is no other way.
    pub(crate) fn listen(self) -> Result<Vec<TcpListener>> {
        let addresses = self.addresses();
        let listen = |socket: Socket| {
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

/// The order of the addresses (C7): all are bound, the log names them in this order, and for port 0 all get the port
/// that the first one gets.
fn in_order(mut addresses: Vec<SocketAddr>, prefer_ipv6: bool) -> Vec<SocketAddr> {
    addresses.sort_by_key(|address| address.is_ipv6() != prefer_ipv6);
    addresses
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
pub(crate) fn bind_all(addresses: &[SocketAddr], reuse: bool) -> io::Result<Vec<Socket>> {
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
    let mut absent = None;
    for &(mut address) in addresses {
        // Port 0: what the first got, the others get too.
        if let (0, Some(first)) = (address.port(), sockets.first()) {
            address.set_port(port_of(first)?);
        }
        match bind(address, reuse) {
            Ok(socket) => sockets.push(socket),
            Err(error) if no_such_family(&error) => absent = Some(error),
            Err(error) => return Err(error),
        }
    }
    absent.filter(|_| sockets.is_empty()).map_or(Ok(sockets), Err)
}

/// The IPv4 address and its IPv6 counterpart; a host without one family binds the other alone.
pub(crate) fn both_families(address: IpAddr, port: u16) -> Vec<SocketAddr> {
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

pub(crate) fn port_of(socket: &Socket) -> io::Result<u16> {
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
        Source { host: None, port, prefer_ipv6: false }
    }

    #[test]
    fn w3_a_reserved_port_refuses_clients_and_other_owners() {
        let public = PublicPort::reserve(&any(0)).expect("a free port");
        let port = public.addresses()[0].port();
        let refused = std::net::TcpStream::connect(("127.0.0.1", port)).expect_err("refused");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        // std's listener sets SO_REUSEADDR, as most servers do.
        let taken = TcpListener::bind(("127.0.0.1", port)).expect_err("ours");
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        let error = PublicPort::reserve(&any(port)).expect_err("ours");
        assert!(
            format!("{error:#}").starts_with(&format!("cannot bind port {port} of any address"))
        );
    }

    #[test]
    fn c7_ipv6_comes_first_where_it_is_preferred() {
        let [four, six] = ["127.0.0.1:1", "[::1]:1"].map(|typed| typed.parse().expect("one"));
        assert_eq!(in_order(vec![four, six], true), [six, four]);
        assert_eq!(in_order(vec![six, four], false), [four, six]);
    }

    #[test]
    fn c2_a_bare_port_is_every_address_of_both_families() {
        let public = PublicPort::reserve(&any(0)).expect("a free port");
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
}
