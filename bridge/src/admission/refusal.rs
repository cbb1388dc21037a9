//! What a request is answered that gets neither a session nor a file, and what the log says of it.
//!
//! Knows statuses, headers and reasons; the `http` module makes an answer of them.

use std::borrow::Cow;

use ::http::StatusCode;
use ::http::header::{
    ALLOW, CONNECTION, HeaderName, HeaderValue, RETRY_AFTER, SEC_WEBSOCKET_VERSION, UPGRADE,
    WWW_AUTHENTICATE,
};
use ::http::request::Parts;
use tokio::time::Instant;
use tracing::field::display;
use tracing::{info, warn};

use super::auth::{Denial, origin};
use crate::directory::NoDestination;
use crate::metrics::Refused;
use crate::peer::Peer;
use crate::redact;
use crate::unadmitted::UNADMITTED;
use crate::ws::{NoUpgrade, VERSIONS};

/// `Retry-After` where there are too many connections or sessions, or no memory, seconds.
const RETRY: u64 = 10;

/// `Retry-After` in a drain, when we are about to end, seconds: the process that takes our place may be there already.
const RETRY_ELSEWHERE: u64 = 1;

/// A request's refusal.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// What the client can read.
    pub(crate) text: Cow<'static, str>,
    /// When it is to be answered, if not at once.
    pub(crate) due: Option<Instant>,
    /// Why, for the log and the counters; not all of it is told to the client.
    reason: Reason,
}

/// Why a request is refused, for the log.
#[derive(Debug)]
enum Reason {
    /// As the client is told.
    Text,
    /// We are about to end; the client is told so.
    Draining,
    /// The client's address is none of those that may connect.
    Stranger,
    /// The client has not shown what it must.
    Denied(Denial),
    /// The helper refuses the client.
    Rejected(String),
    /// The helper has not said whether the client is let in.
    Unanswered(String),
    /// The request means no destination.
    Nowhere(Box<NoDestination>),
}

impl Refusal {
    fn new(status: StatusCode, text: impl Into<Cow<'static, str>>) -> Self {
        Self { status, headers: Vec::new(), text: text.into(), due: None, reason: Reason::Text }
    }

    /// To a handshake after the last session that there may be has begun (B8).
    pub(super) fn no_more_sessions() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "no more sessions").closing()
    }

    /// To a handshake when as many sessions are open as may be (L2), because other connections have become sessions meanwhile.
    pub(super) fn full() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "too many sessions: try again")
            .with(RETRY_AFTER, HeaderValue::from(RETRY))
            .closing()
    }

    /// To a handshake that comes when we are about to end (O1): the process that takes our place serves the next.
    pub(super) fn draining() -> Self {
        let text = "shutting down: try again";
        Self { reason: Reason::Draining, ..Self::new(StatusCode::SERVICE_UNAVAILABLE, text) }
            .with(RETRY_AFTER, HeaderValue::from(RETRY_ELSEWHERE))
            .closing()
    }

    /// To a request when other connections use all of the memory budget (L5).
    pub(crate) fn no_memory() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "too much is under way: try again")
            .with(RETRY_AFTER, HeaderValue::from(RETRY))
            .closing()
    }

    /// To a client whose address is none of those that may connect (A4).
    pub(super) fn stranger() -> Self {
        Self { reason: Reason::Stranger, ..Self::new(StatusCode::FORBIDDEN, "forbidden") }
    }

    /// To a client that has as many connections as one may have.
    pub(super) fn one_too_many() -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too many connections")
            .with(RETRY_AFTER, HeaderValue::from(RETRY))
    }

    /// To a client that has not shown what it must (T4). After wrong credentials it is answered late, at `due`, and
    /// must connect again.
    pub(super) fn denied(denial: Denial, due: Option<Instant>) -> Self {
        let refusal = match denial {
            Denial::NoCredentials | Denial::Credentials => {
                let challenge = "Basic realm=\"websockify\", charset=\"UTF-8\"";
                Self::new(StatusCode::UNAUTHORIZED, "not authorized")
                    .with(WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
            }
            Denial::Closed { time } => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "too many wrong passwords")
                    .with(RETRY_AFTER, HeaderValue::from(time.as_secs() + 1))
            }
            Denial::Origin | Denial::Name => Self::new(StatusCode::FORBIDDEN, "forbidden"),
        };
        let refusal = Self { due, reason: Reason::Denied(denial), ..refusal };
        match denial {
            Denial::Credentials | Denial::Closed { .. } => refusal.closing(),
            Denial::NoCredentials | Denial::Origin | Denial::Name => refusal,
        }
    }

    /// To a client that the helper refuses (U9). `why` is for the log; none: the client is only asked for its credentials.
    pub(super) fn rejected(
        status: StatusCode,
        headers: Vec<(HeaderName, HeaderValue)>,
        message: Option<String>,
        why: Option<String>,
    ) -> Self {
        let text = message.map_or_else(
            || status.canonical_reason().unwrap_or("refused").to_lowercase().into(),
            Cow::Owned,
        );
        let reason = why.map_or(Reason::Denied(Denial::NoCredentials), Reason::Rejected);
        Self { headers, reason, ..Self::new(status, text) }
    }

    /// To a client when the helper has not said whether the client is let in (U9).
    pub(super) fn unanswered(why: String) -> Self {
        Self { reason: Reason::Unanswered(why), ..Self::unavailable() }
    }

    fn unavailable() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "not available at present")
    }

    /// The same refusal, as the last answer on its connection.
    pub(crate) fn closing(self) -> Self {
        self.with(CONNECTION, HeaderValue::from_static("close"))
    }

    fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The counter that counts this refusal.
    pub(super) fn counted(&self) -> Refused {
        match &self.reason {
            Reason::Text if self.status == StatusCode::SERVICE_UNAVAILABLE => Refused::SessionLimit,
            Reason::Text if self.status == StatusCode::TOO_MANY_REQUESTS => Refused::ClientLimit,
            Reason::Text => Refused::Handshake,
            Reason::Draining => Refused::Draining,
            Reason::Stranger => Refused::Address,
            Reason::Denied(denial) => match denial {
                Denial::NoCredentials => Refused::NoCredentials,
                Denial::Credentials => Refused::Credentials,
                Denial::Closed { .. } => Refused::Guessing,
                Denial::Origin => Refused::Origin,
                Denial::Name => Refused::CertificateName,
            },
            Reason::Rejected(_) => Refused::Helper,
            Reason::Unanswered(_) => Refused::Unanswered,
            Reason::Nowhere(why) => match **why {
                NoDestination::NoToken => Refused::NoToken,
                NoDestination::UnknownToken => Refused::UnknownToken,
                NoDestination::InvalidToken(_) => Refused::InvalidToken,
                NoDestination::NotAllowed(_) => Refused::TargetNotAllowed,
                NoDestination::Source(_)
                | NoDestination::Unresolved(..)
                | NoDestination::Late(_) => Refused::Unanswered,
            },
        }
    }

    /// Says in the log who was refused what, and why.
    pub(crate) fn log(&self, head: &Parts, peer: &Peer) {
        let (client, port) = (peer.address.client(), peer.address.port());
        let via = peer.via.as_deref().map(display);
        let (status, path) = (self.status.as_u16(), &*redact::head(head));
        match (&self.reason, origin(&head.headers)) {
            (Reason::Text | Reason::Draining, _) => info!(
                target: UNADMITTED, %client, port, via, path, status,
                "refused a handshake: {client}: {} ({status} for {path:?})", self.text
            ),
            (Reason::Stranger, _) => info!(
                target: UNADMITTED, %client, port, via, path, status,
                "refused a client: {client}: none of those who may connect ({status} for {path:?})"
            ),
            // A browser's first request has no credentials: it asks its user only then.
            (Reason::Denied(Denial::NoCredentials), _) => info!(
                target: UNADMITTED, %client, port, via, path, status,
                "asked a client for credentials: {client} ({status} for {path:?})"
            ),
            (Reason::Denied(Denial::Origin), Some(origin)) => {
                let origin = String::from_utf8_lossy(origin);
                let origin = &*redact::text(&origin);
                warn!(
                    target: UNADMITTED, %client, port, via, path, status, origin,
                    "denied a client: {client}: its origin {origin:?} is none that is expected \
                     ({status} for {path:?})"
                );
            }
            (Reason::Denied(denial), _) => warn!(
                target: UNADMITTED, %client, port, via, path, status,
                "denied a client: {client}: {denial} ({status} for {path:?})"
            ),
            (Reason::Rejected(why), _) => warn!(
                target: UNADMITTED, %client, port, via, path, status,
                "denied a client: {client}: the helper says {why:?} ({status} for {path:?})"
            ),
            (Reason::Unanswered(why), _) => warn!(
                target: UNADMITTED, %client, port, via, path, status,
                "refused a client: {client}: cannot ask whether it is let in: {why} \
                 ({status} for {path:?})"
            ),
            (Reason::Nowhere(why), _) if why.is_of_client() => info!(
                target: UNADMITTED, %client, port, via, path, status,
                "refused a handshake: {client}: {why} ({status} for {path:?})"
            ),
            (Reason::Nowhere(why), _) => warn!(
                target: UNADMITTED, %client, port, via, path, status,
                "refused a handshake: {client}: {why} ({status} for {path:?})"
            ),
        }
    }
}

/// To a handshake that has no destination. A missing, an unknown and a forbidden token are answered alike, so that
/// guessing does not tell which tokens there are (K1).
impl From<NoDestination> for Refusal {
    fn from(why: NoDestination) -> Self {
        let refusal = match why {
            NoDestination::NoToken
            | NoDestination::UnknownToken
            | NoDestination::InvalidToken(_)
            | NoDestination::NotAllowed(_) => Self::new(StatusCode::FORBIDDEN, "forbidden"),
            NoDestination::Source(_) | NoDestination::Unresolved(..) | NoDestination::Late(_) => {
                Self::unavailable()
            }
        };
        Self { reason: Reason::Nowhere(Box::new(why)), ..refusal }
    }
}

/// To a head that does not begin a session.
impl From<NoUpgrade> for Refusal {
    fn from(why: NoUpgrade) -> Self {
        match why {
            // RFC 9110, section 15.5.6: the header is due, and its list may be empty.
            NoUpgrade::WebRequest => Self::new(StatusCode::METHOD_NOT_ALLOWED, "WebSocket only")
                .with(ALLOW, HeaderValue::from_static("")),
            NoUpgrade::Version | NoUpgrade::Dropped(_) => {
                Self::new(StatusCode::UPGRADE_REQUIRED, why.to_string())
                    .with(SEC_WEBSOCKET_VERSION, HeaderValue::from_static(VERSIONS))
                    .with(UPGRADE, HeaderValue::from_static("websocket"))
                    .with(CONNECTION, HeaderValue::from_static("Upgrade"))
            }
            // Closed, as the bytes that follow would be taken for the next request, or are part of one that a proxy
            // before us reads differently.
            NoUpgrade::Host | NoUpgrade::Hixie | NoUpgrade::Body => {
                Self::new(StatusCode::BAD_REQUEST, why.to_string()).closing()
            }
            NoUpgrade::NotGet | NoUpgrade::Key => {
                Self::new(StatusCode::BAD_REQUEST, why.to_string())
            }
        }
    }
}
