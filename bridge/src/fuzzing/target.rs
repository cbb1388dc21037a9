//! Targets as sources write them, read a second time: as the manual page says it (TOKENS), with nothing of the parsers.

use std::net::Ipv6Addr;

use crate::destination::{Address, Endpoint};

/// `host:port`, `[ipv6]:port`, `ipv6:port` or `unix_socket:path`.
pub(super) fn endpoint(text: &str) -> Option<Endpoint> {
    let pieces: Vec<_> = text.split(':').collect();
    match &*pieces {
        ["unix_socket", path @ ..] => unix(&path.join(":")).filter(|_| !path.is_empty()),
        [host @ .., port] => tcp(&host.join(":"), port).filter(|_| !host.is_empty()),
        [] => None,
    }
}

pub(super) fn unix(path: &str) -> Option<Endpoint> {
    let is_path = !path.is_empty() && !path.bytes().any(|byte| byte == 0);
    is_path.then(|| Endpoint::Unix(path.into()))
}

pub(super) fn tcp(host: &str, port: &str) -> Option<Endpoint> {
    Some(Endpoint::Tcp(Address { host: self::host(host)?, port: self::port(port)? }))
}

fn host(text: &str) -> Option<String> {
    let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let host = inner.unwrap_or(text);
    let is_v6 = match &*host.split('%').collect::<Vec<_>>() {
        [address] => address.parse::<Ipv6Addr>().is_ok(),
        [address, zone] => {
            let is_zone =
                !zone.is_empty() && zone.bytes().all(|byte| (b'!'..=b'~').contains(&byte));
            is_zone && address.parse::<Ipv6Addr>().is_ok()
        }
        _ => false,
    };
    let is_not_of_name =
        |one: char| one.is_whitespace() || one.is_control() || "[]/:".contains(one);
    match host {
        _ if is_v6 => Some(host.into()),
        _ if inner.is_some() => None,
        "" => Some("localhost".into()),
        _ => (host.len() <= 253 && !host.contains(is_not_of_name)).then(|| host.into()),
    }
}

fn port(text: &str) -> Option<u16> {
    let is_digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let digits = text.trim_start_matches('0');
    let is_short = (1..=5).contains(&digits.len());
    if is_digits && is_short { digits.parse().ok() } else { None }
}
