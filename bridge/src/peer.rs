//! Who is at the other end of a connection: found out once, when it was accepted and its TLS handshake is
//! done, and the same for whatever it asks for. Knows no socket and no request.

use std::net::SocketAddr;

/// A client, before and after it has a session.
#[derive(Debug)]
pub(crate) struct Peer {
    /// Where it connects from. An IPv4 client of a dual-stack listener has its IPv4 address here.
    pub(crate) address: SocketAddr,
    /// The version of TLS, if the connection is encrypted.
    pub(crate) tls: Option<&'static str>,
    /// The common name in the client's certificate, which was verified; none if none was asked for.
    pub(crate) certificate: Option<Box<str>>,
}
