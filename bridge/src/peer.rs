//! Who is at the other end of a connection: found out once, when it was accepted and its TLS handshake is
//! done, and the same for whatever it asks for. Knows no socket and no request.

use std::net::SocketAddr;

/// A client, before and after it has a session.
#[derive(Debug)]
pub(crate) struct Peer {
    /// Where it connects from. An IPv4 client of a dual-stack listener has its IPv4 address here.
    pub(crate) address: SocketAddr,
    /// The version of TLS, if the connection is encrypted.
    pub(crate) tls: Option<TlsVersion>,
    /// The common name in the client's certificate, which was verified; none if none was asked for.
    pub(crate) certificate: Option<Box<str>>,
}

/// A version of TLS that we speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TlsVersion {
    V1_2,
    V1_3,
}

impl TlsVersion {
    /// Its number.
    pub(crate) fn number(self) -> &'static str {
        match self {
            Self::V1_2 => "1.2",
            Self::V1_3 => "1.3",
        }
    }
}
