//! What holds for requests at the admin address, whatever they say (L3). Included by path in `tests/fuzz/targets/admin.rs`.

use std::net::IpAddr;

use http::header::{HOST, HeaderValue, ORIGIN};
use http::uri::Authority;
use http::{Request, Version};

use super::gate::Gate;

/// The bytes are lines: a request's target, at most two hosts, and an origin if there is a fourth line.
pub(crate) fn request(bytes: &[u8]) {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let target = lines.next().unwrap_or_default();
    let hosts: Vec<_> = lines.by_ref().take(2).collect();
    let origin = lines.next();
    for version in [Version::HTTP_10, Version::HTTP_11] {
        let mut request = Request::builder().version(version).uri(target);
        for host in &hosts {
            let Ok(host) = HeaderValue::from_bytes(host) else { return };
            request = request.header(HOST, host);
        }
        if let Some(origin) = origin.and_then(|origin| HeaderValue::from_bytes(origin).ok()) {
            request = request.header(ORIGIN, origin);
        }
        let Ok(request) = request.body(()) else { return };
        let (head, ()) = request.into_parts();
        let (here, anywhere) = (Gate::new(None, true), Gate::new(None, false));
        let is_of_page = head.headers.contains_key(ORIGIN);
        assert_eq!(anywhere.is_meant(&head).is_err(), is_of_page, "no page asks");
        if here.is_meant(&head).is_ok() {
            assert!(!is_of_page && hosts.len() < 2, "one host, or none in HTTP/1.0");
            let named = hosts.iter().map(|host| std::str::from_utf8(host).expect("a host"));
            for name in named.chain(head.uri.authority().map(Authority::as_str)) {
                assert_is_here(name);
            }
        }
    }
}

/// Reads the name in another way than the gate: without a user, a port and brackets it must be a name of this machine.
fn assert_is_here(name: &str) {
    let host = name.rsplit('@').next().expect("a last part");
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().expect("a first part"),
        None => host.split(':').next().expect("a first part"),
    };
    let address = host.parse::<IpAddr>().map(|address| address.to_canonical());
    let is_loopback = address.is_ok_and(|address| address.is_loopback());
    assert!(
        is_loopback || host.eq_ignore_ascii_case("localhost"),
        "{name:?} is not of this machine"
    );
}

#[cfg(test)]
mod tests {
    use crate::neighbours::try_neighbours;

    #[test]
    fn l3_known_requests_to_the_administration_and_their_neighbours_break_no_parser() {
        try_neighbours("admin", super::request);
    }
}
