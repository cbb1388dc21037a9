//! The opening handshakes of the old drafts, draft-hixie-thewebsocketprotocol-75 and -76.
//!
//! Knows heads only. The answers are those of websockify 0.3.0, byte for byte, as the clients of these
//! drafts were used with it.

use ::http::Version;
use ::http::header::{
    CONTENT_LENGTH, HOST, HeaderName, ORIGIN, SEC_WEBSOCKET_PROTOCOL, TRANSFER_ENCODING,
};
use ::http::request::Parts;
use md5::{Digest, Md5};

use super::hixie::Draft;
use super::upgrade::{Upgrade, asks_for_websocket, has_body, is_hixie, path_of, single};
use super::{BASE64, Framing};

const KEY1: HeaderName = HeaderName::from_static("sec-websocket-key1");
const KEY2: HeaderName = HeaderName::from_static("sec-websocket-key2");
const OLD_PROTOCOL: HeaderName = HeaderName::from_static("websocket-protocol");

/// The bytes behind the head of a -76 handshake, which no header announces.
pub(crate) const KEY3: usize = 8;

/// The scheme of the session's URL, which the answer repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// Not encrypted.
    Ws,
    /// Over TLS.
    Wss,
}

/// An old handshake that can be answered with 101.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Challenge {
    pub(crate) upgrade: Upgrade,
    /// The answer, without the digest.
    head: Vec<u8>,
    /// The numbers of a -76 handshake.
    numbers: Option<[u32; 2]>,
}

impl Challenge {
    /// Reads a request head. `None`: it is no handshake of these drafts, or not a good one.
    pub(crate) fn from_head(head: &Parts, scheme: Scheme) -> Option<Self> {
        let headers = &head.headers;
        if !asks_for_websocket(headers) || !is_hixie(head) || head.version != Version::HTTP_11 {
            return None;
        }
        let (draft, version, prefix, numbers) = match (single(headers, KEY1), single(headers, KEY2))
        {
            (None, None) if has_body(headers) => return None,
            (None, None) => (Draft::Hixie75, "hixie-75", "", None),
            // Some proxies announce the eight bytes behind a -76 head; no other body may be announced.
            (Some(_), Some(_))
                if has_body(headers)
                    && (headers.contains_key(TRANSFER_ENCODING)
                        || single(headers, CONTENT_LENGTH) != Some(b"8")) =>
            {
                return None;
            }
            (Some(first), Some(second)) => {
                let numbers = [number(first)?, number(second)?];
                (Draft::Hixie76, "hixie-76", "Sec-", Some(numbers))
            }
            _ => return None,
        };
        let offered = [SEC_WEBSOCKET_PROTOCOL, OLD_PROTOCOL]
            .into_iter()
            .find_map(|name| single(headers, name));
        // One name, not a list. Another name is not confirmed, but not refused either: the payload is base64 anyway.
        let protocol = offered.filter(|name| *name == BASE64.as_bytes()).map(|_| BASE64);
        let path = path_of(&head.uri).into_owned();
        let answer = Answer {
            prefix,
            origin: single(headers, ORIGIN)?,
            scheme: if scheme == Scheme::Ws { "ws" } else { "wss" },
            host: single(headers, HOST)?,
            path: &path,
            protocol,
        };
        let head = answer.format();
        let framing = Framing::Hixie(draft);
        Some(Self {
            upgrade: Upgrade { version, accept: None, protocol, path, framing },
            head,
            numbers,
        })
    }

    /// How many bytes behind the client's head the answer is made from.
    pub(crate) fn key_length(&self) -> usize {
        if self.numbers.is_some() { KEY3 } else { 0 }
    }

    /// The answer to a client whose head was followed by `key`, of [`key_length`](Self::key_length).
    pub(crate) fn answer(&self, key: &[u8]) -> Vec<u8> {
        let mut answer = self.head.clone();
        if let Some([first, second]) = self.numbers {
            let digest = Md5::new().chain_update(first.to_be_bytes());
            let digest = digest.chain_update(second.to_be_bytes()).chain_update(key);
            answer.extend_from_slice(&digest.finalize());
        }
        answer
    }
}

/// The values that the answer has.
struct Answer<'a> {
    prefix: &'a str,
    origin: &'a [u8],
    scheme: &'a str,
    host: &'a [u8],
    path: &'a str,
    protocol: Option<&'a str>,
}

impl Answer<'_> {
    /// With the headers in the order of websockify 0.3.0: some old clients were known to depend on it.
    fn format(&self) -> Vec<u8> {
        let Self { prefix, origin, scheme, host, path, protocol } = *self;
        let mut head = b"HTTP/1.1 101 Web Socket Protocol Handshake\r\n\
            Upgrade: WebSocket\r\nConnection: Upgrade\r\n"
            .to_vec();
        let mut line = |name: &str, parts: &[&[u8]]| {
            for part in [prefix.as_bytes(), name.as_bytes(), b": "] {
                head.extend_from_slice(part);
            }
            for part in parts.iter().chain(&[&b"\r\n"[..]]) {
                head.extend_from_slice(part);
            }
        };
        line("WebSocket-Origin", &[origin]);
        line("WebSocket-Location", &[scheme.as_bytes(), b"://", host, path.as_bytes()]);
        if let Some(protocol) = protocol {
            line("WebSocket-Protocol", &[protocol.as_bytes()]);
        }
        head.extend_from_slice(b"\r\n");
        head
    }
}

/// The number in a key: its digits, divided by its spaces (-76, section 5.2).
fn number(key: &[u8]) -> Option<u32> {
    let spaces = key.iter().map(|byte| u64::from(*byte == b' ')).sum();
    let mut digits = key.iter().filter(|byte| byte.is_ascii_digit());
    let number = digits.try_fold(0_u64, |number, digit| {
        number.checked_mul(10)?.checked_add(u64::from(digit - b'0'))
    })?;
    let is_whole = number.checked_rem(spaces) == Some(0);
    is_whole.then(|| u32::try_from(number / spaces).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::http::Request;

    /// The handshake of draft -76, section 1.2.
    const HIXIE_76: [(&str, &str); 7] = [
        ("Host", "example.com"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key2", "12998 5 Y3 1  .P00"),
        ("Sec-WebSocket-Protocol", "base64"),
        ("Upgrade", "WebSocket"),
        ("Sec-WebSocket-Key1", "4 @1  46546xW%0l 1 5"),
        ("Origin", "http://example.com"),
    ];

    fn challenge(headers: &[(&str, &str)], scheme: Scheme) -> Option<Challenge> {
        let mut request = Request::get("/demo?x=1");
        for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
            request = request.header(*name, *value);
        }
        Challenge::from_head(&request.body(()).unwrap().into_parts().0, scheme)
    }

    /// The good head with some headers replaced; an empty value leaves one out.
    fn with(changed: &[(&str, &str)]) -> Option<Challenge> {
        let kept =
            HIXIE_76.iter().filter(|(name, _)| changed.iter().all(|(other, _)| other != name));
        challenge(&kept.chain(changed).copied().collect::<Vec<_>>(), Scheme::Ws)
    }

    #[test]
    fn b2_the_handshake_of_draft_76_is_answered_as_0_3_0_does() {
        let challenge = challenge(&HIXIE_76, Scheme::Ws).unwrap();
        assert_eq!((challenge.upgrade.version, challenge.key_length()), ("hixie-76", 8));
        assert_eq!(
            String::from_utf8(challenge.answer(b"^n:ds[4U")).unwrap(),
            "HTTP/1.1 101 Web Socket Protocol Handshake\r\n\
             Upgrade: WebSocket\r\n\
             Connection: Upgrade\r\n\
             Sec-WebSocket-Origin: http://example.com\r\n\
             Sec-WebSocket-Location: ws://example.com/demo?x=1\r\n\
             Sec-WebSocket-Protocol: base64\r\n\
             \r\n\
             8jKS'y:G*Co,Wxa-"
        );
    }

    #[test]
    fn b2_no_body_may_be_announced_but_the_eight_bytes_of_draft_76() {
        assert!(with(&[("Content-Length", "8")]).is_some());
        assert!(with(&[("Content-Length", "9")]).is_none());
        assert!(with(&[("Content-Length", "8"), ("Transfer-Encoding", "chunked")]).is_none());
        let without_keys = [("Sec-WebSocket-Key1", ""), ("Sec-WebSocket-Key2", "")];
        assert!(with(&without_keys).is_some());
        assert!(with(&[without_keys[0], without_keys[1], ("Content-Length", "8")]).is_none());
    }

    #[test]
    fn b2_without_keys_it_is_draft_75() {
        let headers = [
            ("Upgrade", "WebSocket"),
            ("Connection", "Upgrade"),
            ("Host", "example.com:81"),
            ("Origin", "http://example.com"),
            ("WebSocket-Protocol", "sample"),
        ];
        let challenge = challenge(&headers, Scheme::Wss).unwrap();
        assert_eq!((challenge.upgrade.version, challenge.key_length()), ("hixie-75", 0));
        assert_eq!(
            String::from_utf8(challenge.answer(b"")).unwrap(),
            "HTTP/1.1 101 Web Socket Protocol Handshake\r\n\
             Upgrade: WebSocket\r\n\
             Connection: Upgrade\r\n\
             WebSocket-Origin: http://example.com\r\n\
             WebSocket-Location: wss://example.com:81/demo?x=1\r\n\
             \r\n"
        );
    }

    #[test]
    fn b2_base64_is_the_only_sub_protocol_and_no_list() {
        let name = "Sec-WebSocket-Protocol";
        for (offered, taken) in
            [("base64", Some("base64")), ("binary", None), ("chat, base64", None), ("", None)]
        {
            assert_eq!(with(&[(name, offered)]).unwrap().upgrade.protocol, taken, "{offered}");
        }
        let old = with(&[(name, ""), ("WebSocket-Protocol", "base64")]).unwrap();
        assert_eq!(old.upgrade.protocol, Some("base64"));
    }

    #[test]
    fn b2_heads_that_lack_something_or_are_newer() {
        for changed in [
            ("Origin", ""),
            ("Host", ""),
            ("Upgrade", ""),
            ("Connection", ""),
            ("Sec-WebSocket-Key1", ""),
            ("Sec-WebSocket-Key2", ""),
            ("Sec-WebSocket-Key1", "12345"),
            ("Sec-WebSocket-Key1", "1 2 5"),
            ("Sec-WebSocket-Key1", "99999999999 "),
            ("Sec-WebSocket-Key1", "9999999999 9999999999 9999999999"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ] {
            assert_eq!(with(&[changed]), None, "{changed:?}");
        }
    }
}
