//! A client's connection as a byte stream, with the bytes that were read ahead of their reader;
//! and the socket options of both legs.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A silent connection is probed after this time: before the common NAT and firewall tables
/// forget it (RFC 5382 allows them to after minutes in practice).
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);

/// Then this often.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// And given up after so many probes without an answer: two minutes after the last sign of life.
const KEEPALIVE_PROBES: u32 = 6;

/// A client's connection.
pub(crate) struct Stream {
    /// Bytes that were read already and go first.
    unread: Bytes,
    io: TcpStream,
}

impl Stream {
    /// A new connection.
    pub(crate) fn new(io: TcpStream) -> Self {
        Self { unread: Bytes::new(), io }
    }

    /// Gives back what was read too much, to be read again before anything else.
    pub(crate) fn unread(&mut self, bytes: Bytes) {
        debug_assert!(self.unread.is_empty());
        // Even an empty `Bytes` holds on to the memory it is a part of.
        self.unread = if bytes.is_empty() { Bytes::new() } else { bytes };
    }
}

/// Sets the options that both legs of a session have (B7).
///
/// `TCP_USER_TIMEOUT` is left alone on purpose: the kernel applies it to a peer that answers but
/// keeps its window closed as well, and a reader may stop reading for as long as it likes. A peer
/// that is gone while bytes are on their way to it is given up by `net.ipv4.tcp_retries2`.
pub(crate) fn tune(socket: &TcpStream) -> io::Result<()> {
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_PROBES);
    // Key strokes must not wait for the acknowledgement of the last ones.
    socket.set_nodelay(true)?;
    SockRef::from(socket).set_tcp_keepalive(&keepalive)
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.unread.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, room);
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

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn b7_keystrokes_are_not_delayed_and_a_dead_peer_is_noticed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        tune(&socket).unwrap();
        let options = SockRef::from(&socket);
        assert!(options.tcp_nodelay().unwrap());
        assert!(options.keepalive().unwrap());
        assert_eq!(options.tcp_keepalive_time().unwrap(), KEEPALIVE_IDLE);
        assert_eq!(options.tcp_keepalive_interval().unwrap(), KEEPALIVE_INTERVAL);
        assert_eq!(options.tcp_keepalive_retries().unwrap(), KEEPALIVE_PROBES);
    }
}
