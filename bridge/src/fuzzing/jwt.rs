//! JSON Web Tokens that no key has signed, keys of any text, and any headers and claims in genuine tokens, which are compared
//! with what another reader makes of them.

use std::collections::HashMap;
use std::time::Duration;

use aws_lc_rs::hmac;
use data_encoding::BASE64URL_NOPAD;
use serde_json::Value;

use super::target;
use crate::destination::Endpoint;
use crate::directory::jwt::{Key, read};

const SECRET: [u8; 32] = [7; 32];

const NOW: Duration = Duration::from_secs(2_000_000_000);

/// A JSON object.
type Object = HashMap<String, Value>;

/// The bytes are a token, the contents of a key file, claims, and a header.
pub fn jwt(bytes: &[u8]) {
    let secret = Key::Secret(SECRET.into());
    if let Ok(token) = std::str::from_utf8(bytes) {
        assert!(read(token, &secret, NOW).is_err(), "nobody has signed {token:?}");
    }
    if let Ok(key) = Key::read(bytes) {
        for token in [signed(b"{}"), "e30..AA.AA.AA".into()] {
            assert!(read(&token, &key, NOW).is_err(), "{key:?}");
        }
    }
    let token = signed(bytes);
    let found = read(&token, &secret, NOW);
    assert!(found != Err("its signature is not the key's"), "it is");
    same(&token, found.as_ref().ok().map(|claims| (&claims.endpoint, claims.left)));
    header(bytes, &secret);
    if let Ok(endpoint) = found.map(|claims| claims.endpoint) {
        let other = Key::Secret(vec![8; 32]);
        assert!(read(&token, &other, NOW).is_err(), "{endpoint} with another key");
        let again = format!("{token}A");
        assert!(read(&again, &secret, NOW).is_err(), "{endpoint} with another signature");
    }
}

/// What is taken of a token's claims is what another reader takes.
fn same(token: &str, ours: Option<(&Endpoint, Option<Duration>)>) {
    let expected = read_at_once(token);
    assert_eq!(ours.map(|ours| ours.0), expected.as_ref().map(|expected| &expected.0), "{token}");
    let (Some((_, left)), Some((_, expires))) = (ours, expected) else { return };
    let seconds = expires.map(|expires| expires - NOW.as_secs_f64());
    match (left, seconds) {
        (Some(left), Some(seconds)) => {
            assert!((left.as_secs_f64() - seconds).abs() <= seconds * 1e-9 + 1e-9, "{left:?}");
        }
        // Longer than a `Duration` can be.
        (None, Some(seconds)) => assert!(seconds > 1e19, "{seconds}"),
        (left, None) => assert_eq!(left, None),
    }
}

/// Where a signed token leads, and when it expires (RFC 7519, section 4.1). `None`: it is not to be taken now.
fn read_at_once(token: &str) -> Option<(Endpoint, Option<f64>)> {
    let claims = BASE64URL_NOPAD.decode(token.split('.').nth(1)?.as_bytes()).ok()?;
    let claims: Object = serde_json::from_slice(&claims).ok()?;
    // Only a number is written as Rust reads numbers.
    let time = |name| claims.get(name).map(|time| time.to_string().parse::<f64>()).transpose();
    let (from, until) = (time("nbf").ok()?, time("exp").ok()?);
    let now = NOW.as_secs_f64();
    // At `exp` itself the RFC has a token refused; we take it at that instant still.
    if now < from.unwrap_or(now) || now > until.unwrap_or(now) {
        return None;
    }
    let port = match claims.get("port")? {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    let endpoint = match claims.get("host")?.as_str()? {
        "unix_socket" => target::unix(&port)?,
        host => target::tcp(host, &port)?,
    };
    Some((endpoint, until))
}

/// A genuine token is taken if its header is an object that names the algorithm, and no extensions (RFC 7515, section 4.1).
fn header(bytes: &[u8], secret: &Key) {
    let is_ours = serde_json::from_slice::<Object>(bytes).is_ok_and(|header| {
        header.get("alg").is_some_and(|name| name == "HS256") && !header.contains_key("crit")
    });
    let token = signed_with(bytes, br#"{"host":"h","port":1}"#);
    assert_eq!(read(&token, secret, NOW).is_ok(), is_ours, "{token}");
}

fn signed(claims: &[u8]) -> String {
    signed_with(br#"{"alg":"HS256"}"#, claims)
}

fn signed_with(header: &[u8], claims: &[u8]) -> String {
    let message = format!("{}.{}", BASE64URL_NOPAD.encode(header), BASE64URL_NOPAD.encode(claims));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &SECRET), message.as_bytes());
    format!("{message}.{}", BASE64URL_NOPAD.encode(tag.as_ref()))
}
