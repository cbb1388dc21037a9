//! The check of a client's address: whether the client may ask for anything, and how many connections it has. It is
//! made when a connection is accepted, and again when a trusted proxy has named the client of a connection or of a
//! request. Knows addresses and counts; must not know what is asked for.

use std::net::SocketAddr;
use std::sync::Arc;

use ::http::HeaderMap;

use super::refusal::Refusal;
use crate::clients::{Clients, Standing};
use crate::config::Config;
use crate::net::Socket;
use crate::network::Networks;
use crate::peer::{Peer, PeerAddress, Route};
use crate::proxies::{ClientNaming, Proxies, read_header};
use crate::proxy_header::Header;
use crate::unadmitted::{self, NoSession};

/// The first check that the clients of a bridge must pass.
#[derive(Debug)]
pub(crate) struct Door {
    proxies: Proxies,
    /// The addresses that may connect; none: all may.
    allowed: Option<Networks>,
    /// How many connections each client has, if that is limited.
    clients: Option<Arc<Clients>>,
}

impl Door {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            proxies: config.access.proxies.clone(),
            allowed: config.access.allowed.clone(),
            clients: config.access.connections_per_client.map(Clients::new),
        }
    }

    /// Checks the address of a new connection. A trusted proxy is neither counted nor refused: it connects for other clients.
    pub(crate) fn knock(&self, address: PeerAddress) -> Result<Peer, NoSession> {
        let mut peer = Peer::new(address);
        if self.proxies.trust(address) {
            return Ok(peer);
        }
        self.enter(&mut peer)?;
        if peer.standing == Standing::Stranger { Err(NoSession::Stranger) } else { Ok(peer) }
    }

    /// Whether this peer is a trusted proxy that must first say, in a PROXY header, which client its connection is for.
    pub(crate) fn is_to_introduce(&self, peer: &Peer) -> bool {
        self.proxies.word == ClientNaming::ProxyHeader && self.proxies.trust(peer.address)
    }

    /// Whether connections from this peer's address may be those of many clients: it is a trusted proxy that has not
    /// named its client, or it connects to a Unix socket here.
    pub(crate) fn speaks_for_many(&self, peer: &Peer) -> bool {
        matches!(peer.address, PeerAddress::Unix { .. })
            || peer.via.is_none() && self.proxies.trust(peer.address)
    }

    /// Reads the PROXY header of a trusted proxy, and returns the peer that the connection is for. `route` becomes that peer's.
    pub(crate) async fn introduced(
        &self,
        io: &mut Socket,
        proxy: Peer,
        route: &mut Route,
    ) -> Result<Peer, NoSession> {
        let mut peer = match read_header(io).await? {
            // The connection is the proxy's own: a check whether we are there.
            Header::Local => return Ok(proxy),
            Header::Unknown => unnamed(proxy.address),
            Header::Client(client) => behind(client, proxy.address),
        };
        *route = peer.route();
        self.enter(&mut peer)?;
        Ok(peer)
    }

    /// The asker of a request that came over this peer's connection, whose limits and penalties the request counts for:
    /// the peer itself, unless that is a trusted proxy which names the client in each request.
    pub(crate) fn asker(&self, peer: &Arc<Peer>, headers: &HeaderMap) -> Arc<Peer> {
        let is_shared =
            self.proxies.word == ClientNaming::Headers && self.proxies.trust(peer.address);
        if !is_shared {
            return Arc::clone(peer);
        }
        let named = self.proxies.named(headers).unwrap_or_else(|doubt| {
            unadmitted::unclear(peer.address, doubt);
            None
        });
        let mut asker = match named {
            Some(client) => behind(client, peer.address),
            None => unnamed(peer.address),
        };
        (asker.tls, asker.certificate) = (peer.tls, peer.certificate.clone());
        // If the client has far too many connections, this fails and leaves it the standing `OneTooMany`: it is told
        // that it has too many.
        let _ = self.enter(&mut asker);
        Arc::new(asker)
    }

    /// Whether a client may ask for anything; if not, with what refusal.
    pub(super) fn welcome(&self, asker: &Peer) -> Result<(), Refusal> {
        let refusal = match asker.standing {
            Standing::Welcome => return Ok(()),
            Standing::Stranger => Refusal::stranger(),
            Standing::OneTooMany => Refusal::one_too_many(),
        };
        // A proxy's connection carries requests of other clients, too, and stays open.
        let proxy = asker.via.as_deref().unwrap_or(&asker.address);
        let is_shared = self.proxies.word == ClientNaming::Headers && self.proxies.trust(*proxy);
        Err(if is_shared { refusal } else { refusal.closing() })
    }

    /// Checks and counts a client that the old binary has let in before the hand-over.
    pub(crate) fn take_in(&self, peer: &mut Peer) -> Result<(), NoSession> {
        let is_proxy = peer.via.is_none() && !peer.is_unnamed && self.proxies.trust(peer.address);
        if is_proxy { Ok(()) } else { self.enter(peer) }
    }

    /// Finds out whether a client may ask for anything, and counts its connection.
    fn enter(&self, peer: &mut Peer) -> Result<(), NoSession> {
        // A client that its proxy has not named is not allowed, even if the proxy's address is: a client can cause this
        // by a malformed header, or by having the proxy drop its own header (`Connection: X-Forwarded-For`).
        let may = |allowed: &Networks| !peer.is_unnamed && allowed.have(peer.address);
        if !self.allowed.as_ref().is_none_or(may) {
            peer.standing = Standing::Stranger;
            return Ok(());
        }
        let Some(clients) = &self.clients else { return Ok(()) };
        peer.standing = Standing::OneTooMany;
        let entered = clients.enter(peer.address.client());
        let (place, standing) = entered.ok_or(NoSession::FarTooMany)?;
        (peer.standing, peer.place) = (standing, Some(Box::new(place)));
        Ok(())
    }
}

/// A client that its proxy has not named.
fn unnamed(proxy: PeerAddress) -> Peer {
    Peer { is_unnamed: true, ..Peer::new(proxy) }
}

fn behind(client: SocketAddr, proxy: PeerAddress) -> Peer {
    Peer { via: Some(Box::new(proxy)), ..Peer::new(client.into()) }
}
