//! Request heads: where they end, what they ask for, and what they are answered.

use std::ffi::OsStr;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Component, Path};

use ::http::header::{HeaderValue, SEC_WEBSOCKET_VERSION};
use ::http::request::Parts;
use httparse::{EMPTY_HEADER, Request, Response};

use crate::admission::Refusal;
use crate::admission::auth::{Auth, Credentials};
use crate::http::first::{METHOD_MAX, end, end_of_head, may_be_head, parse};
use crate::http::reply;
use crate::http::url_path::{UrlPath, reference};
use crate::peer::Peer;
use crate::ws::{Challenge, Scheme, Upgrade};

const ROOT: &str = "/served";
/// `user:password`, `user:password` in base64.
const CREDENTIALS: (&str, &[u8]) = ("user:password", b"dXNlcjpwYXNzd29yZA==");
const ORIGIN: &str = "https://page.example";

/// The bytes are a head and what follows it.
pub fn head(bytes: &[u8]) {
    first(bytes);
    let end_of_first = end_of_head(bytes, 0);
    assert_eq!(end_of_first, end_by_lines(bytes));
    let length = end_of_first.unwrap_or(bytes.len());
    for known in (0..length.min(64)).chain((0..length).step_by(1 + length / 64)) {
        // Wherever reading paused before the end, the end is found in the same place.
        assert_eq!(end_of_head(bytes, known), end_of_first);
    }
    // Nothing less is enough.
    assert_eq!(end_of_head(&bytes[..length.saturating_sub(1)], 0), None);
    let Some(end) = end_of_first else { return };
    let Some(head) = parse(&bytes[..end]) else { return };
    for scheme in [Scheme::Ws, Scheme::Wss] {
        if let Some(challenge) = Challenge::from_head(&head, scheme) {
            old_handshake(&challenge);
        }
    }
    match Upgrade::from_head(&head) {
        Ok(upgrade) => handshake(&upgrade),
        Err(why) => assert!(!Refusal::from(why).status.is_success()),
    }
    authentication(&head, &bytes[..end]);
    url_path(head.uri.path());
}

/// Where the first empty line ends that has a line before it.
fn end_by_lines(bytes: &[u8]) -> Option<usize> {
    let mut length = 0;
    for (number, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        length += line.len();
        if number > 0 && matches!(line, b"\n" | b"\r\n") {
            return Some(length);
        }
    }
    None
}

/// A head that is whole for httparse, and so for hyper, is whole for us, too, with the same bytes, unless its method or the blank
/// before it is longer than we take. Bytes that cannot begin a head for us are none for httparse, even with a request behind
/// them, but for the same reason.
fn first(bytes: &[u8]) {
    if let Some((length, is_long)) = whole(bytes) {
        assert_eq!(may_be_head(bytes), !is_long);
        assert!(end(&bytes[..length], 0).is_some());
    }
    if !may_be_head(bytes) {
        let more = whole(&[bytes, b"GET / HTTP/1.1\r\n\r\n"].concat());
        assert!(more.is_none_or(|(_, is_long)| is_long));
    }
}

/// Where httparse has a head end, and whether that begins with more than we take.
fn whole(bytes: &[u8]) -> Option<(usize, bool)> {
    let mut headers = [EMPTY_HEADER; 100];
    let mut head = Request::new(&mut headers);
    let Ok(httparse::Status::Complete(length)) = head.parse(bytes) else { return None };
    let method = head.method.expect("a whole head has one");
    let blank = bytes.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
    Some((length, method.len() > METHOD_MAX || blank > METHOD_MAX))
}

fn old_handshake(challenge: &Challenge) {
    let answer = challenge.answer(&b"12345678"[..challenge.key_length()]);
    let mut headers = [EMPTY_HEADER; 8];
    let mut response = Response::new(&mut headers);
    let length = response.parse(&answer).expect("the answer is a head").unwrap();
    assert_eq!((response.code, answer.len() - length), (Some(101), 2 * challenge.key_length()));
    // Nothing that the client sent has become a header of its own.
    assert_eq!(response.headers.len(), 4 + usize::from(challenge.upgrade.protocol.is_some()));
    path(&challenge.upgrade.path);
}

fn handshake(upgrade: &Upgrade) {
    let reply = reply::switching(upgrade);
    assert_eq!(reply.status(), 101);
    assert_eq!(reply.headers().len(), 3 + usize::from(upgrade.protocol.is_some()));
    path(&upgrade.path);
}

fn path(path: &str) {
    assert!(path.starts_with(['/', '*']), "{path}");
}

/// A client that is let in has sent what is asked for.
fn authentication(head: &Parts, bytes: &[u8]) {
    let names = vec!["Jane".to_owned()];
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1)).into();
    let peer = Peer { certificate: Some("Joe".into()), ..Peer::new(address) };
    for (auth, shown) in [
        (Auth::Basic(Credentials::new(CREDENTIALS.0)), CREDENTIALS.1),
        (Auth::Origin(vec![ORIGIN.to_owned()]), ORIGIN.as_bytes()),
        (Auth::ClientCertCn(names), b"in no head"),
    ] {
        let admitted = [None, Some("13"), Some("8")].into_iter().any(|version| {
            let mut headers = head.headers.clone();
            if let Some(version) = version {
                headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static(version));
            }
            auth.check(&headers, &peer, || None).is_ok()
        });
        let has_shown = bytes.windows(shown.len()).any(|part| part == shown);
        assert!(!admitted || has_shown && shown != b"in no head");
    }
}

/// No path leads out of the directory.
fn url_path(path: &str) {
    let Some(url_path) = UrlPath::parse(path) else { return };
    let below = url_path.below(Path::new(ROOT));
    let inside = below.strip_prefix(ROOT).expect("below the directory");
    assert!(inside.components().all(|part| matches!(part, Component::Normal(_))));
    assert!(!below.as_os_str().as_encoded_bytes().contains(&0));
    assert!(url_path.text().starts_with('/'));
    let name = url_path.name().unwrap_or(OsStr::new("x"));
    let target = reference(name);
    let again = UrlPath::parse(&target["./".len()..]).expect("a reference is a name");
    assert_eq!(again.name(), Some(name), "{target}");
}
