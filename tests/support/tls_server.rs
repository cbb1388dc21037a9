//! A blocking TLS server, for websockify to bridge to.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::network::Service;
use super::tls::Identity;

/// The server's side of a connection, after the handshake.
pub(crate) type Encrypted = StreamOwned<ServerConnection, TcpStream>;

/// The configuration of a TLS server.
#[derive(Clone)]
pub(crate) struct TlsServer(Arc<ServerConfig>);

impl TlsServer {
    /// Of TLS 1.3.
    pub(crate) fn new(identity: &Identity) -> Self {
        Self::equipped(identity, true)
    }

    /// Of TLS 1.2.
    pub(crate) fn old(identity: &Identity) -> Self {
        Self::equipped(identity, false)
    }

    fn equipped(identity: &Identity, latest: bool) -> Self {
        let version = if latest { &TLS13 } else { &TLS12 };
        let key = PrivateKeyDer::Pkcs8(identity.key.serialize_der().into());
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![identity.certificate.der().clone()], key);
        Self(Arc::new(config.unwrap()))
    }

    /// A service that calls `with` for each connection whose handshake succeeds.
    pub(crate) fn serve(&self, with: impl Fn(Encrypted) + Clone + Send + 'static) -> Service {
        let server = self.clone();
        Service::new(move |socket| {
            if let Some(encrypted) = server.accept(socket) {
                with(encrypted);
            }
        })
    }

    /// A service that sends back what it gets, and ends TLS when its peer does.
    pub(crate) fn echo(&self) -> Service {
        self.serve(echo)
    }

    /// The same for one connection to a Unix socket.
    pub(crate) fn echo_at(&self, socket: UnixStream) {
        let connection = ServerConnection::new(Arc::clone(&self.0)).unwrap();
        echo(StreamOwned::new(connection, socket));
    }

    /// Does the handshake; `None` if that fails.
    pub(crate) fn accept(&self, mut socket: TcpStream) -> Option<Encrypted> {
        let mut connection = ServerConnection::new(Arc::clone(&self.0)).unwrap();
        while connection.is_handshaking() {
            connection.complete_io(&mut socket).ok()?;
        }
        Some(StreamOwned::new(connection, socket))
    }
}

fn echo<S: Read + Write>(mut stream: StreamOwned<ServerConnection, S>) {
    let mut bytes = [0; 16384];
    while let Ok(length @ 1..) = stream.read(&mut bytes) {
        if stream.write_all(&bytes[..length]).and_then(|()| stream.flush()).is_err() {
            return;
        }
    }
    send_close_notify(&mut stream);
}

/// Sends the `close_notify` alert.
pub(crate) fn send_close_notify<S: Read + Write>(stream: &mut StreamOwned<ServerConnection, S>) {
    stream.conn.send_close_notify();
    let _ = stream.flush();
}
