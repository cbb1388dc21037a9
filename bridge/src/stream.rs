//! A client's connection as a byte stream, with the bytes that were read ahead of their reader. Knows how
//! clients end TLS; must not know what the bytes mean.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;

use crate::leg::Leg;
use crate::net::{Heard, PeerStatus, Socket};
use crate::tls::Records;

/// A client's connection.
pub(crate) struct Stream {
    /// Bytes that were read already and go first.
    unread: Bytes,
    io: Leg,
}

impl Stream {
    /// A new connection, unencrypted.
    pub(crate) fn new(io: Socket) -> Self {
        Self { unread: Bytes::new(), io: io.into() }
    }

    /// A connection after its TLS handshake.
    pub(crate) fn encrypted(io: TlsStream<Records>) -> Self {
        Self { unread: Bytes::new(), io: Leg::encrypted(io) }
    }

    /// Gives back what was read too much, to be read again before anything else.
    pub(crate) fn unread(&mut self, bytes: Bytes) {
        if self.unread.is_empty() {
            // Even an empty `Bytes` holds on to the memory it is a part of.
            self.unread = if bytes.is_empty() { Bytes::new() } else { bytes };
        } else if !bytes.is_empty() {
            self.unread = [bytes, std::mem::take(&mut self.unread)].concat().into();
        }
    }

    /// Reads what is there already of an unencrypted connection, without waiting. Returns how much that is, if anything.
    pub(crate) fn read_now(&mut self, room: &mut [u8]) -> usize {
        match &self.io {
            Leg::Plain(socket) if self.unread.is_empty() => socket.read_now(room).unwrap_or(0),
            _ => 0,
        }
    }

    /// Whether TLS ends here.
    pub(crate) fn is_encrypted(&self) -> bool {
        matches!(self.io, Leg::Tls(_))
    }

    /// As it goes on, with bytes that were read already.
    pub(crate) fn resume(io: Leg, unread: &[u8]) -> Self {
        Self { unread: Bytes::copy_from_slice(unread), io }
    }

    /// What was read already and goes first.
    pub(crate) fn unread_bytes(&self) -> &[u8] {
        &self.unread
    }

    /// The connection below.
    pub(crate) fn leg(&mut self) -> &mut Leg {
        &mut self.io
    }

    /// It has a session from now on.
    pub(crate) fn has_session(&mut self) {
        self.io.has_session();
    }

    /// How many written bytes the client's kernel has not taken yet.
    pub(crate) fn unsent(&self) -> u64 {
        self.io.unsent()
    }

    /// See [`Leg::reset_on_close`].
    pub(crate) fn reset_on_close(&self) {
        self.io.reset_on_close();
    }

    /// Where the client is connected to us, if that is TCP.
    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        self.io.tcp_ends().map(|(ours, _)| ours)
    }

    /// What the kernel says of the client.
    pub(crate) fn peer_status(&self, cx: &mut Context<'_>) -> PeerStatus {
        self.io.peer_status(cx)
    }

    /// What was heard of the client, if that is asked over TCP.
    pub(crate) fn heard(&self) -> Option<Heard> {
        self.io.heard()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.unread.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, room).map(end_without_notice);
        }
        let length = self.unread.len().min(room.remaining());
        room.put_slice(&self.unread[..length]);
        self.unread.advance(length);
        let rest = std::mem::take(&mut self.unread);
        self.unread(rest);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Many clients close their connection without TLS's close_notify. What that could hide, a cut-off
/// end, WebSocket shows with its own close frame. A socket itself never says so.
fn end_without_notice(read: io::Result<()>) -> io::Result<()> {
    match read {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
        read => read,
    }
}
