//! Where the administration listens: a port, or a Unix socket that is our user's alone. Knows sockets and who is at the
//! other end; must not know what is asked.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};

use anyhow::{Context, Result};
use bridge::Descriptors;
use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::config::AdminPlace;
use crate::config::address::Source;
use crate::machine::ports::PublicPort;
use crate::machine::unix_socket::{PublicSocket, SocketFile, SocketFileState};
use crate::machine::user::User;

/// Who may connect to the Unix socket, as chmod(2) has it.
const MODE: u32 = 0o600;

/// The address, and the socket that listens there. Its file is removed when this is dropped.
#[derive(Debug)]
pub(super) struct Endpoint {
    place: AdminPlace,
    listener: Listener,
    file: Option<SocketFile>,
    /// Whether the old binary had it open before a hand-over.
    was_open: bool,
}

/// The address as the old binary saves it for the new one in a hand-over (O2).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SavedAdmin {
    listener: RawFd,
    file: Option<SocketFileState>,
}

impl SavedAdmin {
    /// The descriptors that it names.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = RawFd> + use<> {
        let file = self.file.as_ref().map(SocketFileState::descriptors);
        file.into_iter().flatten().chain([self.listener])
    }
}

#[derive(Debug)]
enum Listener {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener),
}

/// A copy of the socket that listens, registered with the runtime.
pub(super) enum Listening {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Who has connected.
pub(super) enum Accepted {
    Tcp(TcpStream, SocketAddr),
    /// With the client's user id, which is ours or root's.
    Unix(UnixStream, u32),
    /// The user id of a client whose connection is closed, as it is neither ours nor root's: somebody has changed the
    /// socket's mode.
    Stranger(u32),
}

impl Endpoint {
    /// Begins to listen.
    pub(super) fn open(place: &AdminPlace, user: Option<&User>) -> Result<Self> {
        let (listener, file) = Self::bind(place, user).context("cannot open the admin address")?;
        Ok(Self { place: place.clone(), listener, file, was_open: false })
    }

    /// Goes on to listen, on the socket that the old binary has left.
    pub(super) fn resume(
        place: &AdminPlace,
        saved: &SavedAdmin,
        descriptors: &mut Descriptors,
    ) -> Result<Self> {
        let file = saved.file.clone().map(|file| SocketFile::take(file, descriptors));
        let listener = descriptors.take(saved.listener)?;
        let listener = match place {
            AdminPlace::Port(_) => Listener::Tcp(listener.into()),
            AdminPlace::Unix(_) => Listener::Unix(listener.into()),
        };
        Ok(Self { place: place.clone(), listener, file: file.transpose()?, was_open: true })
    }

    pub(super) fn save(&self) -> SavedAdmin {
        let listener = match &self.listener {
            Listener::Tcp(listener) => listener.as_raw_fd(),
            Listener::Unix(listener) => listener.as_raw_fd(),
        };
        SavedAdmin { listener, file: self.file.as_ref().map(SocketFile::save) }
    }

    pub(super) fn was_open(&self) -> bool {
        self.was_open
    }

    fn bind(place: &AdminPlace, user: Option<&User>) -> Result<(Listener, Option<SocketFile>)> {
        match place {
            AdminPlace::Port(address) => {
                let source = Source {
                    host: Some(address.ip().to_string()),
                    port: address.port(),
                    prefer_ipv6: false,
                };
                let mut listeners = PublicPort::reserve(&source)?.listen()?;
                let listener = listeners.pop().context("it is none of this machine")?;
                Ok((Listener::Tcp(listener), None))
            }
            AdminPlace::Unix(path) => {
                let (listener, file) = PublicSocket::reserve(path, MODE, user)?.listen()?;
                Ok((Listener::Unix(listener), Some(file)))
            }
        }
    }

    /// Whether it is a TCP port that only this machine can reach.
    pub(super) fn is_of_this_machine(&self) -> bool {
        matches!(self.place, AdminPlace::Port(address) if address.ip().is_loopback())
    }

    /// Registers a copy of the socket with the current runtime.
    pub(super) fn listen(&self) -> io::Result<Listening> {
        Ok(match &self.listener {
            Listener::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                Listening::Tcp(TcpListener::from_std(listener.try_clone()?)?)
            }
            Listener::Unix(listener) => {
                listener.set_nonblocking(true)?;
                Listening::Unix(UnixListener::from_std(listener.try_clone()?)?)
            }
        })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            AdminPlace::Port(address) => write!(out, "http://{address}"),
            AdminPlace::Unix(path) => write!(out, "unix:{}", path.display()),
        }
    }
}

impl Listening {
    /// Cancel-safe.
    pub(super) async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener) => {
                listener.accept().await.map(|(io, address)| Accepted::Tcp(io, address))
            }
            Self::Unix(listener) => {
                let (io, _) = listener.accept().await?;
                let user = io.peer_cred()?.uid();
                let is_ours = user == 0 || user == geteuid().as_raw();
                Ok(if is_ours { Accepted::Unix(io, user) } else { Accepted::Stranger(user) })
            }
        }
    }
}
