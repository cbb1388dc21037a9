//! Certificates that the tests make, and blocking TLS clients, with a deadline on reads.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::client::uninterrupted;
use super::frame;
use super::wait::DEADLINE;

/// The authority that signs the certificates of all servers under test.
pub(crate) static SERVERS: LazyLock<Authority> = LazyLock::new(|| Authority::new("servers"));

const DAY: Duration = Duration::from_secs(86400);

/// When a certificate is valid.
#[derive(Clone, Copy)]
pub(crate) enum Dates {
    Now,
    Past,
    Future,
}

/// A certificate that signs others, and its key.
pub(crate) struct Authority {
    params: CertificateParams,
    key: KeyPair,
    certificate: Certificate,
}

/// A certificate and its key.
pub(crate) struct Identity {
    pub(crate) certificate: Certificate,
    pub(crate) key: KeyPair,
}

fn named(name: &str, dates: Dates) -> CertificateParams {
    let mut params = CertificateParams::new(vec!["localhost".into()]).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let now = SystemTime::now();
    let (from, until) = match dates {
        Dates::Now => (now - DAY, now + DAY),
        Dates::Past => (now - 2 * DAY, now - DAY),
        Dates::Future => (now + DAY, now + 2 * DAY),
    };
    (params.not_before, params.not_after) = (from.into(), until.into());
    params
}

impl Authority {
    /// A self-signed authority.
    pub(crate) fn new(name: &str) -> Self {
        Self::dated(name, Dates::Now)
    }

    pub(crate) fn dated(name: &str, dates: Dates) -> Self {
        Self::signed(name, dates, None)
    }

    /// An authority whose certificate this authority signs.
    pub(crate) fn intermediate(&self, name: &str, dates: Dates) -> Self {
        Self::signed(name, dates, Some(self))
    }

    fn signed(name: &str, dates: Dates, by: Option<&Self>) -> Self {
        let mut params = named(name, dates);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().unwrap();
        let certificate = match by {
            Some(by) => params.signed_by(&key, &by.issuer()),
            None => params.self_signed(&key),
        };
        Self { params, key, certificate: certificate.unwrap() }
    }

    fn issuer(&self) -> Issuer<'_, &KeyPair> {
        Issuer::from_params(&self.params, &self.key)
    }

    /// A certificate for a server or client of this name.
    pub(crate) fn issue(&self, name: &str) -> Identity {
        self.issue_for(name, Dates::Now, &[])
    }

    pub(crate) fn issue_for(
        &self,
        name: &str,
        dates: Dates,
        purposes: &[ExtendedKeyUsagePurpose],
    ) -> Identity {
        let mut params = named(name, dates);
        params.extended_key_usages = purposes.to_vec();
        let key = KeyPair::generate().unwrap();
        Identity { certificate: params.signed_by(&key, &self.issuer()).unwrap(), key }
    }

    pub(crate) fn pem(&self) -> String {
        self.certificate.pem()
    }
}

impl Identity {
    /// A self-signed certificate, which is also an authority, as `openssl req -x509` makes it.
    pub(crate) fn self_signed(name: &str) -> Self {
        let Authority { key, certificate, .. } = Authority::new(name);
        Self { certificate, key }
    }

    /// Certificate and key, as one file.
    pub(crate) fn pem(&self) -> String {
        self.certificate.pem() + &self.key.serialize_pem()
    }
}

/// The configuration of a TLS client.
pub(crate) struct Caller(Arc<ClientConfig>);

impl Caller {
    /// Without a certificate.
    pub(crate) fn anonymous() -> Self {
        Self(Arc::new(builder(true).with_no_client_auth()))
    }

    /// The same, in TLS 1.2.
    pub(crate) fn old() -> Self {
        Self(Arc::new(builder(false).with_no_client_auth()))
    }

    /// With a certificate, and others to send along.
    pub(crate) fn with(identity: &Identity, along: &[&Authority]) -> Self {
        let along = along.iter().map(|authority| authority.certificate.der().clone());
        let chain = std::iter::once(identity.certificate.der().clone()).chain(along).collect();
        Self::showing(chain, &identity.key)
    }

    /// The same, in TLS 1.2.
    pub(crate) fn old_with(identity: &Identity) -> Self {
        Self::equipped(false, vec![identity.certificate.der().clone()], &identity.key)
    }

    /// With certificates that need not fit the key.
    pub(crate) fn showing(chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> Self {
        Self::equipped(true, chain, key)
    }

    fn equipped(latest: bool, chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> Self {
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        Self(Arc::new(builder(latest).with_client_auth_cert(chain, key).unwrap()))
    }

    /// Offers so many unknown protocols (ALPN) beside `http/1.1`, which makes the ClientHello long.
    pub(crate) fn offering(self, many: u8) -> Self {
        let mut config = ClientConfig::clone(&self.0);
        let unknown = (0..many).map(|which| vec![which; 240]);
        config.alpn_protocols = unknown.chain([b"http/1.1".to_vec()]).collect();
        Self(Arc::new(config))
    }

    /// Sends records of so many bytes at most.
    pub(crate) fn in_records_of(self, length: usize) -> Self {
        let mut config = ClientConfig::clone(&self.0);
        config.max_fragment_size = Some(length);
        Self(Arc::new(config))
    }

    /// Connects to a port of 127.0.0.1 and does the handshake. In TLS 1.3, it shows only later whether the server
    /// accepts the client's certificate.
    pub(crate) fn call(&self, port: u16) -> Result<TlsConnection, String> {
        self.call_over(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap())
    }

    /// The same on a connection that there is already.
    pub(crate) fn call_over(&self, mut socket: TcpStream) -> Result<TlsConnection, String> {
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        let name = "localhost".try_into().unwrap();
        let mut connection = ClientConnection::new(Arc::clone(&self.0), name).unwrap();
        while connection.is_handshaking() {
            uninterrupted(|| connection.complete_io(&mut socket))
                .map_err(|error| error.to_string())?;
        }
        Ok(TlsConnection(StreamOwned::new(connection, socket)))
    }

    /// Does the handshake, and sends a request head together with the last message of the handshake.
    pub(crate) fn call_with(&self, port: u16, head: &[u8]) -> TlsConnection {
        let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        let mut connection = self.call_without_last_flight(socket);
        connection.send_but(head, 0);
        connection
    }

    /// Does the handshake in TLS 1.3 without the client's last flight, which has its certificates: that is still to be sent.
    pub(crate) fn call_without_last_flight(&self, mut socket: TcpStream) -> TlsConnection {
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        let name = "localhost".try_into().unwrap();
        let mut connection = ClientConnection::new(Arc::clone(&self.0), name).unwrap();
        let mut said = Vec::new();
        while connection.is_handshaking() {
            while connection.wants_write() {
                connection.write_tls(&mut said).unwrap();
            }
            socket.write_all(&std::mem::take(&mut said)).unwrap();
            if connection.wants_read() {
                uninterrupted(|| connection.read_tls(&mut socket)).unwrap();
                connection.process_new_packets().unwrap();
            }
        }
        TlsConnection(StreamOwned::new(connection, socket))
    }

    /// A WebSocket session over TLS, or the status or error instead.
    pub(crate) fn session(&self, port: u16, headers: &[&str]) -> Result<TlsConnection, String> {
        let mut connection = self.call(port)?;
        match connection.upgrade(13, headers)? {
            101 => Ok(connection),
            status => Err(status.to_string()),
        }
    }
}

fn builder(
    latest: bool,
) -> tokio_rustls::rustls::ConfigBuilder<ClientConfig, tokio_rustls::rustls::client::WantsClientCert>
{
    let mut roots = RootCertStore::empty();
    roots.add(SERVERS.certificate.der().clone()).unwrap();
    let version = if latest { &TLS13 } else { &TLS12 };
    ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
}

/// A client's encrypted connection.
pub(crate) struct TlsConnection(pub(crate) StreamOwned<ClientConnection, TcpStream>);

impl TlsConnection {
    /// Asks for a session; gives the status of the answer.
    pub(crate) fn upgrade(&mut self, version: u8, headers: &[&str]) -> Result<u16, String> {
        let headers: String = headers.iter().flat_map(|header| [*header, "\r\n"]).collect();
        self.request(&format!(
            "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Version: {version}\r\n{headers}\r\n"
        ))
    }

    /// Sends a head; gives the status of the answer, of which nothing but the head is read.
    pub(crate) fn request(&mut self, head: &str) -> Result<u16, String> {
        let words = |error: std::io::Error| error.to_string();
        self.0.write_all(head.as_bytes()).map_err(words)?;
        self.status()
    }

    /// The status of the answer, of which nothing but the head is read.
    pub(crate) fn status(&mut self) -> Result<u16, String> {
        let words = |error: std::io::Error| error.to_string();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.0.read_exact(&mut byte).map_err(words)?;
            answer.push(byte[0]);
        }
        let answer = String::from_utf8(answer).unwrap();
        Ok(answer.split(' ').nth(1).unwrap().parse().unwrap())
    }

    /// Waits until the server ends the connection, and gives what came before that. Fails if the server does not end it, or
    /// resets it.
    pub(crate) fn read_to_end(&mut self) -> Vec<u8> {
        let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
        loop {
            match uninterrupted(|| self.0.read(&mut piece)) {
                Ok(0) => return bytes,
                Ok(length) => bytes.extend_from_slice(&piece[..length]),
                // The server closed the connection without close_notify.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return bytes,
                Err(error) => panic!("{error} after {} bytes", bytes.len()),
            }
        }
    }

    /// Encrypts bytes, and sends the records without their last `last` bytes, which it gives.
    pub(crate) fn send_but(&mut self, bytes: &[u8], last: usize) -> Vec<u8> {
        let TlsConnection(StreamOwned { conn, sock }) = self;
        conn.writer().write_all(bytes).unwrap();
        let mut records = Vec::new();
        while conn.wants_write() {
            conn.write_tls(&mut records).unwrap();
        }
        // The server may have closed the connection by now.
        let rest = records.split_off(records.len() - last);
        let _ = sock.write_all(&records);
        rest
    }

    /// Sends a message of less than 126 bytes and checks that it comes back.
    pub(crate) fn exchange(&mut self, message: &[u8]) {
        self.0.write_all(&frame(0x82, message)).unwrap();
        let mut answer = vec![0; message.len() + 2];
        self.0.read_exact(&mut answer).unwrap();
        assert_eq!(&answer[2..], message);
    }

    /// The certificate that the server has shown.
    pub(crate) fn certificate(&self) -> CertificateDer<'static> {
        self.0.conn.peer_certificates().unwrap()[0].clone()
    }
}
