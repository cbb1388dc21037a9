//! The address rules (R1, R2): which address a socket binds instead of the one
//! that it asked for. Pure: bytes and values in, values out. Knows no file
//! descriptor, no environment and no allocator; the tests of the supervisor
//! include it.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// What a socket can be reached over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stack {
    /// An `AF_INET` socket.
    V4,
    /// An `AF_INET6` socket with `IPV6_V6ONLY`.
    V6Only,
    /// An `AF_INET6` socket that takes IPv4 clients too.
    Dual,
}

/// The two ports of a relocation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    /// What the program asks for.
    pub(crate) old: u16,
    /// What it gets, on loopback.
    pub(crate) new: u16,
}

impl Ports {
    /// Whether a bind to `port` is moved. The new port counts too: a program
    /// that reads its port back with `getsockname()` and binds the other family
    /// to what it read must not become public there (R2).
    pub(crate) fn concern(self, port: u16) -> bool {
        port == self.old || port == self.new
    }
}

/// Where a socket that asks for `wanted` is bound instead, at `port`, or `None`
/// if the kernel will refuse the address for a socket of this kind anyway. Flow
/// information and scope are dropped: they mean nothing on loopback.
pub(crate) fn relocate(wanted: IpAddr, stack: Stack, port: u16) -> Option<SocketAddr> {
    let ip = match (wanted, stack) {
        (IpAddr::V4(ip), Stack::V4) => IpAddr::V4(loopback_v4(ip)),
        (IpAddr::V6(ip), Stack::V6Only | Stack::Dual) => IpAddr::V6(loopback_v6(ip, stack)),
        (IpAddr::V4(_), _) | (IpAddr::V6(_), Stack::V4) => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// Where the socket is bound if the address of [`relocate`] is taken, or `None`
/// if there is no other one: [`relocate`] gives two addresses that differ in their
/// first byte alone the same result. A loopback address and the unspecified one
/// have no other: a program that binds one of these twice gets the error.
pub(crate) fn fallback(wanted: IpAddr, stack: Stack, port: u16) -> Option<SocketAddr> {
    let ip = match (wanted, stack) {
        (IpAddr::V4(ip), Stack::V4) => IpAddr::V4(other_v4(ip)?),
        (IpAddr::V6(ip), Stack::Dual) => {
            IpAddr::V6(other_v4(ip.to_ipv4_mapped()?)?.to_ipv6_mapped())
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// Reads a `struct sockaddr` as the kernel's `bind()` would; `None` for other
/// families and for lengths that it refuses.
pub(crate) fn decode(bytes: &[u8]) -> Option<SocketAddr> {
    let port = u16::from_be_bytes(field(bytes, 2)?);
    match u16::from_ne_bytes(field(bytes, 0)?) {
        AF_INET6 if bytes.len() >= LEN_V6_RFC2133.into() => {
            let ip = Ipv6Addr::from(field::<16>(bytes, 8)?);
            Some(SocketAddr::V6(SocketAddrV6::new(ip, port, 0, 0)))
        }
        family @ (AF_INET | AF_UNSPEC) if bytes.len() >= LEN_V4.into() => {
            let ip = Ipv4Addr::from(field::<4>(bytes, 4)?);
            // inet_bind() still takes AF_UNSPEC for AF_INET if the address is INADDR_ANY.
            (family == AF_INET || ip.is_unspecified())
                .then_some(SocketAddr::V4(SocketAddrV4::new(ip, port)))
        }
        _ => None,
    }
}

/// A `struct sockaddr_in` or `struct sockaddr_in6`.
pub(crate) struct Encoded {
    bytes: [u8; 28],
    length: u8,
}

impl Encoded {
    /// Writes the address as the kernel reads it.
    pub(crate) fn new(address: SocketAddr) -> Encoded {
        let mut bytes = [0; 28];
        let length = match address {
            SocketAddr::V4(v4) => {
                put(&mut bytes, 0, AF_INET.to_ne_bytes());
                put(&mut bytes, 4, v4.ip().octets());
                LEN_V4
            }
            SocketAddr::V6(v6) => {
                put(&mut bytes, 0, AF_INET6.to_ne_bytes());
                put(&mut bytes, 8, v6.ip().octets());
                LEN_V6
            }
        };
        put(&mut bytes, 2, address.port().to_be_bytes());
        Encoded { bytes, length }
    }

    /// The bytes, and how many of them `bind()` is to read.
    pub(crate) fn parts(&self) -> (&[u8], u32) {
        (&self.bytes, self.length.into())
    }
}

// Alike on every Linux architecture.
const AF_UNSPEC: u16 = 0;
pub(crate) const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// `sizeof(struct sockaddr_in)`; the kernel takes no less.
const LEN_V4: u8 = 16;
/// `sizeof(struct sockaddr_in6)`.
const LEN_V6: u8 = 28;
/// The size of that structure before it had a scope; the kernel still takes it.
const LEN_V6_RFC2133: u8 = 24;

/// The unspecified address becomes 127.0.0.1. Another address keeps its last three
/// bytes, so that a program that binds two addresses still binds two. But an
/// address such as 10.0.0.1 does not become 127.0.0.1, which the program may bind
/// later: nginx does so if its configuration has them in this order.
fn loopback_v4(ip: Ipv4Addr) -> Ipv4Addr {
    let [_, b, c, d] = ip.octets();
    match Ipv4Addr::new(127, b, c, d) {
        _ if ip.is_unspecified() => Ipv4Addr::LOCALHOST,
        Ipv4Addr::LOCALHOST if !ip.is_loopback() => spread(ip),
        moved => moved,
    }
}

fn other_v4(ip: Ipv4Addr) -> Option<Ipv4Addr> {
    let other = spread(ip);
    let own = ip.is_unspecified() || ip.is_loopback();
    (!own && other != loopback_v4(ip)).then_some(other)
}

/// An address in 127/8 that depends on all four bytes of `ip`, by Fibonacci
/// hashing (Knuth, TAOCP 6.4). The last byte stays, so that the result is the
/// address of a network, or a broadcast address, only if `ip` was one.
fn spread(ip: Ipv4Addr) -> Ipv4Addr {
    let [.., d] = ip.octets();
    let [b, c, ..] = u32::from(ip).wrapping_mul(0x9e37_79b1).to_be_bytes();
    Ipv4Addr::new(127, b, c, d)
}

/// IPv6 has one loopback address only. A socket that also serves IPv4 stays
/// reachable over IPv4, which the bridge tries first.
fn loopback_v6(ip: Ipv6Addr, stack: Stack) -> Ipv6Addr {
    match ip.to_ipv4_mapped() {
        Some(v4) => loopback_v4(v4).to_ipv6_mapped(),
        None if ip.is_unspecified() && stack == Stack::Dual => Ipv4Addr::LOCALHOST.to_ipv6_mapped(),
        None => Ipv6Addr::LOCALHOST,
    }
}

fn field<const N: usize>(bytes: &[u8], from: usize) -> Option<[u8; N]> {
    bytes.get(from..)?.first_chunk().copied()
}

fn put<const N: usize>(bytes: &mut [u8], from: usize, value: [u8; N]) {
    for (to, from) in bytes.iter_mut().skip(from).zip(value) {
        *to = from;
    }
}
