//! The opening handshake: from a request head to an [`Upgrade`], or the reason why not.
//!
//! RFC 6455, section 4.2. Knows heads only; the replies are made in [`crate::http`].

use std::borrow::Cow;

use ::http::Method;
use ::http::header::{
    AsHeaderName, CONNECTION, CONTENT_LENGTH, HeaderMap, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE,
};
use ::http::request::Parts;
use ::http::uri::{PathAndQuery, Uri};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::{BASE64, BINARY, Codec, Framing};

/// The protocol versions we speak, as `Sec-WebSocket-Version` lists them.
pub(crate) const VERSIONS: &str = "13, 8, 7";

/// A handshake that can be answered with 101.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Upgrade {
    /// The protocol version, as the client wrote it.
    pub(crate) version: &'static str,
    /// The value of `Sec-WebSocket-Accept`; `None` in the old drafts, which have no such header.
    pub(crate) accept: Option<String>,
    /// The sub-protocol to confirm, if one was offered that we know.
    pub(crate) protocol: Option<&'static str>,
    /// The request's path and query.
    pub(crate) path: String,
    pub(crate) framing: Framing,
}

/// Why a head is not answered with 101.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoUpgrade {
    /// An ordinary web request.
    #[error("no WebSocket handshake")]
    WebRequest,
    /// No `Host`, or several, or a value that is no host.
    #[error("missing or invalid Host")]
    Host,
    /// A handshake without these headers, which have meaning for the next hop only (RFC 9110, section
    /// 7.6.1): a proxy has to make them anew.
    #[error("a proxy before us dropped {0} from this WebSocket handshake")]
    Dropped(&'static str),
    /// A handshake by another method than GET.
    #[error("a WebSocket handshake is a GET")]
    NotGet,
    /// An old handshake, which is served as a connection's first request only, or a bad one.
    #[error("invalid Hixie handshake, or not the first request of its connection")]
    Hixie,
    /// A handshake that announces a body, which would be taken for frames.
    #[error("a WebSocket handshake has no body")]
    Body,
    /// A version that we do not speak, or none.
    #[error("unsupported WebSocket version")]
    Version,
    /// No key, or several. Its value is not checked.
    #[error("there must be one Sec-WebSocket-Key")]
    Key,
}

impl Upgrade {
    /// Reads a request head.
    pub(crate) fn from_head(head: &Parts) -> Result<Self, NoUpgrade> {
        let headers = &head.headers;
        if !asks_for_websocket(headers) {
            return Err(without_upgrade(headers));
        }
        if is_hixie(head) {
            return Err(NoUpgrade::Hixie);
        }
        // HTTP/1.0 is accepted, too: nginx passes handshakes on so, unless it is configured otherwise.
        if head.method != Method::GET {
            return Err(NoUpgrade::NotGet);
        }
        if has_body(headers) {
            return Err(NoUpgrade::Body);
        }
        let version = match single(headers, SEC_WEBSOCKET_VERSION) {
            Some(b"13") => "13",
            Some(b"8") => "8",
            Some(b"7") => "7",
            _ => return Err(NoUpgrade::Version),
        };
        let key = single(headers, SEC_WEBSOCKET_KEY).filter(|key| !key.is_empty());
        let protocol = [BINARY, BASE64]
            .into_iter()
            .find(|known| tokens(headers, SEC_WEBSOCKET_PROTOCOL).any(|t| t == *known));
        Ok(Self {
            version,
            accept: Some(derive_accept_key(key.ok_or(NoUpgrade::Key)?)),
            protocol,
            path: path_of(&head.uri).into_owned(),
            framing: if protocol == Some(BASE64) { Framing::Base64 } else { Framing::Binary },
        })
    }

    /// Confirms the first of these sub-protocols that the client offers, before any of ours (U10). Its frames are
    /// binary.
    pub(crate) fn prefer(&mut self, further: &[&'static str], headers: &HeaderMap) {
        let is_offered =
            |name: &&&'static str| tokens(headers, SEC_WEBSOCKET_PROTOCOL).any(|t| t == **name);
        if let Some(name) = further.iter().find(is_offered).copied() {
            (self.protocol, self.framing) = (Some(name), Framing::Binary);
        }
    }

    /// The framing of the session that follows the 101.
    pub(crate) fn codec(&self) -> Codec {
        Codec::new(self.framing)
    }
}

/// Whether the client wants a session, of whatever version.
pub(super) fn asks_for_websocket(headers: &HeaderMap) -> bool {
    lists(headers, UPGRADE, "websocket") && lists(headers, CONNECTION, "upgrade")
}

/// Why a request that does not ask for an upgrade gets none: it is a web request, or a proxy has dropped headers.
fn without_upgrade(headers: &HeaderMap) -> NoUpgrade {
    // No web request has these two headers, and no browser sends them without `Upgrade` and `Connection`.
    if ![SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION].iter().all(|name| headers.contains_key(name)) {
        return NoUpgrade::WebRequest;
    }
    NoUpgrade::Dropped(
        match (lists(headers, UPGRADE, "websocket"), lists(headers, CONNECTION, "upgrade")) {
            (false, true) => "`Upgrade: websocket`",
            (true, _) => "`Connection: upgrade`",
            (false, false) => "`Upgrade: websocket` and `Connection: upgrade`",
        },
    )
}

/// Whether a handshake is of the drafts before HyBi, which had neither version nor key.
pub(super) fn is_hixie(head: &Parts) -> bool {
    let newer = [SEC_WEBSOCKET_VERSION, SEC_WEBSOCKET_KEY];
    head.method == Method::GET && newer.iter().all(|name| !head.headers.contains_key(name))
}

/// The elements of a comma-separated header that may come in several lines.
fn tokens(headers: &HeaderMap, name: impl AsHeaderName) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim)
}

fn lists(headers: &HeaderMap, name: impl AsHeaderName, token: &str) -> bool {
    tokens(headers, name).any(|listed| listed.eq_ignore_ascii_case(token))
}

/// Whether a request has a body (RFC 9112, section 6.3).
pub(super) fn has_body(headers: &HeaderMap) -> bool {
    let is_none = |length: &str| length.parse() == Ok(0_u64);
    headers.contains_key(TRANSFER_ENCODING) || !tokens(headers, CONTENT_LENGTH).all(is_none)
}

/// The value of a header that must come exactly once.
pub(crate) fn single(headers: &HeaderMap, name: impl AsHeaderName) -> Option<&[u8]> {
    let mut lines = headers.get_all(name).into_iter();
    let value = lines.next()?;
    lines.next().is_none().then_some(value.as_bytes().trim_ascii())
}

/// The request's path and query. A URL without a path has the path `/` (RFC 9112, section 3.2.1).
pub(crate) fn path_of(uri: &Uri) -> Cow<'_, str> {
    match uri.path_and_query().map_or("/", PathAndQuery::as_str) {
        query if query.starts_with('?') => format!("/{query}").into(),
        path => path.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::http::Request;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
    const GOOD: [(&str, &str); 4] = [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", KEY),
    ];

    fn head(headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::get("/websockify?token=1");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    /// The good head with some headers replaced; an empty value leaves one out.
    fn with(changed: &[(&str, &str)]) -> Result<Upgrade, NoUpgrade> {
        let kept = GOOD.iter().filter(|(name, _)| changed.iter().all(|(other, _)| other != name));
        let added = changed.iter().filter(|(_, value)| !value.is_empty());
        Upgrade::from_head(&head(&kept.chain(added).copied().collect::<Vec<_>>()))
    }

    #[test]
    fn b1_a_good_head_is_accepted_with_the_key_of_the_rfc() {
        let upgrade = with(&[]).unwrap();
        assert_eq!(upgrade.accept.as_deref(), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert_eq!((upgrade.version, upgrade.protocol), ("13", None));
        assert_eq!(upgrade.path, "/websockify?token=1");
    }

    #[test]
    fn b1_a_path_begins_with_a_slash() {
        for (target, path) in [
            ("/a?token=1", "/a?token=1"),
            ("http://h/a?token=1", "/a?token=1"),
            ("http://h?token=1", "/?token=1"),
            ("http://h", "/"),
        ] {
            assert_eq!(path_of(&target.parse().unwrap()), path, "{target}");
        }
    }

    #[test]
    fn b1_connection_and_upgrade_are_lists_without_case() {
        assert!(with(&[("Connection", "keep-alive, UPGRADE"), ("Upgrade", "WebSocket")]).is_ok());
        assert!(with(&[("Connection", "keep-alive"), ("Connection", "upgrade")]).is_ok());
        for (name, value) in
            [("Connection", "keep-alive"), ("Connection", ""), ("Upgrade", "h2c"), ("Upgrade", "")]
        {
            let Err(NoUpgrade::Dropped(what)) = with(&[(name, value)]) else {
                panic!("{name}: {value}")
            };
            assert!(what.starts_with(&format!("`{name}: ")), "{name}: {value}: {what}");
        }
    }

    #[test]
    fn u10_a_further_sub_protocol_comes_before_ours_if_it_is_offered() {
        for (offered, taken) in [
            ("base64, xmpp, mqtt", Some("mqtt")),
            ("xmpp", Some("xmpp")),
            ("binary, mqtt2", Some("binary")),
            ("base64", Some("base64")),
            ("chat", None),
        ] {
            let head = head(&[&GOOD[..], &[("Sec-WebSocket-Protocol", offered)]].concat());
            let mut upgrade = Upgrade::from_head(&head).unwrap();
            upgrade.prefer(&["mqtt", "xmpp"], &head.headers);
            assert_eq!(upgrade.protocol, taken, "{offered}");
            let is_base64 = upgrade.framing == Framing::Base64;
            assert_eq!(is_base64, taken == Some("base64"), "{offered}");
        }
    }

    #[test]
    fn f24_a_handshake_without_upgrade_is_told_that_a_proxy_dropped_it() {
        let both = [("Upgrade", ""), ("Connection", "")];
        let Err(NoUpgrade::Dropped(what)) = with(&both) else { panic!() };
        assert!(what.contains("Upgrade: ") && what.contains("Connection: "));
        for (name, _) in [GOOD[2], GOOD[3]] {
            assert_eq!(with(&[both[0], both[1], (name, "")]), Err(NoUpgrade::WebRequest), "{name}");
        }
    }

    #[test]
    fn b1_versions_7_8_and_13_and_no_other() {
        for version in ["7", "8", "13"] {
            let name = "Sec-WebSocket-Version";
            assert_eq!(with(&[(name, version)]).unwrap().version, version);
        }
        for version in ["", "0", "6", "12", "14", "13, 8", "x"] {
            assert_eq!(with(&[("Sec-WebSocket-Version", version)]), Err(NoUpgrade::Version));
        }
    }

    #[test]
    fn f22_any_key_is_answered_if_there_is_one() {
        for (key, accept) in [
            // Made by `openssl dgst -sha1 -binary | base64` from the key and the GUID of RFC 6455.
            ("x", "JVxkmtKFjDcI/Pm/AGPEKSN6wT8="),
            ("SGVsbG8sIHdvcmxkIQ==", "qGEgH3En71di5rrssAZTmtRTyFk="),
            ("!!! any \u{e9} !!!", "lz8xYIfDJnzHQ1vpDF8LAw+av1A="),
        ] {
            let upgrade = with(&[("Sec-WebSocket-Key", key)]).unwrap();
            assert_eq!(upgrade.accept.as_deref(), Some(accept), "{key}");
        }
        for none in ["", " "] {
            assert_eq!(with(&[("Sec-WebSocket-Key", none)]), Err(NoUpgrade::Key), "{none:?}");
        }
        let twice = [("Sec-WebSocket-Key", KEY), ("Sec-WebSocket-Key", KEY)];
        assert_eq!(with(&twice), Err(NoUpgrade::Key));
    }

    #[test]
    fn b1_binary_is_chosen_wherever_it_is_offered() {
        let name = "Sec-WebSocket-Protocol";
        assert_eq!(with(&[(name, "binary")]).unwrap().protocol, Some("binary"));
        assert_eq!(with(&[(name, "chat, binary")]).unwrap().protocol, Some("binary"));
        assert_eq!(with(&[(name, "chat"), (name, "binary")]).unwrap().protocol, Some("binary"));
        assert_eq!(with(&[(name, "base64, binary")]).unwrap().protocol, Some("binary"));
        assert_eq!(with(&[(name, "base64, chat")]).unwrap().protocol, Some("base64"));
        assert_eq!(with(&[(name, "chat")]).unwrap().protocol, None);
        assert_eq!(with(&[(name, "binarybinary")]).unwrap().protocol, None);
    }

    #[test]
    fn b1_a_handshake_has_no_body() {
        for (name, value, expected) in [
            ("Content-Length", "0", None),
            ("Content-Length", "1", Some(NoUpgrade::Body)),
            ("Content-Length", "99999999999999999999", Some(NoUpgrade::Body)),
            ("Content-Length", "x", Some(NoUpgrade::Body)),
            ("Transfer-Encoding", "chunked", Some(NoUpgrade::Body)),
            ("Transfer-Encoding", "identity", Some(NoUpgrade::Body)),
        ] {
            assert_eq!(with(&[(name, value)]).err(), expected, "{name}: {value}");
        }
    }

    #[test]
    fn b1_f21_a_handshake_is_a_get_in_http_1_1_or_1_0() {
        let mut post = head(&GOOD);
        post.method = Method::POST;
        assert_eq!(Upgrade::from_head(&post), Err(NoUpgrade::NotGet));
        let mut old = head(&GOOD);
        old.version = ::http::Version::HTTP_10;
        assert_eq!(Upgrade::from_head(&old), with(&[]));
    }
}
