//! One leg of a session (to its client, or to its target) as a byte stream, encrypted or not. Knows sockets and TLS connections;
//! must not know what the bytes mean, nor how certificates are verified.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsStream;

use crate::net::{Heard, PeerStatus, SavedSocket, Socket};
use crate::tls::Records;

/// How many bytes that were written rustls keeps at most until the kernel takes them (its `DEFAULT_BUFFER_LIMIT`).
const KEPT_BY_TLS: usize = 64 * 1024;

/// One leg of a session: the connection to the client, or the one to the target.
pub(crate) enum Leg {
    Plain(Socket),
    /// Boxed, so that plain sessions need no room for it.
    Tls(Box<TlsStream<Records>>),
    /// The session has lent this leg while the bridge stands still for a hand-over (O2).
    Away,
}

/// One leg in the state that is handed over: to the new binary, or to a forked copy of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum SavedLeg {
    Plain(SavedSocket),
    /// A leg of a session that has a TLS connection: the keys cannot be handed over, so both legs are kept apart from the state.
    Kept,
}

/// Passes a poll on to the stream of the leg; a leg that is away gives an error.
macro_rules! either {
    ($leg:expr, $io:ident => $call:expr) => {
        match $leg.get_mut() {
            Leg::Plain($io) => {
                let $io = Pin::new($io);
                $call
            }
            Leg::Tls($io) => {
                let $io = Pin::new(&mut **$io);
                $call
            }
            Leg::Away => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    };
}

impl Leg {
    /// The leg of a connection whose TLS handshake is done.
    pub(crate) fn encrypted(io: impl Into<TlsStream<Records>>) -> Self {
        Self::Tls(Box::new(io.into()))
    }

    /// See [`Records::has_session`].
    pub(crate) fn has_session(&mut self) {
        if let Self::Tls(io) = self {
            records(io).has_session();
        }
    }

    /// How many written bytes the peer's kernel has not taken yet.
    pub(crate) fn unsent(&self) -> u64 {
        self.socket().map_or(0, Socket::unsent)
    }

    /// How many of `waiting` bytes TLS may have as well: it has taken them, and the kernel has not.
    pub(crate) fn kept_by_tls(&self, waiting: usize) -> usize {
        if matches!(self, Self::Tls(_)) { waiting.min(KEPT_BY_TLS) } else { 0 }
    }

    /// See [`Socket::reset_on_close`].
    pub(crate) fn reset_on_close(&self) {
        if let Some(socket) = self.socket() {
            socket.reset_on_close();
        }
    }

    /// See [`Socket::limit_unsent`]: the kernel keeps less of what was written where memory is scarce, else as much as usual.
    pub(crate) fn limit_unsent(&self, is_scarce: bool) {
        if let Some(socket) = self.socket() {
            socket.limit_unsent(is_scarce);
        }
    }

    /// What the kernel says of the peer.
    pub(crate) fn peer_status(&self, cx: &mut Context<'_>) -> PeerStatus {
        self.socket().map_or(PeerStatus::Unknown, |socket| socket.peer_status(cx))
    }

    /// What the kernel has heard of the peer; none if this is no TCP connection.
    pub(crate) fn heard(&self) -> Option<Heard> {
        self.socket()?.heard()
    }

    /// Our address and the peer's, if this is a TCP connection.
    pub(crate) fn tcp_ends(&self) -> Option<(SocketAddr, SocketAddr)> {
        self.socket()?.tcp_ends()
    }

    /// The file descriptor of the socket; none while the leg is away.
    pub(crate) fn descriptor(&self) -> Option<RawFd> {
        self.socket().map(|socket| socket.as_fd().as_raw_fd())
    }

    /// The leg as the state for a hand-over has it.
    pub(crate) fn saved(&self) -> SavedLeg {
        match self {
            Self::Plain(socket) => SavedLeg::Plain(socket.saved()),
            Self::Tls(_) | Self::Away => SavedLeg::Kept,
        }
    }

    /// Moves the socket from a runtime that has stopped into the current one.
    pub(crate) fn move_here(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.move_here(),
            Self::Tls(io) => records(io).move_here(),
            Self::Away => Ok(()),
        }
    }

    fn socket(&self) -> Option<&Socket> {
        match self {
            Self::Plain(io) => Some(io),
            Self::Tls(io) => Some(io.get_ref().0),
            Self::Away => None,
        }
    }
}

/// The connection below TLS.
fn records(io: &mut TlsStream<Records>) -> &mut Records {
    match io {
        TlsStream::Client(io) => io.get_mut().0,
        TlsStream::Server(io) => io.get_mut().0,
    }
}

impl From<Socket> for Leg {
    fn from(socket: Socket) -> Self {
        Self::Plain(socket)
    }
}

impl AsyncRead for Leg {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_read(cx, room),
            Self::Tls(io) => {
                let before = room.filled().len();
                let read = Pin::new(&mut **io).poll_read(cx, room);
                if room.filled().len() > before {
                    records(io).is_heard();
                }
                read
            }
            Self::Away => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

impl AsyncWrite for Leg {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        either!(self, io => io.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self, io => io.poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        // Sockets and TLS connections both are.
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, io => io.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, io => io.poll_shutdown(cx))
    }
}
