//! The answers that are made here and not by hyper, which itself answers malformed heads (400) and
//! those that are too large (431).

use ::http::header::{
    ALLOW, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER, SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE, WWW_AUTHENTICATE,
};
use ::http::{Response, StatusCode};
use bytes::Bytes;
use http_body_util::{Either, Full};
use tower_http::services::fs::ServeFileSystemResponseBody;

use crate::admission::auth::Denial;
use crate::ws::{Refusal, Upgrade, VERSIONS};

/// Bytes at hand, or those of a file.
pub(crate) type Body = Either<Full<Bytes>, ServeFileSystemResponseBody>;

pub(crate) type Reply = Response<Body>;

/// 101: what follows is WebSocket. No extension is ever negotiated.
pub(crate) fn switching(upgrade: &Upgrade) -> Reply {
    let mut reply = Response::new(Either::Left(Full::default()));
    *reply.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = reply.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    if let Some(accept) = &upgrade.accept {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept.parse().expect("base64 is a header value"));
    }
    if let Some(protocol) = upgrade.protocol {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    }
    reply
}

/// The answer to a head that does not begin a session.
pub(crate) fn refusal(refusal: Refusal) -> Reply {
    match refusal {
        Refusal::WebRequest => {
            let mut reply = plain(StatusCode::METHOD_NOT_ALLOWED, "WebSocket only");
            // RFC 9110, section 15.5.6: the header is due, and its list may be empty.
            reply.headers_mut().insert(ALLOW, HeaderValue::from_static(""));
            reply
        }
        Refusal::Version | Refusal::Dropped(_) => {
            let mut reply = plain(StatusCode::UPGRADE_REQUIRED, &refusal.to_string());
            let headers = reply.headers_mut();
            headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static(VERSIONS));
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
            reply
        }
        Refusal::Host | Refusal::Hixie | Refusal::Body => {
            let mut reply = plain(StatusCode::BAD_REQUEST, &refusal.to_string());
            // The bytes that follow would be taken for the next request, or are of one that somebody
            // before us takes for another.
            reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            reply
        }
        Refusal::Request | Refusal::Key => plain(StatusCode::BAD_REQUEST, &refusal.to_string()),
    }
}

/// The answer to a client that has not shown what it must (T4). Whoever has guessed has to come again.
pub(super) fn denied(denial: Denial, is_last: bool) -> Reply {
    let mut reply = match denial {
        Denial::NoCredentials | Denial::Credentials => {
            let mut reply = plain(StatusCode::UNAUTHORIZED, "not authorized");
            let challenge =
                HeaderValue::from_static("Basic realm=\"websockify\", charset=\"UTF-8\"");
            reply.headers_mut().insert(WWW_AUTHENTICATE, challenge);
            reply
        }
        Denial::Closed { time } => {
            let mut reply = plain(StatusCode::TOO_MANY_REQUESTS, "too many wrong passwords");
            reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from(time.as_secs() + 1));
            reply
        }
        Denial::Origin | Denial::Name => plain(StatusCode::FORBIDDEN, "forbidden"),
    };
    if is_last || matches!(denial, Denial::Credentials | Denial::Closed { .. }) {
        reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    reply
}

/// The answer to a handshake that comes too late (B8).
pub(super) fn no_more_sessions() -> Reply {
    let mut reply = plain(StatusCode::SERVICE_UNAVAILABLE, "no more sessions");
    reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    reply
}

/// The answer to who asks which methods there are (RFC 9110, section 9.3.7).
pub(super) fn options(allowed: &'static str) -> Reply {
    let mut reply = Response::new(Either::Left(Full::default()));
    *reply.status_mut() = StatusCode::NO_CONTENT;
    reply.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    reply
}

/// The answer to a method that files do not have.
pub(super) fn method_not_allowed(allowed: &'static str) -> Reply {
    let mut reply = plain(StatusCode::METHOD_NOT_ALLOWED, "method not allowed");
    reply.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    reply
}

/// One line of text.
pub(super) fn plain(status: StatusCode, text: &str) -> Reply {
    let mut reply = Response::new(Either::Left(Full::from(format!("{text}\n"))));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    reply
}
