//! A client's connection as a byte stream, with the bytes that were read ahead of their reader;
//! and the socket options of both legs.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::sock_diag;
use crate::standstill::Sign;

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
    io: Io,
}

enum Io {
    Plain(TcpStream),
    /// Boxed: a plain session should not have to make room for it.
    Tls(Box<TlsStream<TcpStream>>),
}

/// Passes a call on to whichever it is.
macro_rules! either {
    ($stream:expr, $io:ident => $call:expr) => {
        match &mut $stream.io {
            Io::Plain($io) => {
                let $io = Pin::new($io);
                $call
            }
            Io::Tls($io) => {
                let $io = Pin::new(&mut **$io);
                $call
            }
        }
    };
}

impl Stream {
    /// A new connection, unencrypted.
    pub(crate) fn new(io: TcpStream) -> Self {
        Self { unread: Bytes::new(), io: Io::Plain(io) }
    }

    /// A connection after its TLS handshake.
    pub(crate) fn encrypted(io: TlsStream<TcpStream>) -> Self {
        Self { unread: Bytes::new(), io: Io::Tls(Box::new(io)) }
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

    /// Its two ends.
    pub(crate) fn ends(&self) -> Option<Ends> {
        Ends::of(self.socket())
    }

    /// How many written bytes the client's kernel has not taken yet; see [`unacknowledged`].
    pub(crate) fn unacknowledged(&self) -> u64 {
        unacknowledged(self.socket())
    }

    /// What is known of the client without reading; see [`sign`].
    pub(crate) fn sign(&self, cx: &mut Context<'_>) -> Sign {
        sign(self.socket(), cx)
    }

    fn socket(&self) -> &TcpStream {
        match &self.io {
            Io::Plain(io) => io,
            Io::Tls(io) => io.get_ref().0,
        }
    }
}

/// The addresses of a connection, which name it to the kernel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ends {
    ours: SocketAddr,
    peer: SocketAddr,
}

impl Ends {
    fn of(socket: &TcpStream) -> Option<Self> {
        Some(Self { ours: socket.local_addr().ok()?, peer: socket.peer_addr().ok()? })
    }

    /// See [`unacknowledged`].
    pub(crate) fn unacknowledged(self) -> u64 {
        sock_diag::unacknowledged(self.ours, self.peer).map_or(0, u64::from)
    }
}

/// How many bytes written to `socket` its peer's kernel has not acknowledged; 0 if ours does not
/// say. A matter of some 20 µs.
pub(crate) fn unacknowledged(socket: &TcpStream) -> u64 {
    Ends::of(socket).map_or(0, Ends::unacknowledged)
}

/// What the kernel says of the peer ahead of the bytes that are still to be read. It says nothing of an
/// end that is behind bytes for which it has no room.
pub(crate) fn sign(socket: &TcpStream, cx: &mut Context<'_>) -> Sign {
    // A question only: dropped, it wakes nobody.
    match pin!(socket.ready(Interest::READABLE | Interest::ERROR)).poll(cx) {
        Poll::Ready(Ok(ready)) if ready.is_error() => Sign::Failed,
        Poll::Ready(Ok(ready)) if ready.is_read_closed() => Sign::Ended,
        _ => Sign::None,
    }
}

/// Sets the options that both legs of a session have (B7). What is accepted from a listening socket
/// has them from that: Linux copies them, and a system call for each is saved.
///
/// `TCP_USER_TIMEOUT` is left alone on purpose: the kernel applies it to a peer that answers but
/// keeps its window closed as well, and a reader may stop reading for as long as it likes. A peer
/// that is gone while bytes are on their way to it is given up by `net.ipv4.tcp_retries2`.
pub(crate) fn tune(socket: &impl AsFd) -> io::Result<()> {
    let socket = SockRef::from(socket);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_PROBES);
    // Key strokes must not wait for the acknowledgement of the last ones.
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&keepalive)
}

/// The same for a client that came before its listener had them, as the first one does where systemd
/// passes the socket. The option that is set last tells, by one system call.
pub(crate) fn tune_if_early(client: &TcpStream) -> io::Result<()> {
    if SockRef::from(client).tcp_keepalive_retries()? == KEEPALIVE_PROBES {
        return Ok(());
    }
    tune(client)
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.unread.is_empty() {
            return match &mut self.io {
                Io::Plain(io) => Pin::new(io).poll_read(cx, room),
                Io::Tls(io) => Pin::new(&mut **io).poll_read(cx, room).map(end_without_notice),
            };
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
        either!(self, io => io.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self, io => io.poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        // Both are.
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, io => io.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, io => io.poll_shutdown(cx))
    }
}

/// Many clients close their connection without TLS's close_notify. What that could hide, a cut-off
/// end, WebSocket shows with its own close frame.
fn end_without_notice(read: io::Result<()>) -> io::Result<()> {
    match read {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
        read => read,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn b7_keystrokes_are_not_delayed_and_a_dead_peer_is_noticed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        tune(&listener).unwrap();
        let target = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        tune(&target).unwrap();
        let (client, _) = listener.accept().await.unwrap();
        assert_tuned(&[target, client]);
    }

    /// B7, D4: a client that was in the backlog before.
    #[tokio::test]
    async fn b7_a_client_that_came_before_the_bridge_is_no_exception() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let early = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        tune(&listener).unwrap();
        let (client, _) = listener.accept().await.unwrap();
        assert!(!SockRef::from(&client).tcp_nodelay().unwrap());
        tune_if_early(&client).unwrap();
        assert_tuned(&[client]);
        drop(early);
    }

    fn assert_tuned(sockets: &[TcpStream]) {
        for socket in sockets {
            let options = SockRef::from(socket);
            assert!(options.tcp_nodelay().unwrap());
            assert!(options.keepalive().unwrap());
            assert_eq!(options.tcp_keepalive_time().unwrap(), KEEPALIVE_IDLE);
            assert_eq!(options.tcp_keepalive_interval().unwrap(), KEEPALIVE_INTERVAL);
            assert_eq!(options.tcp_keepalive_retries().unwrap(), KEEPALIVE_PROBES);
        }
    }
}
