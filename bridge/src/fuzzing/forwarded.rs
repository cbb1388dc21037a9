//! `Forwarded` and `X-Forwarded-For`: whatever a client has written there before a proxy adds its address, it does not pass for
//! another client.

use std::net::IpAddr;

use ::http::HeaderMap;
use ::http::header::{FORWARDED, HeaderName, HeaderValue};

use crate::forwarded::client;

const LIST: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The bytes are the values of both headers, with a line feed between them; without one, both headers have the same value.
pub fn forwarded(bytes: &[u8]) {
    let (forwarded, list) = match bytes.iter().position(|byte| *byte == b'\n') {
        Some(at) => (&bytes[..at], &bytes[at + 1..]),
        None => (bytes, bytes),
    };
    let both = [(FORWARDED, forwarded), (LIST, list)];
    named(&both);
    for (name, value) in both {
        let one = |value: &[u8]| named(&[(name.clone(), value)]);
        let Some(alone) = one(value) else { continue };
        // A header that is there twice names no client.
        assert!(named(&[(name.clone(), value), (name.clone(), value)]) == Some(None));
        let added: [&[u8]; 2] = if name == FORWARDED {
            [b", for=192.0.2.7", b", for=\"[2001:db8::7]:9\";proto=http"]
        } else {
            [b", 192.0.2.7", b", [2001:db8::7]:9"]
        };
        for (added, expected) in added.into_iter().zip(["192.0.2.7", "2001:db8::7"]) {
            let expected: IpAddr = expected.parse().expect("an address");
            let found = one(&[value, added].concat()).expect("a value");
            // `X-Forwarded-For` is read from its end; `Forwarded` has a grammar, which the client may have broken.
            assert!(found == Some(expected) || name == FORWARDED && found.is_none());
            assert!(found.is_some() || alone.is_none(), "well-formed alone");
        }
    }
}

/// The client that the headers name, where 10.0.0.0/8 is trusted; outside `None`: no header can have this value.
#[expect(clippy::option_option, reason = "a client, none, or no headers")]
fn named(lines: &[(HeaderName, &[u8])]) -> Option<Option<IpAddr>> {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(name, HeaderValue::from_bytes(value).ok()?);
    }
    let is_trusted = |address| matches!(address, IpAddr::V4(address) if address.octets()[0] == 10);
    let client = client(&headers, is_trusted).ok().flatten();
    Some(client.map(|client| client.ip()))
}
