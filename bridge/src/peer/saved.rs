//! A peer in the state of a hand-over. Must not know how the state is written down.

use serde::{Deserialize, Serialize};

use super::{Peer, PeerAddress, TlsVersion};

/// What is known of a client.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SavedPeer {
    pub(crate) address: PeerAddress,
    pub(crate) via: Option<PeerAddress>,
    pub(crate) is_unnamed: bool,
    pub(crate) tls: Option<TlsVersion>,
    pub(crate) certificate: Option<String>,
}

impl SavedPeer {
    pub(crate) fn of(peer: &Peer) -> Self {
        Self {
            address: peer.address,
            via: peer.via.as_deref().copied(),
            is_unnamed: peer.is_unnamed,
            tls: peer.tls,
            certificate: peer.certificate.as_deref().map(str::to_owned),
        }
    }

    /// The peer, without its standing and its place in the count of its client's connections: `Door::take_in` finds out
    /// both.
    pub(crate) fn resume(self) -> Peer {
        Peer {
            via: self.via.map(Box::new),
            is_unnamed: self.is_unnamed,
            tls: self.tls,
            certificate: self.certificate.map(String::into_boxed_str),
            ..Peer::new(self.address)
        }
    }
}
