//! A target as sources have it written: `host:port`, `[::1]:port` or `unix_socket:/path`. Knows text only.

use std::net::Ipv6Addr;
use std::path::PathBuf;

use crate::destination::{Address, Endpoint};
use crate::net::zone;

/// How upstream marks the path of a Unix socket.
const UNIX: &str = "unix_socket:";

/// The longest name that DNS has, as text.
const HOST_MAX: usize = 253;

/// The target that a text means, or why it means none. There is no space around the text.
pub(crate) fn endpoint(text: &str) -> Result<Endpoint, &'static str> {
    if let Some(path) = text.strip_prefix(UNIX) {
        return unix(path);
    }
    let (host, port) = text.rsplit_once(':').ok_or("it is not host:port")?;
    tcp(host, port)
}

/// The same for the path of a Unix socket.
pub(super) fn unix(path: &str) -> Result<Endpoint, &'static str> {
    match path {
        "" => Err("unix_socket has no path"),
        _ if path.contains('\0') => Err("a path has no NUL"),
        _ => Ok(Endpoint::Unix(PathBuf::from(path))),
    }
}

/// The same for a host and a port that are given apart.
pub(super) fn tcp(host: &str, port: &str) -> Result<Endpoint, &'static str> {
    Ok(Endpoint::Tcp(Address { host: self::host(host)?.to_owned(), port: self::port(port)? }))
}

/// An IPv6 address may have no brackets: the last colon separates it from the port, as in upstream.
fn host(text: &str) -> Result<&str, &'static str> {
    let in_brackets = text.strip_prefix('[').map(|rest| rest.strip_suffix(']').unwrap_or(""));
    let host = in_brackets.unwrap_or(text);
    let is_v6 = || host.parse::<Ipv6Addr>().is_ok() || zone::split(host).is_some();
    if in_brackets.is_some() || host.contains(':') {
        return is_v6().then_some(host).ok_or("its host is no IPv6 address");
    }
    let is_of_name = |letter: char| !letter.is_whitespace() && !letter.is_control();
    match host {
        // An empty host means this machine's loopback address, as to upstream's resolver.
        "" => Ok("localhost"),
        _ if host.len() > HOST_MAX => Err("its host is too long"),
        _ if !host.chars().all(|letter| is_of_name(letter) && !"[]/".contains(letter)) => {
            Err("its host is no name")
        }
        _ => Ok(host),
    }
}

fn port(text: &str) -> Result<u16, &'static str> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let port = text.parse().ok().filter(|port| is_number && *port != 0);
    port.ok_or("its port is no number from 1 to 65535")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k2_the_forms_of_a_target() {
        for (text, host, port) in [
            ("a:1", "a", 1),
            ("a.example:65535", "a.example", 65535),
            ("192.0.2.1:5900", "192.0.2.1", 5900),
            ("[::1]:5900", "::1", 5900),
            ("::1:5900", "::1", 5900),
            ("[fe80::1%eth0]:5900", "fe80::1%eth0", 5900),
            (":5900", "localhost", 5900),
            ("bücher.example:80", "bücher.example", 80),
            ("a:0080", "a", 80),
        ] {
            let expected = Endpoint::Tcp(Address { host: host.into(), port });
            assert_eq!(endpoint(text), Ok(expected), "{text}");
        }
        for path in ["/run/a", "a", "/run/a:1", "/run/a b"] {
            let expected = Endpoint::Unix(PathBuf::from(path));
            assert_eq!(endpoint(&format!("unix_socket:{path}")), Ok(expected));
        }
    }

    #[test]
    fn k2_what_is_no_target() {
        for text in [
            "",
            "a",
            "a:",
            "a:0",
            "a:65536",
            "a:-1",
            "a:+1",
            "a:http",
            "a:1 # one",
            "a b:1",
            "a\u{7}:1",
            "http://a:1",
            "[::1:1",
            "[a]:1",
            "[]:1",
            "a:b:1",
            "unix_socket:",
            "unix_socket:/a\0b",
        ] {
            assert!(endpoint(text).is_err(), "{text:?}");
        }
        assert!(endpoint(&format!("{}:1", "a".repeat(254))).is_err());
    }
}
