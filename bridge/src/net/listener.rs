//! Where clients come from: listening sockets, TCP or Unix, and a connection that another process has accepted (inetd).
//! Knows the kernel; must not know what clients ask for.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::task::{Context, Poll, ready};

use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tracing::debug;

use super::accept_error::AcceptError;
use super::options::{tune, tune_early, tune_if_early};
use super::socket::Socket;
use crate::error_text::error_text;
use crate::peer::PeerAddress;
use crate::saved::{Descriptors, Invalid};

/// A socket that listens.
#[derive(Debug)]
pub enum Listener {
    /// On a port.
    Tcp(std::net::TcpListener),
    /// At a path.
    Unix(std::os::unix::net::UnixListener),
    /// Either kind, passed to us by a process that keeps the socket open (systemd, inetd): a client that is still in
    /// the accept queue when we stop is served later.
    Lent(Box<Self>),
}

/// A client's connection that is accepted already.
#[derive(Debug)]
pub enum Connection {
    /// From an internet address.
    Tcp(std::net::TcpStream),
    /// From this machine.
    Unix(std::os::unix::net::UnixStream),
}

/// A [`Listener`] in a runtime.
#[derive(Debug)]
pub(crate) enum Accepting {
    Tcp(TcpListener),
    Unix(UnixListener),
    Lent(Box<Self>),
}

/// A listening socket in the state of a hand-over.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct SavedListener {
    pub(crate) descriptor: RawFd,
    pub(crate) is_unix: bool,
    /// Whether another process has the socket open, too.
    pub(crate) is_lent: bool,
}

/// The most connections that are accepted from a listening socket before it is closed. It is Linux's default limit for
/// an accept queue (`net.core.somaxconn`). Without a limit, clients that go on connecting could keep us from closing
/// the socket.
const MOST_QUEUED: usize = 4096;

impl Listener {
    /// The listener that the old binary has listened on.
    pub(crate) fn resume(saved: SavedListener, all: &mut Descriptors) -> Result<Self, Invalid> {
        let descriptor = all.take(saved.descriptor)?;
        let listener = if saved.is_unix {
            Self::Unix(descriptor.into())
        } else {
            Self::Tcp(descriptor.into())
        };
        Ok(if saved.is_lent { Self::Lent(Box::new(listener)) } else { listener })
    }
}

impl Accepting {
    /// What the new binary needs to go on with the listener.
    pub(crate) fn saved(&self) -> SavedListener {
        let of = |io: &dyn AsRawFd, is_unix| SavedListener {
            descriptor: io.as_raw_fd(),
            is_unix,
            is_lent: false,
        };
        match self {
            Self::Tcp(listener) => of(listener, false),
            Self::Unix(listener) => of(listener, true),
            Self::Lent(listener) => SavedListener { is_lent: true, ..listener.saved() },
        }
    }

    pub(crate) fn begin(listener: Listener) -> io::Result<Self> {
        match listener {
            Listener::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                tune(&listener)?;
                TcpListener::from_std(listener).map(Self::Tcp)
            }
            Listener::Unix(listener) => {
                listener.set_nonblocking(true)?;
                UnixListener::from_std(listener).map(Self::Unix)
            }
            Listener::Lent(listener) => Self::begin(*listener).map(Box::new).map(Self::Lent),
        }
    }

    /// Closes the listening socket, and returns the connections in its accept queue, which the kernel would reset
    /// otherwise. A connection that arrives between the last accept(2) and the close is lost. The queue of a lent
    /// socket is left alone.
    pub(crate) fn close(self) -> Vec<(Socket, PeerAddress)> {
        let mut queued = Vec::new();
        // Tokio's readiness may be out of date, so accept(2) itself is asked.
        let closed = match self {
            Self::Tcp(listener) => listener.into_std().and_then(|listener| {
                take_out(&mut queued, || Ok(Connection::Tcp(listener.accept()?.0)))
            }),
            Self::Unix(listener) => listener.into_std().and_then(|listener| {
                take_out(&mut queued, || Ok(Connection::Unix(listener.accept()?.0)))
            }),
            Self::Lent(_) => Ok(()),
        };
        if let Err(error) = closed {
            debug!("cannot take all out of a queue: {}", error_text(&error));
        }
        queued
    }

    pub(crate) fn poll_accept(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<(Socket, PeerAddress)>> {
        Poll::Ready(match self {
            Self::Tcp(listener) => {
                let (io, address) = ready!(listener.poll_accept(cx))?;
                if let Err(error) = tune_if_early(&io) {
                    debug!("cannot set options of a connection: {}", error_text(&error));
                }
                Ok((io.into(), address.into()))
            }
            Self::Unix(listener) => {
                let (io, _) = ready!(listener.poll_accept(cx))?;
                of_unix(io)
            }
            Self::Lent(listener) => return listener.poll_accept(cx),
        })
    }
}

/// Accepts until the queue is empty. A connection that cannot be accepted, such as one whose client is gone, is left out.
fn take_out(
    queued: &mut Vec<(Socket, PeerAddress)>,
    mut accept: impl FnMut() -> io::Result<Connection>,
) -> io::Result<()> {
    for _ in 0..MOST_QUEUED {
        match accept() {
            Ok(connection) => queued.extend(connection.begin().ok()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if AcceptError::of(&error) == AcceptError::Connection => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl Connection {
    /// The connection in a runtime.
    pub(crate) fn begin(self) -> io::Result<(Socket, PeerAddress)> {
        match self {
            Self::Tcp(io) => {
                io.set_nonblocking(true)?;
                let address = io.peer_addr()?;
                tune_early(&io)?;
                Ok((TcpStream::from_std(io)?.into(), address.into()))
            }
            Self::Unix(io) => {
                io.set_nonblocking(true)?;
                of_unix(UnixStream::from_std(io)?)
            }
        }
    }
}

/// A Unix client has no address, but the kernel knows which user and process has connected (unix(7),
/// SO_PEERCRED).
fn of_unix(io: UnixStream) -> io::Result<(Socket, PeerAddress)> {
    let credentials = io.peer_cred()?;
    let address = PeerAddress::Unix { user: credentials.uid(), process: credentials.pid() };
    Ok((Socket::Unix(io), address))
}

impl From<std::net::TcpListener> for Listener {
    fn from(listener: std::net::TcpListener) -> Self {
        Self::Tcp(listener)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use nix::errno::Errno;

    use super::*;

    /// O1: closing a socket returns the clients in its queue, and later clients are refused; the queue of a lent socket
    /// is left alone.
    #[tokio::test]
    async fn o1_a_queue_is_taken_out_when_its_socket_is_closed() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let copy = listener.try_clone().unwrap();
        let clients: Vec<_> =
            (0..50).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
        let lent = Listener::Lent(Box::new(copy.into()));
        assert!(Accepting::begin(lent).unwrap().close().is_empty());
        let queued = Accepting::begin(listener.into()).unwrap().close();
        assert_eq!(queued.len(), clients.len());
        for ((_, address), client) in queued.iter().zip(&clients) {
            assert_eq!(*address, client.local_addr().unwrap().into());
        }
        assert!(std::net::TcpStream::connect(address).is_err());
    }

    /// O1: an error of one connection in the queue (accept(2), "Error handling") loses none behind it.
    #[tokio::test]
    async fn o1_a_connection_that_fails_does_not_lose_those_behind_it() {
        let (ours, _client) = std::os::unix::net::UnixStream::pair().unwrap();
        let network = |errno: Errno| Err(errno.into());
        let mut answers = vec![
            network(Errno::EWOULDBLOCK),
            Ok(Connection::Unix(ours)),
            network(Errno::EHOSTUNREACH),
            network(Errno::ECONNABORTED),
        ];
        let mut queued = Vec::new();
        take_out(&mut queued, || answers.pop().unwrap()).unwrap();
        assert_eq!(queued.len(), 1);
    }

    /// U3: the kernel says which user and process has connected, so a client cannot claim to be another.
    #[tokio::test]
    async fn u3_a_unix_client_is_its_user_and_process() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let accepting = Accepting::begin(Listener::Unix(listener)).unwrap();
        let _client = UnixStream::connect(&path).await.unwrap();
        let (io, address) = poll_fn(|cx| accepting.poll_accept(cx)).await.unwrap();
        assert!(matches!(io, Socket::Unix(_)));
        let user = nix::unistd::geteuid().as_raw();
        let process = i32::try_from(std::process::id()).ok();
        assert_eq!(address, PeerAddress::Unix { user, process });
    }
}
