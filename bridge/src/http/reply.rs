//! The answers that are made here and not by hyper, which itself answers malformed heads (400) and
//! those that are too large (431).

use ::http::header::{
    ALLOW, CONNECTION, CONTENT_TYPE, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_PROTOCOL,
    UPGRADE,
};
use ::http::{Response, StatusCode};
use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::body::Body as _;
use tower_http::services::fs::ServeFileSystemResponseBody;

use crate::admission::Refusal;
use crate::ws::Upgrade;

/// Bytes at hand, or those of a file.
pub(crate) type Body = Either<Full<Bytes>, ServeFileSystemResponseBody>;

pub(crate) type Reply = Response<Body>;

/// How many bytes of a body are in memory as a whole. Those of a file are read piece by piece.
pub(super) fn at_hand(body: &Body) -> usize {
    match body {
        Either::Left(bytes) => usize::try_from(bytes.size_hint().lower()).unwrap_or(usize::MAX),
        Either::Right(_) => 0,
    }
}

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

/// The answer to a request that is refused.
pub(super) fn refusal(refusal: Refusal) -> Reply {
    let mut reply = plain(refusal.status, &refusal.text);
    let headers = reply.headers_mut();
    for (name, _) in &refusal.headers {
        headers.remove(name);
    }
    // There may be several challenges, for the client to choose from.
    for (name, value) in refusal.headers {
        if !headers.get_all(&name).iter().any(|known| *known == value) {
            headers.append(name, value);
        }
    }
    reply
}

/// The answer to a request for the allowed methods (RFC 9110, section 9.3.7).
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
