//! A client's connection as a byte stream, encrypted or not. Bytes that were read too early can be put back, and are read
//! again first. Knows how clients end TLS; must not know what the bytes mean.

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
    /// Bytes that were read already and put back: they are read again first.
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

    /// Puts back bytes that were read too early: they are read again before anything else.
    pub(crate) fn put_back(&mut self, bytes: Bytes) {
        if self.unread.is_empty() {
            // Even an empty `Bytes` holds on to the memory it is a part of.
            self.unread = if bytes.is_empty() { Bytes::new() } else { bytes };
        } else if !bytes.is_empty() {
            self.unread = [bytes, std::mem::take(&mut self.unread)].concat().into();
        }
    }

    /// Reads, without waiting, what has already come on an unencrypted connection. Returns the number of bytes: 0 if none
    /// have come, if the connection is encrypted, or if bytes that were put back are to be read first.
    pub(crate) fn read_now(&mut self, room: &mut [u8]) -> usize {
        match &self.io {
            Leg::Plain(socket) if self.unread.is_empty() => socket.read_now(room).unwrap_or(0),
            _ => 0,
        }
    }

    /// Whether the connection is encrypted with TLS that ends in this process, and not in a proxy before it.
    pub(crate) fn is_encrypted(&self) -> bool {
        matches!(self.io, Leg::Tls(_))
    }

    /// A connection after a hand-over, with the bytes that the old process had read and not used.
    pub(crate) fn resume(io: Leg, unread: &[u8]) -> Self {
        Self { unread: Bytes::copy_from_slice(unread), io }
    }

    /// The bytes that were put back.
    pub(crate) fn unread_bytes(&self) -> &[u8] {
        &self.unread
    }

    /// The leg that is read and written below this stream.
    pub(crate) fn leg(&mut self) -> &mut Leg {
        &mut self.io
    }

    /// Notes that the connection has a session from now on; see [`Records::has_session`].
    pub(crate) fn has_session(&mut self) {
        self.io.has_session();
    }

    /// How many written bytes the client's kernel has not taken yet.
    pub(crate) fn unsent(&self) -> u64 {
        self.io.unsent()
    }

    /// See [`Leg::kept_by_tls`].
    pub(crate) fn kept_by_tls(&self, waiting: usize) -> usize {
        self.io.kept_by_tls(waiting)
    }

    /// See [`Leg::reset_on_close`].
    pub(crate) fn reset_on_close(&self) {
        self.io.reset_on_close();
    }

    /// Our address at the client's connection, if that is TCP.
    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        self.io.tcp_ends().map(|(ours, _)| ours)
    }

    /// What the kernel says of the client.
    pub(crate) fn peer_status(&self, cx: &mut Context<'_>) -> PeerStatus {
        self.io.peer_status(cx)
    }

    /// What the kernel has heard of the client, if the connection is TCP.
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
        self.put_back(rest);
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

/// Takes `UnexpectedEof` for an ordinary end: many clients close their connection without TLS's close_notify. An end that
/// was cut off shows all the same, as the WebSocket close frame is missing then. A plain socket never gives this error.
fn end_without_notice(read: io::Result<()>) -> io::Result<()> {
    match read {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
        read => read,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use nix::sys::socket::{setsockopt, sockopt::SndBuf};
    use tokio::net::UnixStream;
    use tokio_rustls::rustls::pki_types::{PrivateKeyDer, ServerName};
    use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
    use tokio_rustls::{TlsAcceptor, TlsConnector, client};

    use super::*;

    /// A connection after its handshake, of which the kernel keeps little, and its client.
    pub(crate) async fn encrypted() -> (Stream, client::TlsStream<UnixStream>) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let server = ServerConfig::builder().with_no_client_auth();
        let server = server.with_single_cert(vec![certificate], key).unwrap();
        let client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let (ours, theirs) = UnixStream::pair().unwrap();
        setsockopt(&ours, SndBuf, &4096).unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let (ours, theirs) = tokio::join!(
            TlsAcceptor::from(Arc::new(server)).accept(Records::at_will(Socket::Unix(ours))),
            TlsConnector::from(Arc::new(client)).connect(name, theirs),
        );
        (Stream::encrypted(ours.unwrap()), theirs.unwrap())
    }
}
