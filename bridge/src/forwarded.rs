//! The client that a proxy names in `Forwarded` (RFC 7239) or `X-Forwarded-For`: both list the addresses that a request has
//! passed, the client's first, and each proxy adds the address that it has received the request from. What stands before the
//! addresses that trusted proxies have added, the client may have written itself. Knows headers; must not know who is trusted.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ::http::HeaderMap;
use ::http::header::{FORWARDED, HeaderName, HeaderValue};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Why a request does not say whom it is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Doubt {
    #[error("its request has {0} more than once")]
    Repeated(&'static str),
    #[error("its {0} is not as it must be")]
    Malformed(&'static str),
    #[error("its Forwarded and X-Forwarded-For name different clients")]
    Contradiction,
}

/// An entry of the list: a host that the request has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    /// The port is 0 if it is not said.
    Address(SocketAddr),
    /// It is `unknown`, or has an obfuscated name (RFC 7239, section 6.3).
    Hidden,
}

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Says {
    /// There is no such header, or it names no host.
    Nothing,
    /// The last entry, which the proxy before us has added, does not name the client.
    Hidden,
    /// This is the client.
    Client(SocketAddr),
}

/// The client that a request names, with port 0 if it names no port: the last address that is not trusted, or the first
/// if all are. `None`: it names none.
pub(crate) fn client(
    headers: &HeaderMap,
    is_trusted: impl Fn(IpAddr) -> bool,
) -> Result<Option<SocketAddr>, Doubt> {
    let forwarded = forwarded(headers, &is_trusted)?;
    let said = match (forwarded, listed(headers, &is_trusted)?) {
        (Says::Nothing, said) | (said, Says::Nothing) => said,
        (Says::Hidden, Says::Hidden) => Says::Hidden,
        (Says::Client(one), Says::Client(other)) if one.ip() == other.ip() => {
            Says::Client(if one.port() == 0 { other } else { one })
        }
        _ => return Err(Doubt::Contradiction),
    };
    match said {
        Says::Client(client) => Ok(Some(client)),
        Says::Nothing | Says::Hidden => Ok(None),
    }
}

fn forwarded(headers: &HeaderMap, is_trusted: impl Fn(IpAddr) -> bool) -> Result<Says, Doubt> {
    const NAME: &str = "Forwarded";
    let Some(value) = line(headers, &FORWARDED).ok_or(Doubt::Repeated(NAME))? else {
        return Ok(Says::Nothing);
    };
    let nodes = elements(value).ok_or(Doubt::Malformed(NAME))?;
    if nodes.iter().all(Option::is_none) {
        return Ok(Says::Nothing);
    }
    let nodes = nodes.into_iter().rev().map(|node| Some(node.unwrap_or(Node::Hidden)));
    last_untrusted(nodes, is_trusted).ok_or(Doubt::Malformed(NAME))
}

fn listed(headers: &HeaderMap, is_trusted: impl Fn(IpAddr) -> bool) -> Result<Says, Doubt> {
    const NAME: &str = "X-Forwarded-For";
    let Some(value) = line(headers, &X_FORWARDED_FOR).ok_or(Doubt::Repeated(NAME))? else {
        return Ok(Says::Nothing);
    };
    let words = value.rsplit(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    let nodes = words.filter(|word| !word.is_empty()).map(listed_node);
    last_untrusted(nodes, is_trusted).ok_or(Doubt::Malformed(NAME))
}

/// The value of a header, if the header is there. Outer `None`: there is more than one.
#[expect(clippy::option_option, reason = "a line, none, or too many")]
fn line<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Option<&'a [u8]>> {
    let mut lines = headers.get_all(name).iter();
    let line = lines.next().map(HeaderValue::as_bytes);
    lines.next().is_none().then_some(line)
}

/// What a list says, whose `nodes` come from the last to the first. `None`: one of those that count is not readable.
fn last_untrusted(
    nodes: impl Iterator<Item = Option<Node>>,
    is_trusted: impl Fn(IpAddr) -> bool,
) -> Option<Says> {
    let mut said = Says::Nothing;
    for node in nodes {
        match (node?, said) {
            (Node::Hidden, Says::Client(_)) => break,
            (Node::Hidden, _) => return Some(Says::Hidden),
            (Node::Address(address), _) => said = Says::Client(address),
        }
        if !matches!(said, Says::Client(address) if is_trusted(address.ip())) {
            break;
        }
    }
    Some(said)
}

/// An entry of `X-Forwarded-For`, as proxies write it: with or without a port; IPv6 in brackets or without.
fn listed_node(word: &[u8]) -> Option<Node> {
    let word = std::str::from_utf8(word).ok()?;
    match word.parse::<Ipv6Addr>() {
        Ok(address) => Some(of(address.into(), 0)),
        Err(_) => node(word),
    }
}

/// RFC 7239, section 6: `192.0.2.7:4711`, `[2001:db8::7]`, `unknown`, `_hidden:_port`.
fn node(text: &str) -> Option<Node> {
    if let Some(rest) = text.strip_prefix('[') {
        let (address, rest) = rest.split_once(']')?;
        let port = if rest.is_empty() { 0 } else { port(rest.strip_prefix(':')?)? };
        return Some(of(address.parse::<Ipv6Addr>().ok()?.into(), port));
    }
    let (name, port) = match text.split_once(':') {
        Some((name, text)) => (name, port(text)?),
        None => (text, 0),
    };
    if name.eq_ignore_ascii_case("unknown") || is_obfuscated(name) {
        return Some(Node::Hidden);
    }
    Some(of(IpAddr::V4(name.parse().ok()?), port))
}

fn of(address: IpAddr, port: u16) -> Node {
    Node::Address(SocketAddr::new(address.to_canonical(), port))
}

/// The number of a port. An obfuscated port counts as not named: 0.
fn port(text: &str) -> Option<u16> {
    if is_obfuscated(text) {
        return Some(0);
    }
    let is_number = (1..=5).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { text.parse().ok() } else { None }
}

fn is_obfuscated(text: &str) -> bool {
    let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    text.strip_prefix('_').is_some_and(|rest| !rest.is_empty() && rest.bytes().all(is_of_name))
}

/// The `for` of each element of a `Forwarded` header, if the element has one (RFC 7239, section 4). Outer `None`: the
/// header is malformed.
fn elements(value: &[u8]) -> Option<Vec<Option<Node>>> {
    let mut rest = Rest(value);
    let mut nodes = Vec::new();
    loop {
        // Elements may be empty (RFC 9110, section 5.6.1), and so may pairs.
        let (mut node, mut is_there) = (None, false);
        loop {
            rest.skip_blanks();
            if !rest.is_between() {
                let (name, value) = rest.pair()?;
                let is_node = name.eq_ignore_ascii_case(b"for");
                if is_node && node.replace(self::node(&value)?).is_some() {
                    return None;
                }
                is_there = true;
                rest.skip_blanks();
            }
            if !rest.eats(b';') {
                break;
            }
        }
        nodes.extend(is_there.then_some(node));
        if rest.0.is_empty() {
            return Some(nodes);
        }
        rest.eats(b',').then_some(())?;
    }
}

/// What is still to be read of a `Forwarded` header.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn skip_blanks(&mut self) {
        self.0 = self.0.trim_ascii_start();
    }

    /// Whether no pair begins here: there is a delimiter, or the end.
    fn is_between(&self) -> bool {
        matches!(self.0.first(), None | Some(b';' | b','))
    }

    fn eats(&mut self, byte: u8) -> bool {
        let behind = self.0.strip_prefix(&[byte]);
        self.0 = behind.unwrap_or(self.0);
        behind.is_some()
    }

    /// A name and its value.
    fn pair(&mut self) -> Option<(&'a [u8], String)> {
        let name = self.token()?;
        self.eats(b'=').then_some(())?;
        let value = if self.eats(b'"') { self.quoted_string()? } else { self.token()?.to_vec() };
        // All that we look for is ASCII.
        Some((name, value.into_iter().map(char::from).collect()))
    }

    /// RFC 9110, section 5.6.2: neither a colon nor a bracket, so that what has one must be quoted.
    fn token(&mut self) -> Option<&'a [u8]> {
        let is_of_token =
            |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
        let end = self.0.iter().position(|byte| !is_of_token(byte)).unwrap_or(self.0.len());
        let (token, rest) = self.0.split_at(end);
        self.0 = rest;
        (!token.is_empty()).then_some(token)
    }

    /// RFC 9110, section 5.6.4: what is behind its opening quote.
    fn quoted_string(&mut self) -> Option<Vec<u8>> {
        let mut value = Vec::new();
        let mut bytes = self.0.iter().enumerate();
        loop {
            match bytes.next()? {
                (at, b'"') => {
                    self.0 = &self.0[at + 1..];
                    return Some(value);
                }
                (_, b'\\') => value.push(*bytes.next()?.1),
                (_, byte) => value.push(*byte),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The client that these headers name, if 10.0.0.0/8 and loopback addresses are trusted.
    fn named(lines: &[(&'static str, &str)]) -> Result<Option<String>, Doubt> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        let is_trusted = |address: IpAddr| {
            matches!(address, IpAddr::V4(address) if address.octets()[0] == 10)
                || address.is_loopback()
        };
        let client = client(&headers, is_trusted)?;
        Ok(client.map(|client| match client.port() {
            0 => client.ip().to_string(),
            _ => client.to_string(),
        }))
    }

    const LIST: &str = "x-forwarded-for";

    #[test]
    fn a3_the_last_address_of_a_list_that_is_not_trusted_is_the_client() {
        for (value, client) in [
            ("192.0.2.7", Some("192.0.2.7")),
            ("192.0.2.7:4711", Some("192.0.2.7:4711")),
            ("2001:db8::7", Some("2001:db8::7")),
            ("[2001:db8::7]", Some("2001:db8::7")),
            ("[2001:db8::7]:4711", Some("[2001:db8::7]:4711")),
            ("::ffff:192.0.2.7", Some("192.0.2.7")),
            ("198.51.100.1, 192.0.2.7", Some("192.0.2.7")),
            ("198.51.100.1,192.0.2.7,10.0.0.1 ,\t::1", Some("192.0.2.7")),
            ("10.0.0.2, 10.0.0.1", Some("10.0.0.2")),
            // Also if a client has made that proxy drop what named the client: SECURITY.md says so.
            ("10.0.0.1", Some("10.0.0.1")),
            ("192.0.2.7,,", Some("192.0.2.7")),
            // What stands before the last address may be anything: the client has written it.
            ("<script>, 192.0.2.7", Some("192.0.2.7")),
            ("192.0.2.7, unknown", None),
            ("192.0.2.7, unknown, 10.0.0.1", Some("10.0.0.1")),
            ("192.0.2.7, _x", None),
            ("", None),
            (",", None),
        ] {
            assert_eq!(named(&[(LIST, value)]), Ok(client.map(Into::into)), "{value}");
        }
        assert_eq!(named(&[]), Ok(None));
    }

    #[test]
    fn a3_what_is_no_list() {
        for value in [
            "x",
            "192.0.2.7, x",
            "192.0.2.7 198.51.100.1",
            "192.0.2.7:",
            "192.0.2.7:65536",
            "192.0.2.7:+1",
            "192.0.2.07",
            "[192.0.2.7]",
            "[::1",
            "[::1]1",
            "::1%eth0",
            "x, 10.0.0.1",
            "a.example",
            "\"192.0.2.7\"",
        ] {
            let malformed = Err(Doubt::Malformed("X-Forwarded-For"));
            assert_eq!(named(&[(LIST, value)]), malformed, "{value}");
        }
        let twice = [(LIST, "192.0.2.7"), (LIST, "192.0.2.7")];
        assert_eq!(named(&twice), Err(Doubt::Repeated("X-Forwarded-For")));
    }

    #[test]
    fn a3_the_client_of_forwarded() {
        for (value, client) in [
            // The examples of RFC 7239, section 4.
            ("for=\"_gazonk\"", None),
            ("For=\"[2001:db8:cafe::17]:4711\"", Some("[2001:db8:cafe::17]:4711")),
            ("for=192.0.2.60;proto=http;by=203.0.113.43", Some("192.0.2.60")),
            ("for=192.0.2.43, for=198.51.100.17", Some("198.51.100.17")),
            ("for=192.0.2.43, for=\"10.0.0.1\"", Some("192.0.2.43")),
            ("for=192.0.2.43,for=10.0.0.1;by=x , for=\"[::1]:80\"", Some("192.0.2.43")),
            ("for=\"192\\.0.2.43\"", Some("192.0.2.43")),
            ("for=\"192.0.2.43:4711\"", Some("192.0.2.43:4711")),
            ("for=\"192.0.2.43:_x\"", Some("192.0.2.43")),
            ("host=\"a, for=1.1.1.1\";for=192.0.2.43", Some("192.0.2.43")),
            ("for=192.0.2.43, for=unknown", None),
            ("for=192.0.2.43, proto=https", None),
            ("proto=https", None),
            (", for=192.0.2.43;,", Some("192.0.2.43")),
            ("", None),
        ] {
            assert_eq!(named(&[("forwarded", value)]), Ok(client.map(Into::into)), "{value}");
        }
    }

    #[test]
    fn a3_what_is_no_forwarded() {
        for value in [
            "192.0.2.7",
            "for",
            "for=",
            "for =192.0.2.7",
            "for=192.0.2.7;for=192.0.2.8",
            "for=192.0.2.7 for=192.0.2.8",
            "for=\"192.0.2.7",
            "for=\"192.0.2.7\\",
            "for=[::1]",
            "for=192.0.2.43:4711",
            "for=2001:db8::7",
            "for=\"2001:db8::7\"",
            "for=x",
            // A quote that the client opens cannot be closed by a proxy.
            "for=198.51.100.1;x=\", for=192.0.2.7",
            "for=198.51.100.1;x=\", for=\"192.0.2.7:80\"",
            "x, for=192.0.2.7",
        ] {
            let malformed = Err(Doubt::Malformed("Forwarded"));
            assert_eq!(named(&[("forwarded", value)]), malformed, "{value}");
        }
        let twice = [("forwarded", "for=192.0.2.7"), ("forwarded", "for=192.0.2.7")];
        assert_eq!(named(&twice), Err(Doubt::Repeated("Forwarded")));
    }

    #[test]
    fn a3_two_headers_must_name_the_same_client() {
        let both = |forwarded, list| named(&[("forwarded", forwarded), (LIST, list)]);
        assert_eq!(both("for=\"192.0.2.7:1\"", "192.0.2.7"), Ok(Some("192.0.2.7:1".into())));
        assert_eq!(both("for=192.0.2.7", "1.1.1.1, 192.0.2.7:2"), Ok(Some("192.0.2.7:2".into())));
        for (forwarded, list) in [
            ("for=198.51.100.1", "192.0.2.7"),
            ("for=_x", "192.0.2.7"),
            ("for=192.0.2.7, proto=https", "192.0.2.7"),
            ("for=198.51.100.1", "unknown"),
        ] {
            assert_eq!(both(forwarded, list), Err(Doubt::Contradiction), "{forwarded} {list}");
        }
        assert_eq!(both("for=_x", "unknown"), Ok(None));
        assert_eq!(both("proto=https", "192.0.2.7"), Ok(Some("192.0.2.7".into())));
        assert_eq!(both("for=192.0.2.7", ""), Ok(Some("192.0.2.7".into())));
    }
}
