//! The address rules as a table: `rebind`'s own file, without a library around it.

#[path = "../../rebind/src/address.rs"]
mod address;

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use address::{Encoded, Ports, Stack, decode, fallback, relocate};

/// R2: where a socket goes, by its kind and what it asks for.
#[test]
fn r2_addresses() {
    let table = [
        (Stack::V4, "0.0.0.0", Some("127.0.0.1:9")),
        (Stack::V4, "127.0.0.1", Some("127.0.0.1:9")),
        (Stack::V4, "127.0.0.2", Some("127.0.0.2:9")),
        (Stack::V4, "192.0.2.7", Some("127.0.2.7:9")),
        (Stack::V4, "10.1.2.3", Some("127.1.2.3:9")),
        (Stack::V4, "10.0.0.1", Some("127.136.55.1:9")),
        (Stack::V4, "192.0.0.1", Some("127.94.55.1:9")),
        (Stack::V4, "::", None),
        (Stack::Dual, "::ffff:10.0.0.1", Some("[::ffff:127.136.55.1]:9")),
        (Stack::Dual, "::", Some("[::ffff:127.0.0.1]:9")),
        (Stack::Dual, "::ffff:0.0.0.0", Some("[::ffff:127.0.0.1]:9")),
        (Stack::Dual, "::ffff:127.0.0.1", Some("[::ffff:127.0.0.1]:9")),
        (Stack::Dual, "::ffff:192.0.2.7", Some("[::ffff:127.0.2.7]:9")),
        (Stack::Dual, "::1", Some("[::1]:9")),
        (Stack::Dual, "2001:db8::7", Some("[::1]:9")),
        (Stack::Dual, "0.0.0.0", None),
        (Stack::V6Only, "::", Some("[::1]:9")),
        (Stack::V6Only, "::1", Some("[::1]:9")),
        (Stack::V6Only, "2001:db8::7", Some("[::1]:9")),
        (Stack::V6Only, "fe80::7", Some("[::1]:9")),
        (Stack::V6Only, "0.0.0.0", None),
    ];
    for (stack, wanted, expected) in table {
        let expected = expected.map(|text| text.parse::<SocketAddr>().unwrap());
        let wanted: IpAddr = wanted.parse().unwrap();
        assert_eq!(relocate(wanted, stack, 9), expected, "{wanted} on {stack:?}");
    }
}

/// R2: where a socket goes if that address is taken. A wildcard address and one in 127/8
/// have no other one. Nor has an address that would be moved to 127.0.0.1: it has another one from the start.
#[test]
fn r2_other_addresses() {
    let table = [
        (Stack::V4, "0.0.0.0", None),
        (Stack::V4, "127.0.0.1", None),
        (Stack::V4, "127.9.8.7", None),
        (Stack::V4, "10.0.0.1", None),
        (Stack::V4, "10.10.0.1", Some("127.73.33.1:9")),
        (Stack::V4, "192.10.0.1", Some("127.31.33.1:9")),
        (Stack::V4, "::", None),
        (Stack::Dual, "::ffff:10.10.0.1", Some("[::ffff:127.73.33.1]:9")),
        (Stack::Dual, "::ffff:10.0.0.1", None),
        (Stack::Dual, "::ffff:0.0.0.0", None),
        (Stack::Dual, "::ffff:127.0.0.1", None),
        (Stack::Dual, "::", None),
        (Stack::Dual, "::1", None),
        (Stack::Dual, "0.0.0.0", None),
        (Stack::V6Only, "::", None),
        (Stack::V6Only, "2001:db8::7", None),
    ];
    for (stack, wanted, expected) in table {
        let expected = expected.map(|text| text.parse::<SocketAddr>().unwrap());
        let wanted: IpAddr = wanted.parse().unwrap();
        assert_eq!(fallback(wanted, stack, 9), expected, "{wanted} on {stack:?}");
    }
}

/// R2: each of the four bytes counts, and the other address is not the first one again.
#[test]
fn r2_other_addresses_differ() {
    let of = |[a, b, c, d]: [u8; 4]| {
        let wanted = IpAddr::from([a, b, c, d]);
        let other = fallback(wanted, Stack::V4, 9).unwrap();
        assert!(other.ip().is_loopback(), "{other}");
        assert_ne!(Some(other), relocate(wanted, Stack::V4, 9));
        other
    };
    for byte in 0..4 {
        let others = (1..127).map(|value| {
            let mut wanted = [10, 20, 30, 40];
            wanted[byte] = value;
            of(wanted)
        });
        assert_eq!(others.collect::<HashSet<_>>().len(), 126, "byte {byte}");
    }
}

/// R1, R2: the old port and the new one move, no other.
#[test]
fn r1_ports() {
    let ports = Ports { old: 5901, new: 40000 };
    assert!(ports.concern(5901));
    assert!(ports.concern(40000));
    for other in [0, 1, 5900, 5902, 40001, u16::MAX] {
        assert!(!ports.concern(other), "{other}");
    }
}

/// R1: what the kernel does not take for an address, `rebind.so` does not either.
#[test]
fn r1_lengths_and_families() {
    let v4 = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 7), 5901));
    let v6 = SocketAddr::from((Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7), 5901));
    for (address, length, least) in [(v4, 16, 16), (v6, 28, 24)] {
        let encoded = Encoded::new(address);
        let (bytes, told) = encoded.parts();
        assert_eq!(told, length);
        // A caller may pass the size of the largest address that there is.
        let mut bytes = bytes.to_vec();
        bytes.resize(128, 0xff);
        for length in 0..=bytes.len() {
            let expected = (length >= least).then_some(address);
            assert_eq!(decode(&bytes[..length]), expected, "{address}, {length} bytes");
        }
        for family in [1u16, 3, 16, 40, 0x0200, 0x0a00] {
            bytes[..2].copy_from_slice(&family.to_ne_bytes());
            assert_eq!(decode(&bytes), None, "family {family}");
        }
    }
    // The kernel takes AF_UNSPEC for AF_INET if the address is the wildcard 0.0.0.0.
    let mut unspecified = [0; 16];
    unspecified[2..4].copy_from_slice(&5901u16.to_be_bytes());
    assert_eq!(decode(&unspecified), Some(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 5901))));
    unspecified[4] = 192;
    assert_eq!(decode(&unspecified), None);
}
