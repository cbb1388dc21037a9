//! Addresses as they are typed: `[HOST:]PORT` to listen on, `HOST:PORT` to bridge to. Knows what is
//! often typed in their place; looks no name up.

use std::net::{Ipv4Addr, Ipv6Addr};

use bridge::Endpoint;

use crate::usage::{UsageError, invalid};

/// Where clients connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    /// `None`: every IPv4 and IPv6 address.
    pub(crate) host: Option<String>,
    pub(crate) port: u16,
    /// Whether its IPv6 addresses come first.
    pub(crate) prefer_ipv6: bool,
}

/// Reads `[host:]port`; an IPv6 address may stand in brackets.
pub(super) fn source(typed: &str, prefer_ipv6: bool) -> Result<Source, UsageError> {
    let wrong = |expected: &str| invalid("[SOURCE_ADDR:]SOURCE_PORT", typed, expected);
    if let Some(meant) = of_url(typed, "[HOST:]PORT") {
        return Err(wrong(&meant));
    }
    let (host, port_typed) = split(typed).map_err(wrong)?;
    let port = port(port_typed).ok_or_else(|| wrong("a port number from 0 to 65535"))?;
    // In the Python websockify the socket at `::` accepts clients of IPv4 as well (IPV6_V6ONLY in ipv6(7)).
    let host = host.filter(|host| host.parse() != Ok(Ipv6Addr::UNSPECIFIED));
    Ok(Source { host: host.map(str::to_owned), port, prefer_ipv6 })
}

/// The endpoint of a target. A target without a host is at this machine's loopback addresses. No name is looked up for
/// it, as there may be no name server (C7). The Python websockify takes the IPv4 address.
pub(super) fn service(typed: &str) -> Result<Endpoint, UsageError> {
    let address = target(typed)?;
    if !typed.starts_with(':') {
        return Ok(Endpoint::Tcp(address));
    }
    let port = address.port;
    let loopback = vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()];
    Ok(Endpoint::Resolved(address, loopback))
}

/// Reads `host:port`, as [`source`] does, but for one machine: without a host it is this machine, shown as `localhost`.
pub(crate) fn target(typed: &str) -> Result<bridge::Address, UsageError> {
    let wrong = |expected: &str| invalid("TARGET_ADDR:TARGET_PORT", typed, expected);
    if let Some(meant) = of_url(typed, "HOST:PORT") {
        return Err(wrong(&meant));
    }
    let (host, port_typed) = split(typed).map_err(wrong)?;
    // An empty host before the colon is this machine, as connect(2) takes it in the Python websockify.
    let host = host.or_else(|| typed.starts_with(':').then_some("localhost"));
    let Some(host) = host else {
        return Err(wrong(&match port(port_typed) {
            Some(port) => format!("HOST:PORT, with a host (localhost:{port}?)"),
            None if is_host(port_typed) => {
                format!("HOST:PORT, as {port_typed} has no port ({port_typed}:80?)")
            }
            None => "HOST:PORT".to_owned(),
        }));
    };
    let port = port(port_typed)
        .filter(|port| *port != 0)
        .ok_or_else(|| wrong("a port number from 1 to 65535"))?;
    Ok(bridge::Address { host: host.to_owned(), port })
}

pub(crate) fn port(typed: &str) -> Option<u16> {
    whole(typed)
}

/// Digits and nothing else: `from_str` takes a leading '+' too.
pub(super) fn whole<N: std::str::FromStr>(typed: &str) -> Option<N> {
    typed.bytes().all(|byte| byte.is_ascii_digit()).then(|| typed.parse().ok()).flatten()
}

/// Host and port, neither looked up. An IPv6 address may have a zone (RFC 4007), and need not be in brackets: the last
/// colon separates host and port (C7).
fn split(typed: &str) -> Result<(Option<&str>, &str), &'static str> {
    let is_ipv6 =
        |host: &str| host.parse::<Ipv6Addr>().is_ok() || bridge::zone::split(host).is_some();
    if let Some(rest) = typed.strip_prefix('[') {
        let (host, port) = rest.split_once("]:").ok_or("[IPV6_ADDR]:PORT")?;
        if !is_ipv6(host) {
            return Err("an IPv6 address in brackets");
        }
        return Ok((Some(host), port));
    }
    match typed.rsplit_once(':') {
        None | Some(("", _)) => Ok((None, typed.trim_start_matches(':'))),
        Some((host, _)) if host.contains(':') && !is_ipv6(host) => {
            Err("an IPv6 address in brackets")
        }
        Some((host, port)) => Ok((Some(host), port)),
    }
}

/// For a URL in the place of an address, what to leave out of it, and what then remains.
fn of_url(typed: &str, rule: &str) -> Option<String> {
    let (scheme, rest) = typed.split_at(typed.find("://").map_or(0, |at| at + "://".len()));
    let (address, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let has_port = address.contains(':') && split(address).is_ok();
    // A path alone, as of a file, is no URL.
    if address.is_empty() || scheme.is_empty() && (path.is_empty() || !has_port) {
        return None;
    }
    let port = match scheme {
        _ if has_port => "",
        "https://" | "wss://" => ":443",
        _ => ":80",
    };
    let surplus = [scheme, path].into_iter().filter(|part| !part.is_empty());
    let surplus: Vec<_> = surplus.map(|part| format!("'{part}'")).collect();
    Some(format!("{rule} without {} ({address}{port}?)", surplus.join(" and ")))
}

fn is_host(typed: &str) -> bool {
    let is_of_host = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    !typed.is_empty() && typed.bytes().all(is_of_host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c2_the_forms_of_a_source() {
        for (typed, host, port) in [
            ("5901", None, 5901),
            (":5901", None, 5901),
            ("localhost:80", Some("localhost"), 80),
            ("1.2.3.4:80", Some("1.2.3.4"), 80),
            ("[::1]:80", Some("::1"), 80),
            ("::1:80", Some("::1"), 80),
            ("fe80::5%2:80", Some("fe80::5%2"), 80),
            ("[fe80::5%eth0]:80", Some("fe80::5%eth0"), 80),
            ("[fe80::5%2]:80", Some("fe80::5%2"), 80),
            ("0", None, 0),
        ] {
            let expected = Source { host: host.map(str::to_owned), port, prefer_ipv6: false };
            assert_eq!(source(typed, false), Ok(expected), "{typed}");
        }
        for typed in
            ["", "x", "65536", "-1", "+1", "a:", "a:b:80", "::1:x", "[::1]80", "[::1]", "[x]:1"]
        {
            let UsageError(line) = source(typed, false).expect_err(typed);
            assert!(line.contains(&format!("'{typed}'")), "{line}");
        }
    }

    #[test]
    fn f44_of_a_url_the_address_is_named() {
        for (typed, meant) in [
            ("http://localhost:80", "HOST:PORT without 'http://' (localhost:80?)"),
            ("tcp://[::1]:5900", "HOST:PORT without 'tcp://' ([::1]:5900?)"),
            ("wss://host/x/y", "HOST:PORT without 'wss://' and '/x/y' (host:443?)"),
            ("ws://[::1]", "HOST:PORT without 'ws://' ([::1]:80?)"),
            ("localhost:80/", "HOST:PORT without '/' (localhost:80?)"),
        ] {
            let UsageError(line) = target(typed).expect_err(typed);
            assert!(line.ends_with(&format!("expected {meant}")), "{line}");
        }
        let UsageError(line) = source("ws://[::]:80", false).expect_err("a URL");
        assert!(line.ends_with("expected [HOST:]PORT without 'ws://' ([::]:80?)"), "{line}");
        for typed in ["/run/socket", "/", "http://", "sub/program"] {
            assert_eq!(of_url(typed, ""), None, "{typed}");
        }
    }

    #[test]
    fn c7_a_target_without_a_host_is_this_machine() {
        let address = bridge::Address { host: "localhost".into(), port: 80 };
        assert_eq!(target(":80"), Ok(address.clone()));
        assert_eq!(service("localhost:80"), Ok(Endpoint::Tcp(address.clone())));
        let loopback = ["127.0.0.1:80", "[::1]:80"].map(|addr| addr.parse().unwrap());
        assert_eq!(service(":80"), Ok(Endpoint::Resolved(address, loopback.into())));
        assert_eq!(service(":80").unwrap().to_string(), "localhost:80");
    }

    #[test]
    fn c2_a_target_needs_a_host_and_a_port() {
        let expected = bridge::Address { host: "::1".into(), port: 80 };
        assert_eq!(target("[::1]:80"), Ok(expected));
        assert_eq!(target("::1:80"), target("[::1]:80"));
        for typed in ["80", ":0", ":", ":x", "host", "host:", "host:0", "host:http", "a:b:80"] {
            target(typed).expect_err(typed);
        }
    }
}
