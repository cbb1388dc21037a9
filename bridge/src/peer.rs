//! The client at the other end of a connection. It is found out once, when the connection was accepted and its TLS
//! handshake is done, and is the same for all requests of the connection; but a trusted proxy may name another client
//! in each request. Knows no socket and no request.

mod saved;

use std::fmt;
use std::net::{SocketAddr, SocketAddrV6};

use serde::{Deserialize, Serialize};

use crate::clients::{ClientId, Place, Standing};
pub(crate) use saved::SavedPeer;

/// A client, before and after it has a session.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) address: PeerAddress,
    /// The trusted proxy that the client came through, if the proxy has named the client.
    pub(crate) via: Option<Box<PeerAddress>>,
    /// Whether `address` is that of a trusted proxy that has not named its client: the client may be anybody behind the
    /// proxy.
    pub(crate) is_unnamed: bool,
    /// The version of TLS, if the connection is encrypted.
    pub(crate) tls: Option<TlsVersion>,
    /// The common name in the client's certificate, which was verified; none if none was asked for.
    pub(crate) certificate: Option<Box<str>>,
    pub(crate) standing: Standing,
    /// The place of this connection in the count of its client's connections, if those are counted; given back when
    /// this is dropped.
    pub(crate) place: Option<Box<Place>>,
}

/// Shows the address of a peer, and the proxy that it came through.
pub(crate) struct Whence<'a>(&'a Peer);

/// The address of a peer, and the proxy that it came through, for the log records of a connection whose [`Peer`] is
/// gone, or was never made.
#[derive(Debug, Clone)]
pub(crate) struct Route {
    pub(crate) address: PeerAddress,
    pub(crate) via: Option<Box<PeerAddress>>,
}

/// Where a client connects from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum PeerAddress {
    /// An IPv4 client of a dual-stack listener has its IPv4 address here. Port 0: a proxy has not named the port.
    Internet(SocketAddr),
    /// Through a Unix socket: the user and process that it was when it connected.
    Unix { user: u32, process: Option<i32> },
}

/// A version of TLS that we speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum TlsVersion {
    V1_2,
    V1_3,
}

impl Peer {
    /// A peer of which no more than the address is known, and which is welcome.
    pub(crate) fn new(address: PeerAddress) -> Self {
        Self {
            address,
            via: None,
            is_unnamed: false,
            tls: None,
            certificate: None,
            standing: Standing::Welcome,
            place: None,
        }
    }

    /// Its address, and the proxy that it came through, to be kept.
    pub(crate) fn route(&self) -> Route {
        Route { address: self.address, via: self.via.clone() }
    }

    /// Its address, and the proxy that it came through, for people.
    pub(crate) fn whence(&self) -> Whence<'_> {
        Whence(self)
    }
}

impl fmt::Display for Whence<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(Peer { address, via, .. }) = self;
        match via {
            Some(via) => write!(out, "{address} via {via}"),
            None => address.fmt(out),
        }
    }
}

impl PeerAddress {
    pub(crate) fn client(self) -> ClientId {
        match self {
            Self::Internet(address) => ClientId::Address(address.ip()),
            Self::Unix { user, .. } => ClientId::User(user),
        }
    }

    /// `None` for a Unix client, and where a proxy has not named the port.
    pub(crate) fn port(self) -> Option<u16> {
        match self {
            Self::Internet(address) => Some(address.port()).filter(|port| *port != 0),
            Self::Unix { .. } => None,
        }
    }
}

/// Without a proxy.
impl From<PeerAddress> for Route {
    fn from(address: PeerAddress) -> Self {
        Self { address, via: None }
    }
}

impl From<SocketAddr> for PeerAddress {
    fn from(address: SocketAddr) -> Self {
        Self::Internet(match address {
            // The scope is kept, the flow label is not.
            SocketAddr::V6(v6) if v6.ip().to_ipv4_mapped().is_none() => {
                SocketAddrV6::new(*v6.ip(), v6.port(), 0, v6.scope_id()).into()
            }
            address => SocketAddr::new(address.ip().to_canonical(), address.port()),
        })
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Internet(address) if address.port() == 0 => address.ip().fmt(out),
            Self::Internet(address) => address.fmt(out),
            Self::Unix { process: Some(process), .. } => {
                write!(out, "{},pid={process}", self.client())
            }
            Self::Unix { process: None, .. } => self.client().fmt(out),
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn u3_a_client_is_shown_by_its_address_or_its_user() {
        let internet = |typed: &str| PeerAddress::from(typed.parse::<SocketAddr>().unwrap());
        for (address, shown, client) in [
            (internet("192.0.2.1:80"), "192.0.2.1:80", "192.0.2.1"),
            (internet("[::ffff:192.0.2.1]:80"), "192.0.2.1:80", "192.0.2.1"),
            (internet("[::1]:80"), "[::1]:80", "::1"),
            (internet("[::1]:0"), "::1", "::1"),
            (internet("192.0.2.1:0"), "192.0.2.1", "192.0.2.1"),
            (internet("[fe80::1%2]:80"), "[fe80::1%2]:80", "fe80::1"),
            (PeerAddress::Unix { user: 33, process: Some(7) }, "unix:uid=33,pid=7", "unix:uid=33"),
            (PeerAddress::Unix { user: 33, process: None }, "unix:uid=33", "unix:uid=33"),
        ] {
            assert_eq!(address.to_string(), shown);
            assert_eq!(address.client().to_string(), client);
        }
    }
}
