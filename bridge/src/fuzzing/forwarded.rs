//! `Forwarded` and `X-Forwarded-For`: whatever a client has written there before a proxy adds its address, it does not pass for
//! another client; and the client is the one that another reader finds.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

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
    for lines in [&both[..], &both[..1], &both[1..]] {
        if let Some(headers) = headers(lines) {
            assert_eq!(client(&headers, is_trusted).map_err(drop), read_at_once(lines));
        }
    }
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

/// The client that the headers name; outside `None`: no header can have this value.
#[expect(clippy::option_option, reason = "a client, none, or no headers")]
fn named(lines: &[(HeaderName, &[u8])]) -> Option<Option<IpAddr>> {
    let client = client(&headers(lines)?, is_trusted).ok().flatten();
    Some(client.map(|client| client.ip()))
}

fn headers(lines: &[(HeaderName, &[u8])]) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(name, HeaderValue::from_bytes(value).ok()?);
    }
    Some(headers)
}

fn is_trusted(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(address) if address.octets()[0] == 10)
}

/// What an entry of a header says of the host that it stands for, or a header of the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Says {
    Nothing,
    Hidden,
    Host(SocketAddr),
}

/// An entry that is not readable is an `Err`, and so is a header of which such an entry counts.
type Said = Result<Says, ()>;

/// The client that the headers name.
fn read_at_once(lines: &[(HeaderName, &[u8])]) -> Result<Option<SocketAddr>, ()> {
    let mut agreed = Says::Nothing;
    for (name, value) in lines {
        let said = if *name == FORWARDED {
            last_untrusted(&elements(value).unwrap_or(vec![Err(())]))?
        } else {
            let words = pieces(value, |byte| *byte == b',');
            last_untrusted(&words.into_iter().map(listed).collect::<Vec<_>>())?
        };
        agreed = match (agreed, said) {
            (Says::Nothing, one) | (one, Says::Nothing) => one,
            (Says::Host(one), Says::Host(other)) if one.ip() == other.ip() => {
                Says::Host(if one.port() > 0 { one } else { other })
            }
            (one, other) if one == other => one,
            _ => return Err(()),
        };
    }
    if let Says::Host(client) = agreed { Ok(Some(client)) } else { Ok(None) }
}

/// The entry before the trusted hosts at the end; or, if there is none or it hides the host, the first of them.
fn last_untrusted(entries: &[Said]) -> Said {
    let is_trusted = |entry: &Said| matches!(entry, Ok(Says::Host(host)) if is_trusted(host.ip()));
    let others = entries.iter().rposition(|entry| !is_trusted(entry)).map_or(0, |at| at + 1);
    match (entries[..others].last(), entries.get(others)) {
        (None | Some(Ok(Says::Hidden)), Some(trusted)) => *trusted,
        (None, None) => Ok(Says::Nothing),
        (Some(entry), _) => *entry,
    }
}

/// The pieces between delimiters, without blanks around them and without those that are empty (RFC 9110, section 5.6.1).
fn pieces(text: &[u8], is_delimiter: impl FnMut(&u8) -> bool) -> Vec<&[u8]> {
    let pieces = text.split(is_delimiter).map(<[u8]>::trim_ascii);
    pieces.filter(|piece| !piece.is_empty()).collect()
}

/// The same where what stands in a quoted string delimits nothing (RFC 9110, section 5.6.4).
fn quoted_pieces(text: &[u8], delimiter: u8) -> Vec<&[u8]> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    pieces(text, |byte| {
        let escapes = is_quoted && !is_escaped && *byte == b'\\';
        is_quoted ^= *byte == b'"' && !is_escaped;
        is_escaped = escapes;
        *byte == delimiter && !is_quoted
    })
}

/// RFC 7239, section 4: an entry for each element, but for those without pairs. `None`: it is not well-formed.
fn elements(value: &[u8]) -> Option<Vec<Said>> {
    let mut entries = Vec::new();
    let mut has_for = false;
    for element in quoted_pieces(value, b',') {
        let pairs = quoted_pieces(element, b';').into_iter().map(pair);
        let pairs: Vec<_> = pairs.collect::<Option<_>>()?;
        let nodes: Vec<_> = pairs.iter().filter(|(name, _)| name == "for").collect();
        has_for |= !nodes.is_empty();
        match &*nodes {
            [] if pairs.is_empty() => {}
            [] => entries.push(Ok(Says::Hidden)),
            [(_, one)] => entries.push(Ok(node(one).ok()?)),
            _ => return None,
        }
    }
    Some(if has_for { entries } else { vec![] })
}

/// `token=token` or `token="quoted string"`. A token is what may be a header's name (RFC 9110, section 5.1).
fn pair(piece: &[u8]) -> Option<(HeaderName, String)> {
    let at = piece.iter().position(|byte| *byte == b'=')?;
    let (name, value) = (HeaderName::from_bytes(&piece[..at]).ok()?, &piece[at + 1..]);
    let [b'"', quoted @ .., b'"'] = value else {
        HeaderName::from_bytes(value).ok()?;
        return Some((name, String::from_utf8_lossy(value).into()));
    };
    let (mut text, mut bytes) = (Vec::new(), quoted.iter());
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return None,
            b'\\' => text.push(*bytes.next()?),
            byte => text.push(*byte),
        }
    }
    Some((name, String::from_utf8_lossy(&text).into()))
}

/// An entry of `X-Forwarded-For`: IPv6 may lack the brackets.
fn listed(word: &[u8]) -> Said {
    let text = str::from_utf8(word).map_err(drop)?;
    node(text).or_else(|()| node(&format!("[{text}]")))
}

/// RFC 7239, section 6. Port 0: it has none, or an obfuscated one.
fn node(text: &str) -> Said {
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) if !text.ends_with(']') => (name, self::port(port)?),
        _ => (text, 0),
    };
    if name.eq_ignore_ascii_case("unknown") || is_obfuscated(name) {
        return Ok(Says::Hidden);
    }
    let inner = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let address = match inner {
        Some(inner) => inner.parse().map(Ipv6Addr::into),
        None => name.parse().map(Ipv4Addr::into),
    };
    let address: IpAddr = address.map_err(drop)?;
    Ok(Says::Host(SocketAddr::new(address.to_canonical(), port)))
}

fn port(text: &str) -> Result<u16, ()> {
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    match text.len() {
        1..=5 if digits == text.len() => text.parse().map_err(drop),
        _ if is_obfuscated(text) => Ok(0),
        _ => Err(()),
    }
}

fn is_obfuscated(text: &str) -> bool {
    let is_odd = |one: char| !one.is_ascii_alphanumeric() && !"._-".contains(one);
    text.len() > 1 && text.starts_with('_') && !text.contains(is_odd)
}
