//! A URL with `%s` where the token goes, as upstream has it (Python's `URL % token`). Knows text only.

use std::fmt;

use ::http::header::HeaderValue;
use ::http::{Uri, uri};
use data_encoding::BASE64;
use percent_encoding::{
    AsciiSet, CONTROLS, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode,
};

/// The characters of a token that are encoded: all but the unreserved ones of RFC 3986, so that a token changes nothing but its
/// own place.
const OF_TOKEN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The characters that must not stand as they are in a path or query (RFC 3986); all others are kept as the pattern has them.
const OF_URL: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'<')
    .add(b'>')
    .add(b'`')
    .add(b'{')
    .add(b'}')
    .add(b'|')
    .add(b'\\')
    .add(b'^');

/// The URL at which a token is asked for, with places for the token.
#[derive(Clone, PartialEq, Eq)]
pub struct Pattern {
    scheme: uri::Scheme,
    authority: uri::Authority,
    /// The path and query: what stands before, between and behind the places of the token.
    pieces: Vec<String>,
    credentials: Option<HeaderValue>,
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    ///
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (scheme, rest) = text.split_once("://").ok_or("it has no http:// or https://")?;
        let scheme = match &*scheme.to_ascii_lowercase() {
            "http" => uri::Scheme::HTTP,
            "https" => uri::Scheme::HTTPS,
            _ => return Err("it is neither http:// nor https://"),
        };
        let (authority, tail) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        // A token that chose the server could choose any server.
        if authority.contains("%s") {
            return Err("its host has %s in it");
        }
        let (user, authority) =
            authority.rsplit_once('@').map_or((None, authority), |(user, rest)| (Some(user), rest));
        let authority: uri::Authority = authority.parse().map_err(|_| "it has no host")?;
        if authority.host().is_empty() || has_bad_port(&authority) {
            return Err("it has no host, or no port from 1 to 65535");
        }
        let pattern = Self {
            scheme,
            authority,
            pieces: pieces(tail),
            credentials: user.map(credentials).transpose()?,
        };
        match pattern.pieces.len() {
            1 => Err("it has no %s where the token goes"),
            _ => pattern.uri("x").map(|_| pattern).ok_or("it is not a URL"),
        }
    }

    /// The URL for a token. None: there is none that means this token.
    pub(crate) fn uri(&self, token: &str) -> Option<Uri> {
        // Servers resolve `.` and `..`, encoded or not, and would answer for another path.
        if ["", ".", ".."].contains(&token) {
            return None;
        }
        let token = utf8_percent_encode(token, OF_TOKEN).to_string();
        let path_and_query = self.pieces.join(&token);
        let parts = Uri::builder().scheme(self.scheme.clone()).authority(self.authority.clone());
        parts.path_and_query(path_and_query).build().ok()
    }

    /// The value of the `Authorization` header, if the pattern has a user.
    pub(super) fn credentials(&self) -> Option<&HeaderValue> {
        self.credentials.as_ref()
    }
}

/// The server alone: the rest may have secrets in it.
impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.authority)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({self})")
    }
}

fn has_bad_port(authority: &uri::Authority) -> bool {
    let port = authority.port_u16();
    port == Some(0) || (port.is_none() && authority.as_str().len() > authority.host().len())
}

/// The path and query without their `%s`; `%%` is a percent sign, and so is one before anything else.
fn pieces(tail: &str) -> Vec<String> {
    // A fragment is not sent.
    let tail = tail.split('#').next().unwrap_or_default();
    let mut pieces = vec![if tail.starts_with('/') { String::new() } else { "/".to_owned() }];
    let mut rest = tail;
    while let Some(letter) = rest.chars().next() {
        let (text, length) = match rest.get(..2) {
            Some("%s") => {
                pieces.push(String::new());
                ("", 2)
            }
            Some("%%") => ("%", 2),
            _ => (&rest[..letter.len_utf8()], letter.len_utf8()),
        };
        let last = pieces.last_mut().expect("there is one from the start");
        last.extend(utf8_percent_encode(text, OF_URL));
        rest = &rest[length..];
    }
    pieces
}

/// `user:password`, both perhaps percent-encoded, as the value of an `Authorization` header (RFC 7617).
fn credentials(user: &str) -> Result<HeaderValue, &'static str> {
    let (name, password) = user.split_once(':').unwrap_or((user, ""));
    let decoded: Vec<u8> =
        percent_decode_str(name).chain(*b":").chain(percent_decode_str(password)).collect();
    let mut value = HeaderValue::try_from(format!("Basic {}", BASE64.encode(&decoded)))
        .map_err(|_| "its user or password is too long")?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(pattern: &str, token: &str) -> String {
        Pattern::parse(pattern).expect(pattern).uri(token).expect(token).to_string()
    }

    #[test]
    fn k4_a_token_stands_where_the_pattern_says() {
        for (pattern, token, expected) in [
            ("http://h/t/%s", "a", "http://h/t/a"),
            ("HTTPS://h:8443/t?x=1&token=%s&y", "a", "https://h:8443/t?x=1&token=a&y"),
            ("http://h?t=%s", "a", "http://h/?t=a"),
            ("http://h/%s/%s", "a", "http://h/a/a"),
            ("http://h/100%%/%s", "a", "http://h/100%/a"),
            ("http://h/a%20b/%%20/%s", "a", "http://h/a%20b/%20/a"),
            ("http://h/a b/ż/%s#x", "a", "http://h/a%20b/%C5%BC/a"),
            ("http://[::1]:80/%s", "a", "http://[::1]:80/a"),
            ("http://u:p@h/%s", "a", "http://h/a"),
            ("http://h/%s", "a/../b", "http://h/a%2F..%2Fb"),
            ("http://h/%s", "a?b#c&d=%s e", "http://h/a%3Fb%23c%26d%3D%25s%20e"),
            ("http://h/%s", "ż\r\n\0", "http://h/%C5%BC%0D%0A%00"),
            ("http://h/%s", "...", "http://h/..."),
        ] {
            assert_eq!(uri(pattern, token), expected, "{pattern}");
        }
        let pattern = Pattern::parse("http://h/%s").unwrap();
        for token in ["", ".", "..", &"/".repeat(30_000)] {
            assert_eq!(pattern.uri(token), None, "{token}");
        }
    }

    #[test]
    fn k4_what_is_no_pattern() {
        for pattern in [
            "",
            "h/%s",
            "ftp://h/%s",
            "http:/h/%s",
            "http://",
            "http:///%s",
            "http://h/",
            "http://h/%d",
            "http://h/#%s",
            "http://%s/",
            "http://%s@h/%s",
            "http://a b/%s",
            "http://h:x/%s",
            "http://h:0/%s",
            "http://h:/%s",
            "http://h:70000/%s",
            "http://[::1/%s",
            "http://h/%%s",
        ] {
            assert!(Pattern::parse(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn k4_k8_credentials_are_sent_and_not_shown() {
        let pattern = Pattern::parse("http://user:pa%20ss@h:81/secret/%s").unwrap();
        let expected = format!("Basic {}", BASE64.encode(b"user:pa ss"));
        assert_eq!(pattern.credentials().unwrap(), expected.as_str());
        assert_eq!(format!("{pattern} {pattern:?}"), "http://h:81 Pattern(http://h:81)");
        assert_eq!(Pattern::parse("http://h/%s").unwrap().credentials(), None);
    }
}
