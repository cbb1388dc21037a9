//! The public endpoint, where clients connect: held before anybody may connect, whichever kind it is. Knows how each
//! kind is taken and opened; must not know who connects.

mod saved;

use std::path::Path;

use anyhow::{Context, Result};
use bridge::{Connection, Listener};
use socket2::{Domain, Socket};

use super::inetd::InetdSocket;
use super::ports::PublicPort;
use super::unix_socket::PublicSocket;
pub(crate) use super::unix_socket::{SocketFile, SocketFileState};
use super::user::User;
use crate::config::Listen;
pub(crate) use saved::EndpointState;

/// The public side, not opened yet.
#[derive(Debug)]
pub(crate) enum PublicEndpoint {
    Port(PublicPort),
    Unix(PublicSocket),
    /// Sockets that systemd opened, which listen: a client waits in their backlog (D4).
    Passed(Vec<Socket>),
    Inetd(InetdSocket),
}

/// The public side, open.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) clients: Clients,
    /// To be kept for as long as the socket listens.
    pub(crate) file: Option<SocketFile>,
}

/// Where the bridge's clients come from.
#[derive(Debug)]
pub(crate) enum Clients {
    Of(Vec<Listener>),
    One(Connection),
}

impl PublicEndpoint {
    /// Takes the endpoint that the command line asks for, for the user that we are to become. Sockets that systemd has
    /// `passed` are used in its place.
    pub(crate) fn acquire(
        listen: &Listen,
        passed: Vec<Socket>,
        user: Option<&User>,
    ) -> Result<Self> {
        if !passed.is_empty() {
            return Ok(Self::Passed(passed));
        }
        match listen {
            Listen::Port(source) => PublicPort::reserve(source).map(Self::Port),
            Listen::Unix { path, mode } => PublicSocket::reserve(path, *mode, user).map(Self::Unix),
            Listen::Inetd => InetdSocket::take().map(Self::Inetd),
        }
    }

    /// What we do once it is open, for the log.
    pub(crate) fn deed(&self) -> String {
        let shown: Vec<_> = match self {
            Self::Port(port) => port.addresses().iter().map(ToString::to_string).collect(),
            Self::Unix(socket) => vec![shown_path(socket.path())],
            Self::Passed(sockets) => sockets.iter().map(shown_address).collect(),
            Self::Inetd(InetdSocket::Listening(socket)) => vec![shown_address(socket)],
            Self::Inetd(InetdSocket::Connected(_)) => {
                return "serving the connection on standard input".to_owned();
            }
        };
        format!("listening on {}", shown.join(" and "))
    }

    /// Begins to listen.
    pub(crate) fn open(self) -> Result<Opened> {
        let (clients, file) = match self {
            Self::Port(port) => {
                (Clients::Of(port.listen()?.into_iter().map(Listener::from).collect()), None)
            }
            Self::Unix(socket) => {
                let (listener, file) = socket.listen()?;
                (Clients::Of(vec![Listener::Unix(listener)]), Some(file))
            }
            Self::Passed(sockets) => {
                let listeners = sockets.into_iter().map(lent).collect::<Result<_>>();
                (Clients::Of(listeners.context("cannot use the sockets of LISTEN_FDS")?), None)
            }
            Self::Inetd(InetdSocket::Listening(socket)) => (Clients::Of(vec![lent(socket)?]), None),
            Self::Inetd(InetdSocket::Connected(socket)) => {
                (Clients::One(connection(socket)?), None)
            }
        };
        Ok(Opened { clients, file })
    }
}

/// A socket that systemd or inetd has passed to us, has open still, and may serve after us.
fn lent(socket: Socket) -> Result<Listener> {
    let is_unix = socket.domain()? == Domain::UNIX;
    let listener =
        if is_unix { Listener::Unix(socket.into()) } else { Listener::Tcp(socket.into()) };
    Ok(Listener::Lent(Box::new(listener)))
}

fn connection(socket: Socket) -> Result<Connection> {
    let is_unix = socket.domain()? == Domain::UNIX;
    Ok(if is_unix { Connection::Unix(socket.into()) } else { Connection::Tcp(socket.into()) })
}

fn shown_address(socket: &Socket) -> String {
    let Ok(address) = socket.local_addr() else { return "?".to_owned() };
    match (address.as_socket(), address.as_pathname()) {
        (Some(address), _) => address.to_string(),
        (None, Some(path)) => shown_path(path),
        (None, None) => "unix:".to_owned(),
    }
}

fn shown_path(path: &Path) -> String {
    format!("unix:{}", path.display())
}
