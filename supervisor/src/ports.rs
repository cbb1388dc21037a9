//! Ports that are held before anybody may use them: the public one, on which the bridge will listen,
//! and the relocated one on loopback, which the program will get.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};

use anyhow::{Context, Result, bail};
use socket2::{Domain, Protocol, Socket, Type};

use crate::config::Source;

/// How many pending connections the kernel keeps for us; it lowers this to net.core.somaxconn.
const BACKLOG: i32 = 4096;
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
        let sockets = match &source.host {
            None => both_families(IpAddr::V4(Ipv4Addr::UNSPECIFIED), source.port),
            Some(host) => bind_all(resolve(host, source.port)?),
        };
        let sockets = sockets.with_context(|| {
            let host = source.host.as_deref().unwrap_or("any address");
            format!("cannot bind port {} of {host}", source.port)
        })?;
        // An unshimmed program that sets SO_REUSEADDR could bind beside us as long as we do too.
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

    /// Begins to listen. Accepted sockets inherit SO_REUSEADDR; without it the next start would
    /// fail on those in TIME_WAIT.
    pub(crate) fn listen(self) -> Result<Vec<TcpListener>> {
        let addresses = self.addresses();
        let listen = |socket: Socket| {
            if socket.is_listener()? {
                return Ok(TcpListener::from(socket));
            }
            socket.set_reuse_address(true)?;
            socket.listen(BACKLOG)?;
            Ok(TcpListener::from(socket))
        };
        self.sockets
            .into_iter()
            .map(listen)
            .collect::<io::Result<_>>()
            .with_context(|| format!("cannot listen on {addresses:?}"))
    }
}

/// The relocated port: bound on both loopbacks with SO_REUSEADDR and never listening, so that the
/// program can bind it beside us and nobody gets it by accident.
#[derive(Debug)]
pub(crate) struct Relocated {
    pub(crate) port: u16,
    _held: Vec<Socket>,
}

impl Relocated {
    pub(crate) fn hold() -> Result<Self> {
        let held = both_families(IpAddr::V4(Ipv4Addr::LOCALHOST), 0)
            .context("cannot find a free port on loopback")?;
        let port = port_of(&held[0]).context("cannot read the relocated port")?;
        Ok(Self { port, _held: held })
    }
}

fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>> {
    let mut addresses: Vec<_> = (host, port)
        .to_socket_addrs()
        .with_context(|| format!("cannot resolve source address {host}"))?
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    if addresses.is_empty() {
        bail!("cannot resolve source address {host}: it has no address");
    }
    Ok(addresses)
}

fn bind_all(addresses: Vec<SocketAddr>) -> io::Result<Vec<Socket>> {
    let mut sockets: Vec<Socket> = Vec::with_capacity(addresses.len());
    for mut address in addresses {
        // Port 0: what the first got, the others get too.
        if let (0, Some(first)) = (address.port(), sockets.first()) {
            address.set_port(port_of(first)?);
        }
        match bind(address) {
            Ok(socket) => sockets.push(socket),
            Err(error) if no_such_family(&error) && !sockets.is_empty() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sockets)
}

/// The IPv4 address and its IPv6 counterpart with the same port; IPv4 alone on a host without IPv6.
fn both_families(address: IpAddr, port: u16) -> io::Result<Vec<Socket>> {
    let counterpart =
        if address.is_loopback() { Ipv6Addr::LOCALHOST } else { Ipv6Addr::UNSPECIFIED };
    let addresses = [SocketAddr::new(address, port), SocketAddr::new(counterpart.into(), port)];
    let mut attempts = 1..=ATTEMPTS;
    loop {
        match bind_all(addresses.into()) {
            Err(error)
                if port == 0
                    && error.kind() == io::ErrorKind::AddrInUse
                    && attempts.next().is_some() => {}
            bound => return bound,
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
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
            std::net::TcpStream::connect(("::1", port)).expect("IPv6");
        }
    }

    #[test]
    fn w2_the_relocated_port_can_be_bound_beside_us_by_who_asks_for_it_only() {
        let relocated = Relocated::hold().expect("a free port");
        TcpListener::bind(("127.0.0.1", relocated.port)).expect("the program, with SO_REUSEADDR");
        let stranger = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, relocated.port));
        let error = stranger.bind(&address.into()).expect_err("held");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
