//! From a new connection to a [`Stream`]: its first byte tells plain from TLS.

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::{Acceptor, Tls, failure};
use crate::stream::Stream;

/// The type of a TLS record that begins a handshake (RFC 8446, section 5.1).
const HANDSHAKE: u8 = 0x16;

/// The high bit of an SSLv2 record's length, where its hello is shorter than 256 bytes.
const SSLV2: u8 = 0x80;

/// A fatal `handshake_failure`, as a record (RFC 8446, section 6): we have no certificate.
const NO_CERTIFICATE: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 40];

/// A fatal `protocol_version`. A client that says an SSLv2 hello for compatibility understands it.
const NO_SSLV2: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 70];

/// For plain clients where none are served. Nothing of the request is read, so it is the same for
/// all of them.
const NO_PLAIN: &[u8] = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\
    Content-Type: text/plain; charset=utf-8\r\nContent-Length: 47\r\n\r\n\
    encrypted connections only: use https: or wss:\n";

/// What becomes of unencrypted clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plain {
    /// They are served.
    Served,
    /// They are told that the connection must be encrypted.
    Refused,
}

/// Why a client is not admitted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error("closed by the client")]
    Closed,
    #[error("refused a TLS client, TLS is off: {0}")]
    Off(String),
    #[error("refused an SSLv2 client: it must say the hello of SSLv3 or TLS")]
    Sslv2,
    #[error("refused an unencrypted client")]
    Plain,
    #[error("refused a client's certificate: {0}")]
    ClientCertificate(String),
    #[error("refused a client without a certificate")]
    NoClientCertificate,
    #[error("TLS handshake failed: {0}")]
    Handshake(String),
}

/// Waits for the first byte and makes a stream of the connection. A client that is not admitted
/// has been told; the caller closes the connection in order.
pub(crate) async fn admit(
    mut io: TcpStream,
    tls: &watch::Receiver<Tls>,
    plain: Plain,
) -> Result<Stream, (Refused, Option<TcpStream>)> {
    let mut first = [0];
    match io.peek(&mut first).await {
        Ok(1) => {}
        Ok(_) | Err(_) => return Err((Refused::Closed, None)),
    }
    let (refused, answer) = match first[0] {
        HANDSHAKE => {
            let tls = tls.borrow().clone();
            match tls {
                Tls::On(acceptor) => return shake_hands(acceptor, io).await,
                Tls::Off(reason) => (Refused::Off(reason), &NO_CERTIFICATE[..]),
            }
        }
        SSLV2 => (Refused::Sslv2, &NO_SSLV2[..]),
        _ => match plain {
            Plain::Served => return Ok(Stream::new(io)),
            Plain::Refused => (Refused::Plain, NO_PLAIN),
        },
    };
    // Whether it hears it is not our concern any more.
    let _ = io.write_all(answer).await;
    Err((refused, Some(io)))
}

async fn shake_hands(
    Acceptor(config): Acceptor,
    io: TcpStream,
) -> Result<Stream, (Refused, Option<TcpStream>)> {
    match TlsAcceptor::from(config).accept(io).into_fallible().await {
        Ok(stream) => Ok(Stream::encrypted(stream)),
        // rustls has sent the alert.
        Err((error, io)) => Err((failure::judge(&error), Some(io))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t1_the_refusal_of_plain_clients_is_well_formed() {
        let text = std::str::from_utf8(NO_PLAIN).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.ends_with(&format!("\r\nContent-Length: {}", body.len())), "{head}");
    }
}
