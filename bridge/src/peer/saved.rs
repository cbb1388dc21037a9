//! Who is there, for another image of this program. Must not know how that is written down.

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

    /// Whom nobody has looked at yet: where it has a place among its connections is the door's to say.
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
