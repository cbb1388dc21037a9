//! An IPv4 address of its own for each client, from a block that no client connects from: the same whenever the client
//! comes, and that of no other client that is remembered. Knows clients by address, IPv6 ones by their /64; must not
//! know what the addresses are for.
//!
//! The address is computed from the client's, so that it is the same after our next start, too. Where two clients would
//! have the same, the later one gets another. [`MOST`] clients are remembered; then those are forgotten that have not
//! come for long, so that nobody makes the memory grow.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Mutex, PoisonError};

use crate::clients::ClientId;

/// How many clients are remembered.
const MOST: usize = 65_536;

/// Where the addresses are from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Block {
    /// 127/8 without the part that is used for other things, 127.0/16.
    Loopback,
    /// 240/4, which nobody has (RFC 1112, section 4).
    Reserved,
}

/// The addresses that clients have.
#[derive(Debug)]
pub(crate) struct Addresses {
    block: Block,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    seats: HashMap<Key, Seat>,
    taken: HashMap<Ipv4Addr, Key>,
    /// The clients in the order in which they are forgotten. One that has come meanwhile goes to the end instead.
    order: VecDeque<Key>,
}

#[derive(Debug)]
struct Seat {
    address: Ipv4Addr,
    /// Whether the client has come since it was put into `order`.
    has_come: bool,
}

/// What a client is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    V4(u32),
    /// The first 64 bits: a client that has one address of such a network has all.
    V6(u64),
    User(u32),
}

impl Addresses {
    pub(crate) fn from(block: Block) -> Self {
        Self { block, known: Mutex::default() }
    }

    /// The address of this client.
    pub(crate) fn of(&self, client: ClientId) -> Ipv4Addr {
        let key = Key::from(client);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(seat) = known.seats.get_mut(&key) {
            seat.has_come = true;
            return seat.address;
        }
        if known.seats.len() >= MOST {
            known.forget_one();
        }
        let address = (0..u64::MAX)
            .filter_map(|attempt| self.block.address(key.spread(attempt)))
            .find(|address| !known.taken.contains_key(address))
            .expect("there are more addresses than clients are remembered");
        known.taken.insert(address, key);
        known.seats.insert(key, Seat { address, has_come: false });
        known.order.push_back(key);
        address
    }
}

impl Known {
    fn forget_one(&mut self) {
        while let Some(key) = self.order.pop_front() {
            let Some(seat) = self.seats.get_mut(&key) else { continue };
            if std::mem::take(&mut seat.has_come) {
                self.order.push_back(key);
                continue;
            }
            self.taken.remove(&seat.address);
            self.seats.remove(&key);
            return;
        }
    }
}

impl Block {
    /// The address with this number. `None`: it may be a network's or a broadcast address, or is left out of the block.
    fn address(self, number: u64) -> Option<Ipv4Addr> {
        let [.., a, b, c, d] = number.to_be_bytes();
        let address = match self {
            Self::Loopback => (b != 0).then_some(Ipv4Addr::new(127, b, c, d)),
            Self::Reserved => Some(Ipv4Addr::new(0xf0 | a, b, c, d)),
        };
        address.filter(|_| d != 0 && d != 255)
    }
}

impl From<ClientId> for Key {
    fn from(client: ClientId) -> Self {
        match client {
            ClientId::Address(IpAddr::V4(ip)) => Self::V4(ip.to_bits()),
            ClientId::Address(IpAddr::V6(ip)) => Self::V6((ip.to_bits() >> 64) as u64),
            ClientId::User(user) => Self::User(user),
        }
    }
}

impl Key {
    /// A hash of all of the key, another for each attempt (SplitMix64: Steele, Lea and Flood, OOPSLA 2014).
    fn spread(self, attempt: u64) -> u64 {
        let (kind, bits) = match self {
            Self::V4(bits) => (1, bits.into()),
            Self::V6(bits) => (2, bits),
            Self::User(bits) => (3, bits.into()),
        };
        mix(mix(bits ^ (kind << 62)).wrapping_add(attempt))
    }
}

fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn client(address: &str) -> ClientId {
        ClientId::Address(address.parse().expect("an address"))
    }

    #[test]
    fn a1_a_client_has_one_address_and_no_other_has_it() {
        let addresses = Addresses::from(Block::Loopback);
        let one = addresses.of(client("192.0.2.7"));
        assert!(one.is_loopback() && one.octets()[1] != 0);
        let others = (0..50_000).map(|n| ClientId::Address(Ipv4Addr::from_bits(n).into()));
        let distinct: HashSet<_> = others.map(|other| addresses.of(other)).collect();
        assert_eq!(distinct.len(), 50_000);
        assert!(!distinct.contains(&one));
        assert_eq!(addresses.of(client("192.0.2.7")), one);
        assert_ne!(addresses.of(ClientId::User(7)), addresses.of(client("0.0.0.7")));
    }

    #[test]
    fn a1_the_address_is_the_same_after_the_next_start() {
        let again = || Addresses::from(Block::Loopback).of(client("192.0.2.7"));
        assert_eq!(again(), again());
        assert_eq!(again(), Ipv4Addr::new(127, 246, 63, 169), "as of every version");
    }

    #[test]
    fn a1_a_network_of_ipv6_is_one_client() {
        let addresses = Addresses::from(Block::Reserved);
        let one = addresses.of(client("2001:db8::7"));
        assert_eq!(one.octets()[0] & 0xf0, 0xf0);
        assert_eq!(addresses.of(client("2001:db8::ffff:1")), one);
        assert_ne!(addresses.of(client("2001:db8:0:1::7")), one);
    }

    #[test]
    fn a1_no_network_of_clients_makes_the_memory_grow() {
        let addresses = Addresses::from(Block::Loopback);
        let regular = client("192.0.2.7");
        let its = addresses.of(regular);
        for n in 0..3 * MOST as u128 {
            let network = (0x2001_0db8_u128 << 96) | (n << 64);
            addresses.of(ClientId::Address(IpAddr::V6(network.into())));
            if n % 1000 == 0 {
                assert_eq!(addresses.of(regular), its, "who comes is remembered");
            }
        }
        let known = addresses.known.lock().expect("not poisoned");
        assert_eq!((known.seats.len(), known.taken.len()), (MOST, MOST));
        assert!(known.order.len() <= MOST);
    }
}
