//! IPv6 addresses with a zone, `fe80::5%eth0` (RFC 4007, section 11). Resolvers accept a zone for some addresses only,
//! and report a zone that does not exist as an unknown name.

use std::io;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};

use nix::net::if_::if_nametoindex;

/// Address and zone, if `host` is an IPv6 address with a zone.
pub fn split(host: &str) -> Option<(Ipv6Addr, &str)> {
    let (address, zone) = host.split_once('%')?;
    let address = address.parse().ok()?;
    let is_zone =
        !zone.is_empty() && zone.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'%');
    is_zone.then_some((address, zone))
}

/// The socket address of `host`, if `host` is an IPv6 address with a zone: the name or number of an interface.
///
/// # Errors
///
/// There is no such interface.
pub fn resolve(host: &str, port: u16) -> Option<io::Result<SocketAddr>> {
    let (address, zone) = split(host)?;
    let number = zone.parse().or_else(|_| if_nametoindex(zone));
    let absent =
        |_| io::Error::new(io::ErrorKind::NotFound, format!("there is no interface {zone}"));
    Some(number.map_err(absent).map(|number| SocketAddrV6::new(address, port, 0, number).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f31_a_zone_is_a_name_or_a_number() {
        for host in ["fe80::5%lo", "fe80::5%1"] {
            let address = resolve(host, 80).expect("one with a zone").expect("an interface");
            assert_eq!(address.to_string(), "[fe80::5%1]:80");
        }
        let error = resolve("fe80::5%nowhere", 80).expect("one with a zone").expect_err("none");
        assert_eq!(error.to_string(), "there is no interface nowhere");
        for host in ["localhost", "::1", "::1%", "::1%a b", "::1%a%b", "1.2.3.4%lo", "%lo"] {
            assert!(resolve(host, 80).is_none(), "{host}");
        }
    }
}
