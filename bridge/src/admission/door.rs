//! Who may ask for anything at all: decided when a connection is accepted, and again when a trusted proxy has said
//! whose it is, or whose a request. Knows addresses and counts; must not know what is asked for.

use std::net::SocketAddr;
use std::sync::Arc;

use ::http::HeaderMap;

use super::refusal::Refusal;
use crate::clients::{Clients, Standing};
use crate::config::Config;
use crate::net::Socket;
use crate::network::Networks;
use crate::peer::{Peer, PeerAddress, Route};
use crate::proxies::{Proxies, Word, read_header};
use crate::proxy_header::Header;
use crate::unadmitted::{self, NoSession};

/// What the clients of a bridge must pass first.
#[derive(Debug)]
pub(crate) struct Door {
    proxies: Proxies,
    /// Who may come; none: everybody.
    allowed: Option<Networks>,
    /// Those who are there, if it matters how often.
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

    /// Somebody has connected. Trusted proxies are neither counted nor turned away: they speak for others.
    pub(crate) fn knock(&self, address: PeerAddress) -> Result<Peer, NoSession> {
        let mut peer = Peer::new(address);
        if self.proxies.trust(address) {
            return Ok(peer);
        }
        self.enter(&mut peer)?;
        if peer.standing == Standing::Stranger { Err(NoSession::Stranger) } else { Ok(peer) }
    }

    /// Whether this peer has to say first whose its connection is.
    pub(crate) fn is_to_introduce(&self, peer: &Peer) -> bool {
        self.proxies.word == Word::ProxyHeader && self.proxies.trust(peer.address)
    }

    /// Whether its connections are those of many clients: of a proxy, or of whatever connects to a Unix socket here.
    pub(crate) fn speaks_for_many(&self, peer: &Peer) -> bool {
        matches!(peer.address, PeerAddress::Unix { .. })
            || peer.via.is_none() && self.proxies.trust(peer.address)
    }

    /// Has a trusted proxy say whose its connection is.
    /// `route` becomes the client's.
    pub(crate) async fn introduced(
        &self,
        io: &mut Socket,
        proxy: Peer,
        route: &mut Route,
    ) -> Result<Peer, NoSession> {
        let mut peer = match read_header(io).await? {
            // Nobody's but its own: it only looks whether we are there.
            Header::Local => return Ok(proxy),
            Header::Unknown => unnamed(proxy.address),
            Header::Client(client) => behind(client, proxy.address),
        };
        *route = peer.route();
        self.enter(&mut peer)?;
        Ok(peer)
    }

    /// Whose a request is that came over this peer's connection.
    pub(crate) fn asker(&self, peer: &Arc<Peer>, headers: &HeaderMap) -> Arc<Peer> {
        let is_shared = self.proxies.word == Word::Headers && self.proxies.trust(peer.address);
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
        // Who has far too many is told that it has too many.
        let _ = self.enter(&mut asker);
        Arc::new(asker)
    }

    /// Lets a client ask, if it may.
    pub(super) fn welcome(&self, asker: &Peer) -> Result<(), Refusal> {
        let refusal = match asker.standing {
            Standing::Welcome => return Ok(()),
            Standing::Stranger => Refusal::stranger(),
            Standing::OneTooMany => Refusal::one_too_many(),
        };
        // A proxy's connection is for others, too.
        let proxy = asker.via.as_deref().unwrap_or(&asker.address);
        let is_shared = self.proxies.word == Word::Headers && self.proxies.trust(*proxy);
        Err(if is_shared { refusal } else { refusal.closing() })
    }

    /// Counts somebody who was let in by another image of this program.
    pub(crate) fn take_in(&self, peer: &mut Peer) -> Result<(), NoSession> {
        let is_proxy = peer.via.is_none() && !peer.is_unnamed && self.proxies.trust(peer.address);
        if is_proxy { Ok(()) } else { self.enter(peer) }
    }

    /// Finds out how a client stands, and counts its connection.
    fn enter(&self, peer: &mut Peer) -> Result<(), NoSession> {
        // Whom a proxy has not named is nobody, though the proxy itself may be allowed: a client can bring that about by
        // a header that is malformed, or by having the proxy drop its own (`Connection: X-Forwarded-For`).
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

/// Somebody behind a proxy that does not say who.
fn unnamed(proxy: PeerAddress) -> Peer {
    Peer { is_unnamed: true, ..Peer::new(proxy) }
}

fn behind(client: SocketAddr, proxy: PeerAddress) -> Peer {
    Peer { via: Some(Box::new(proxy)), ..Peer::new(client.into()) }
}
