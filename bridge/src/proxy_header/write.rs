//! The header as it is sent to a target (A1). Pure: addresses in, bytes out.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use arrayvec::ArrayVec;

use super::ProxyVersion;

/// The longest line of version 1, its end included (section 2.1). Version 2 takes 52 bytes at most here.
const LONGEST: usize = 107;

/// What every header of version 2 begins with (section 2.2).
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Version 2, command PROXY: the connection is passed on for a client.
const PROXY: u8 = 0x21;

/// Address families of version 2, over a stream.
const UNSPECIFIED: u8 = 0x00;
const TCP_OVER_V4: u8 = 0x11;
const TCP_OVER_V6: u8 = 0x21;

/// The header of a connection that came from `client` to `us`. A client without an internet address is `None`: the
/// header tells the receiver that the client is unknown.
pub(crate) fn header(
    version: ProxyVersion,
    client: Option<SocketAddr>,
    us: Option<SocketAddr>,
) -> ArrayVec<u8, LONGEST> {
    let ends = client.map(|client| of_one_family(client, us));
    match version {
        ProxyVersion::V1 => line(ends),
        ProxyVersion::V2 => binary(ends),
    }
}

/// Both ends in one address family, as the header requires. If our own address is not known, since a proxy is connected
/// through a Unix socket, it is the unspecified address.
fn of_one_family(client: SocketAddr, us: Option<SocketAddr>) -> (SocketAddr, SocketAddr) {
    let any = if client.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let us = us.unwrap_or_else(|| any.parse().expect("an address"));
    let us = SocketAddr::new(us.ip().to_canonical(), us.port());
    let mapped = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    };
    if client.is_ipv4() == us.is_ipv4() { (client, us) } else { (mapped(client), mapped(us)) }
}

fn line(ends: Option<(SocketAddr, SocketAddr)>) -> ArrayVec<u8, LONGEST> {
    let text = match ends {
        None => "PROXY UNKNOWN\r\n".to_owned(),
        Some((client, us)) => {
            let family = if client.is_ipv4() { "TCP4" } else { "TCP6" };
            let (from, to) = (shown(client.ip()), shown(us.ip()));
            format!("PROXY {family} {from} {to} {} {}\r\n", client.port(), us.port())
        }
    };
    text.bytes().collect()
}

/// Receivers parse IPv6 with inet_pton(3), and some take no address with dots in it.
fn shown(ip: IpAddr) -> String {
    match ip {
        IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some() => in_hexadecimal(ip),
        ip => ip.to_string(),
    }
}

fn in_hexadecimal(ip: Ipv6Addr) -> String {
    let [.., high, low] = ip.segments();
    format!("::ffff:{high:x}:{low:x}")
}

fn binary(ends: Option<(SocketAddr, SocketAddr)>) -> ArrayVec<u8, LONGEST> {
    let mut bytes: ArrayVec<u8, LONGEST> = SIGNATURE.iter().copied().collect();
    let (family, length): (u8, u16) = match ends {
        None => (UNSPECIFIED, 0),
        Some((client, _)) if client.is_ipv4() => (TCP_OVER_V4, 12),
        Some(_) => (TCP_OVER_V6, 36),
    };
    bytes.extend([PROXY, family]);
    bytes.extend(length.to_be_bytes());
    let Some((client, us)) = ends else { return bytes };
    for end in [client, us] {
        match end.ip() {
            IpAddr::V4(ip) => bytes.extend(ip.octets()),
            IpAddr::V6(ip) => bytes.extend(ip.octets()),
        }
    }
    for end in [client, us] {
        bytes.extend(end.port().to_be_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(version: ProxyVersion, client: Option<&str>, us: Option<&str>) -> Vec<u8> {
        let address = |typed: &str| typed.parse().expect("an address");
        header(version, client.map(address), us.map(address)).to_vec()
    }

    #[test]
    fn a1_version_1_is_a_line() {
        for (client, us, line) in [
            (
                Some("192.0.2.7:40007"),
                Some("198.51.100.1:443"),
                "PROXY TCP4 192.0.2.7 198.51.100.1 40007 443\r\n",
            ),
            (
                Some("[2001:db8::7]:40008"),
                Some("[::1]:443"),
                "PROXY TCP6 2001:db8::7 ::1 40008 443\r\n",
            ),
            (
                Some("[2001:db8::7]:40008"),
                Some("192.0.2.1:443"),
                "PROXY TCP6 2001:db8::7 ::ffff:c000:201 40008 443\r\n",
            ),
            (
                Some("192.0.2.7:1"),
                Some("[::ffff:192.0.2.1]:443"),
                "PROXY TCP4 192.0.2.7 192.0.2.1 1 443\r\n",
            ),
            (Some("192.0.2.7:1"), None, "PROXY TCP4 192.0.2.7 0.0.0.0 1 0\r\n"),
            (None, Some("192.0.2.1:443"), "PROXY UNKNOWN\r\n"),
        ] {
            let made = made(ProxyVersion::V1, client, us);
            assert_eq!(String::from_utf8_lossy(&made), line);
        }
    }

    #[test]
    fn a1_the_longest_line_has_room() {
        let longest = "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535";
        let line = made(ProxyVersion::V1, Some(longest), Some(longest));
        assert!(line.ends_with(b" 65535 65535\r\n") && line.len() <= LONGEST, "{line:?}");
    }

    #[test]
    fn a1_version_2_is_binary() {
        let beginning = *b"\r\n\r\n\0\r\nQUIT\n\x21";
        let rest = |client, us| {
            let made = made(ProxyVersion::V2, client, us);
            made.strip_prefix(&beginning).expect("the signature").to_vec()
        };
        assert_eq!(
            rest(Some("192.0.2.7:258"), Some("198.51.100.1:443")),
            [0x11, 0, 12, 192, 0, 2, 7, 198, 51, 100, 1, 1, 2, 1, 187]
        );
        let v6 = rest(Some("[2001:db8::7]:258"), Some("192.0.2.1:443"));
        assert_eq!(v6.len(), 3 + 36);
        assert_eq!(v6[..7], [0x21, 0, 36, 0x20, 1, 0x0d, 0xb8]);
        assert_eq!(v6[29..], [0xff, 0xff, 192, 0, 2, 1, 1, 2, 1, 187]);
        assert_eq!(rest(None, None), [0, 0, 0]);
    }
}
