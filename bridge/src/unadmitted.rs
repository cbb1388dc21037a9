//! Log records of clients that get no session, and the reasons why not.
//!
//! Any client can cause these records, as often as it likes. So they are short and have no secrets, and are marked with
//! [`UNADMITTED`]: the log writes the first of them and counts those that are too many. Must not know how a client is
//! refused.

use ::http::header::{HeaderMap, SEC_WEBSOCKET_PROTOCOL};
use tracing::field::display;
use tracing::{debug, info, warn};

use crate::error_text::error_text;
use crate::forwarded::Doubt;
use crate::peer::{Peer, PeerAddress, Route};
use crate::proxies::ProxyHeaderError;
use crate::redact;
use crate::tls::Failure;

/// The `tracing` target of records that a client can cause without a session.
pub const UNADMITTED: &str = "unadmitted";

/// Why a connection became no session.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoSession {
    #[error("closed by the client")]
    Left,
    #[error("the bridge takes no more sessions")]
    NoMore,
    #[error("no request in time")]
    TimedOut,
    #[error("what it sends begins no request")]
    NoRequest,
    #[error("no memory for a request that is not whole")]
    NoMemory,
    #[error("gave way to others")]
    GaveWay,
    #[error("{0}")]
    Http(#[from] hyper::Error),
    #[error("none of those who may connect")]
    Stranger,
    #[error("far too many connections of one client")]
    FarTooMany,
    #[error("{0}")]
    ProxyHeaderError(#[from] ProxyHeaderError),
    #[error("{0}")]
    NotAccepted(#[from] Failure),
    #[error("{}", error_text(.0))]
    Io(#[from] std::io::Error),
}

/// Records a session whose client offered sub-protocols of which we know none. The answer confirms none of them, and a
/// browser then fails the connection (RFC 6455 allows that, the WHATWG's standard requires it).
pub(crate) fn unknown_protocols(peer: &Peer, headers: &HeaderMap) {
    let lines = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    let lines: Vec<_> = lines.map(|line| String::from_utf8_lossy(line.as_bytes())).collect();
    if lines.is_empty() {
        return;
    }
    let (client, port, offered) = (peer.address.client(), peer.address.port(), lines.join(", "));
    let via = peer.via.as_deref().map(display);
    let offered = &*redact::text(&offered);
    info!(
        target: UNADMITTED, %client, port, via, offered,
        "chose no sub-protocol: {client} offered {offered:?}, of which we know none: \
         a browser closes such a connection"
    );
}

/// Records a request of a trusted proxy that does not say clearly which client the request is from.
pub(crate) fn unclear(proxy: PeerAddress, why: Doubt) {
    let (client, port) = (proxy.client(), proxy.port());
    warn!(
        target: UNADMITTED, %client, port,
        "cannot tell whose request a trusted proxy has passed on: {client}: {why}, so that it counts as the proxy's own"
    );
}

/// Records a connection that ended without a session. An ordinary end is a debug message only: health checks end so, too.
pub(crate) fn ended(route: &Route, why: &NoSession) {
    let (client, port) = (route.address.client(), route.address.port());
    let via = route.via.as_deref().map(display);
    match why {
        NoSession::ProxyHeaderError(ProxyHeaderError::Malformed(why)) => warn!(
            target: UNADMITTED, %client, port, via,
            "cannot tell whose connection a trusted proxy has passed on: {client}: {why}"
        ),
        why @ (NoSession::Stranger | NoSession::FarTooMany) => {
            info!(target: UNADMITTED, %client, port, via, "closed a connection: {client}: {why}");
        }
        NoSession::NotAccepted(why @ Failure::Handshake(_)) => {
            info!(target: UNADMITTED, %client, port, via, "{why}: {client}");
        }
        NoSession::NotAccepted(why) if !matches!(why, Failure::Closed | Failure::Unreadable(_)) => {
            warn!(target: UNADMITTED, %client, port, via, "{why}: {client}");
        }
        why => debug!(%client, port, via, "connection ended without a session: {client}: {why}"),
    }
}
