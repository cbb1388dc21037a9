//! Blocks of addresses, as CIDR has them. Knows nothing of what they are for.

use std::net::IpAddr;

use crate::peer::PeerAddress;

/// A block of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    /// How many leading bits its addresses have in common.
    bits: u32,
}

/// A set of blocks, and perhaps the clients of Unix sockets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Networks {
    /// The blocks.
    pub blocks: Vec<Network>,
    /// Whether clients of Unix sockets are in the set, whichever user connects.
    pub unix: bool,
}

impl Network {
    /// A block with this prefix length; `None` if the address has fewer bits. A block of IPv4-mapped IPv6 addresses
    /// becomes the IPv4 block.
    pub fn new(address: IpAddr, bits: u32) -> Option<Self> {
        let left = length(address).checked_sub(bits)?;
        let canonical = address.to_canonical();
        match length(canonical).checked_sub(left) {
            Some(bits) => Some(Self { address: canonical, bits }),
            None => Some(Self { address, bits }),
        }
    }

    /// The block of this address alone.
    pub fn one(address: IpAddr) -> Self {
        let address = address.to_canonical();
        Self { address, bits: length(address) }
    }

    /// Whether the address is in the block. An IPv4-mapped IPv6 address counts as the IPv4 address.
    pub(crate) fn has(&self, address: IpAddr) -> bool {
        let shift = length(self.address) - self.bits;
        let is_same = |one: u128, other: u128| one.checked_shr(shift) == other.checked_shr(shift);
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => {
                is_same(ours.to_bits().into(), theirs.to_bits().into())
            }
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => is_same(ours.to_bits(), theirs.to_bits()),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl Networks {
    /// Whether a connection from this address is in the set.
    pub(crate) fn have(&self, address: PeerAddress) -> bool {
        match address {
            PeerAddress::Internet(address) => self.have_address(address.ip()),
            PeerAddress::Unix { .. } => self.unix,
        }
    }

    pub(crate) fn have_address(&self, address: IpAddr) -> bool {
        self.blocks.iter().any(|block| block.has(address))
    }
}

fn length(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(address: &str, bits: u32) -> Network {
        Network::new(address.parse().unwrap(), bits).unwrap()
    }

    #[test]
    fn k7_the_addresses_of_a_network() {
        for (network, address, expected) in [
            (network("10.0.0.0", 8), "10.255.0.1", true),
            (network("10.0.0.0", 8), "11.0.0.1", false),
            (network("10.1.2.3", 8), "10.9.9.9", true),
            (network("192.0.2.1", 32), "192.0.2.1", true),
            (network("192.0.2.1", 32), "192.0.2.0", false),
            (network("0.0.0.0", 0), "192.0.2.1", true),
            (network("0.0.0.0", 0), "::1", false),
            (network("::", 0), "192.0.2.1", false),
            (network("::", 0), "2001:db8::1", true),
            (network("::", 0), "::ffff:192.0.2.1", false),
            (network("127.0.0.0", 8), "::ffff:127.0.0.1", true),
            (network("127.0.0.0", 8), "0.0.0.0", false),
            (network("fd00::", 8), "fdff::1", true),
            (network("fd00::", 8), "fe80::1", false),
            (network("::1", 128), "::1", true),
            (network("::1", 128), "::2", false),
            (network("::ffff:10.0.0.0", 104), "10.9.9.9", true),
            (network("::ffff:10.0.0.0", 104), "11.0.0.1", false),
        ] {
            assert_eq!(network.has(address.parse().unwrap()), expected, "{network:?} {address}");
        }
        assert_eq!(Network::new("10.0.0.0".parse().unwrap(), 33), None);
        assert_eq!(Network::new("::".parse().unwrap(), 129), None);
    }

    #[test]
    fn a3_a_unix_socket_is_none_of_any_block() {
        let unix = PeerAddress::Unix { user: 0, process: None };
        let all = vec![network("0.0.0.0", 0), network("::", 0)];
        assert!(!Networks { blocks: all.clone(), unix: false }.have(unix));
        assert!(Networks { blocks: vec![], unix: true }.have(unix));
        let internet = std::net::SocketAddr::from(([192, 0, 2, 1], 1)).into();
        assert!(Networks { blocks: all, unix: false }.have(internet));
        assert!(!Networks { blocks: vec![], unix: true }.have(internet));
    }
}
