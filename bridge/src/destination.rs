//! A session's destination: a service, or the wrapped program.
//!
//! Knows how a service is connected to. The program, which comes and goes, has its own [`Gate`](crate::program::Gate).
//! Must not know which clients go there, nor what their sessions carry.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::UnixStream;

use crate::client_address::Way;
use crate::demand::Counter;
use crate::error_text::error_text;
use crate::leg::Leg;
use crate::net::{Lookups, Socket, connect, connect_unix, first};
use crate::opened::Opened;
use crate::program::{Gate, Program};
use crate::unreachable::Unreachable;

/// Where the bytes of a session go.
#[derive(Debug)]
pub enum Destination {
    /// A service that somebody else runs.
    Service(Endpoint),
    /// The wrapped program, which comes and goes.
    Program(Gate),
}

/// Where a service listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// At a TCP address.
    Tcp(Address),
    /// At a TCP address whose name was looked up: at these addresses, and at no other that the name may have by now.
    Resolved(Address, Vec<SocketAddr>),
    /// At a Unix socket.
    Unix(PathBuf),
    /// At a Unix socket that was opened to be checked.
    Opened(OpenedSocket),
}

/// A Unix socket that was opened to be checked. The socket that was checked is connected to, whatever has its name by then.
#[derive(Debug, Clone)]
pub struct OpenedSocket {
    /// How it is shown: its name may be a secret (K8).
    shown: Box<str>,
    path: PathBuf,
    /// The opened socket, until it has been connected to.
    opened: Arc<Mutex<Option<Opened>>>,
}

impl OpenedSocket {
    pub(crate) fn new(opened: Opened, shown: impl Into<Box<str>>) -> Self {
        let path = opened.path().to_owned();
        Self { shown: shown.into(), path, opened: Arc::new(Mutex::new(Some(opened))) }
    }

    /// One that has been connected to, and cannot be again.
    pub(crate) fn used(path: PathBuf, shown: &str) -> Self {
        Self { shown: shown.into(), path, opened: Arc::default() }
    }

    /// How it is shown.
    pub(crate) fn shown(&self) -> &str {
        &self.shown
    }

    /// Where the socket was found, without symbolic links.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    async fn connect(&self) -> io::Result<UnixStream> {
        let opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner).take();
        let opened = opened.ok_or(io::ErrorKind::NotFound)?;
        connect_unix(&opened.link()).await
    }
}

/// Equal to itself and its copies alone: another socket may have the same name.
impl PartialEq for OpenedSocket {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.opened, &other.opened)
    }
}

impl Eq for OpenedSocket {}

/// A host, by name or number, and a port. Names are resolved anew for each session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// A DNS name or an IP address, IPv6 without brackets.
    pub host: String,
    /// The TCP port.
    pub port: u16,
}

impl Destination {
    /// Whether it is a service with a host name: its address is known only when it is connected, which happens at once.
    pub(crate) fn has_name(&self) -> bool {
        match self {
            Self::Service(Endpoint::Tcp(address) | Endpoint::Resolved(address, _)) => {
                address.host.parse::<IpAddr>().is_err()
            }
            Self::Service(Endpoint::Unix(_) | Endpoint::Opened(_)) | Self::Program(_) => false,
        }
    }

    /// The counter of the sessions that go to the program, if this is the program.
    pub(crate) fn visitors(&self) -> Option<&Counter> {
        match self {
            Self::Program(gate) => Some(gate.visitors()),
            Self::Service(_) => None,
        }
    }

    /// The address where the target was reached over this leg, or for the program where it listens; none if the
    /// destination is shown as that address anyway.
    pub(crate) fn reached(&self, leg: Option<&Leg>) -> Option<SocketAddr> {
        match self {
            Self::Program(gate) => gate.address(),
            Self::Service(_) if self.has_name() => leg?.tcp_ends().map(|(_, address)| address),
            Self::Service(_) => None,
        }
    }

    /// The name that the target's certificate must have, if the connection is encrypted. A target without a name in the
    /// network, such as a Unix socket, is on this machine: `localhost`.
    pub(crate) fn certificate_name(&self) -> &str {
        match self {
            Self::Service(Endpoint::Tcp(address) | Endpoint::Resolved(address, _)) => &address.host,
            Self::Service(Endpoint::Unix(_) | Endpoint::Opened(_)) | Self::Program(_) => {
                "localhost"
            }
        }
    }
}

impl Endpoint {
    /// Connects, once. `way` says as whom the client is to be shown to the target; none: the connection is for no client.
    pub(crate) async fn connect(
        &self,
        lookups: &Lookups,
        way: Option<&Way<'_>>,
    ) -> Result<Socket, Unreachable> {
        if let (Self::Unix(_) | Self::Opened(_), Some(way)) = (self, way) {
            way.say_in_vain(self);
        }
        match self {
            Self::Tcp(address) => {
                let found = lookups.resolve(&address.host, address.port).await;
                let addrs = found.map_err(|why| self.unreachable(why))?;
                self.connect_first(&addrs, way).await
            }
            Self::Resolved(_, addrs) => self.connect_first(addrs, way).await,
            Self::Unix(path) => self.unix(connect_unix(path).await),
            Self::Opened(socket) => self.unix(socket.connect().await),
        }
    }

    fn unix(&self, connected: io::Result<UnixStream>) -> Result<Socket, Unreachable> {
        connected.map(Socket::Unix).map_err(|error| self.failed(&error))
    }

    async fn connect_first(
        &self,
        addrs: &[SocketAddr],
        way: Option<&Way<'_>>,
    ) -> Result<Socket, Unreachable> {
        let ordered = way.and_then(|way| way.order(addrs));
        let stream = first(ordered.as_deref().unwrap_or(addrs), async |addr| match way {
            Some(way) => way.to_service(addr).await,
            None => connect(addr).await,
        });
        let stream = stream.await;
        Ok(Socket::Tcp(stream.map_err(|error| self.failed(&error))?))
    }

    fn failed(&self, error: &io::Error) -> Unreachable {
        self.unreachable(error_text(error))
    }

    fn unreachable(&self, why: String) -> Unreachable {
        Unreachable::Connect(self.to_string(), why)
    }
}

impl From<Address> for Destination {
    fn from(address: Address) -> Self {
        Self::Service(Endpoint::Tcp(address))
    }
}

impl From<Endpoint> for Destination {
    fn from(endpoint: Endpoint) -> Self {
        Self::Service(endpoint)
    }
}

impl From<Program> for Destination {
    fn from(program: Program) -> Self {
        Self::Program(program.into())
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(endpoint) => endpoint.fmt(f),
            Self::Program(gate) => gate.fmt(f),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) | Self::Resolved(address, _) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Opened(socket) => write!(f, "unix:{}", socket.shown),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}
