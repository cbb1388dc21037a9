//! The clients that have a connection, and how many each has. There are none without a connection here, so that the
//! table is at most as long as there are connections, whatever addresses an attacker has. Knows no socket.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A client, whichever connection it uses: what limits count by, and people search a log for. On a TCP port a client is
/// known by its address, on a Unix socket by its user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClientId {
    /// By its address.
    Address(IpAddr),
    /// By its user id.
    User(u32),
}

/// Whether a client may ask for anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    Welcome,
    /// Its address is none of those that may connect.
    Stranger,
    /// It has as many connections as one client may have, without this one.
    OneTooMany,
}

/// The clients that have a connection, and how many each may have.
#[derive(Debug)]
pub(crate) struct Clients {
    most: usize,
    open: Mutex<HashMap<ClientId, usize>>,
}

/// One of the counted connections of a client, until this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    clients: Arc<Clients>,
    client: ClientId,
}

impl ClientId {
    /// The client as limits count it. An IPv6 client is its network of 64 bits: with one address it has the 2^64 of its network.
    pub(crate) fn counted(self) -> Self {
        self.of_ipv6(|[a, b, c, d, ..]| Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
    }

    /// The client by its contract with a provider: with one IPv6 contract a client may have the 256 networks of a /56
    /// (RFC 6177, section 2).
    pub(crate) fn subscriber(self) -> Self {
        self.of_ipv6(|[a, b, c, d, ..]| Ipv6Addr::new(a, b, c, d & 0xff00, 0, 0, 0, 0))
    }

    fn of_ipv6(self, network: impl Fn([u16; 8]) -> Ipv6Addr) -> Self {
        match self {
            Self::Address(IpAddr::V6(address)) if address.to_ipv4_mapped().is_none() => {
                Self::Address(network(address.segments()).into())
            }
            Self::Address(address) => Self::Address(address.to_canonical()),
            user @ Self::User(_) => user,
        }
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(out),
            Self::User(user) => write!(out, "unix:uid={user}"),
        }
    }
}

impl Clients {
    /// For clients that may have as many connections each.
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, open: Mutex::default() })
    }

    /// Counts one connection more of a client. Connections beyond the limit are counted as well, so that the client can
    /// be told; beyond twice the limit there is none.
    pub(crate) fn enter(self: &Arc<Self>, client: ClientId) -> Option<(Place, Standing)> {
        let client = client.counted();
        let mut clients = self.clients();
        let open = clients.entry(client).or_default();
        if *open >= self.most.saturating_mul(2) {
            return None;
        }
        *open += 1;
        let standing = if *open > self.most { Standing::OneTooMany } else { Standing::Welcome };
        drop(clients);
        Some((Place { clients: Arc::clone(self), client }, standing))
    }

    fn leave(&self, client: ClientId) {
        let mut clients = self.clients();
        let Some(open) = clients.get_mut(&client) else { return };
        *open -= 1;
        if *open > 0 {
            return;
        }
        clients.remove(&client);
        // The memory that many clients have needed is given back.
        if clients.capacity() > 64 && clients.len() < clients.capacity() / 8 {
            let needed = clients.len() * 2;
            clients.shrink_to(needed);
        }
    }

    fn clients(&self) -> MutexGuard<'_, HashMap<ClientId, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.clients.leave(self.client);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> ClientId {
        ClientId::Address(text.parse().unwrap())
    }

    fn standing(clients: &Arc<Clients>, client: ClientId) -> Option<(Place, Standing)> {
        clients.enter(client)
    }

    #[test]
    fn a4_a_client_has_so_many_places_and_gets_them_back() {
        let clients = Clients::new(2);
        let client = address("192.0.2.1");
        let mut held: Vec<_> = (0..4).map(|_| standing(&clients, client).unwrap()).collect();
        let standings: Vec<_> = held.iter().map(|(_, standing)| *standing).collect();
        let (welcome, many) = (Standing::Welcome, Standing::OneTooMany);
        assert_eq!(standings, [welcome, welcome, many, many]);
        assert!(standing(&clients, client).is_none());
        assert_eq!(standing(&clients, address("192.0.2.2")).unwrap().1, welcome);
        assert_eq!(standing(&clients, ClientId::User(7)).unwrap().1, welcome);
        held.truncate(1);
        assert_eq!(standing(&clients, client).unwrap().1, welcome);
    }

    #[test]
    fn a4_an_ipv6_network_of_64_bits_is_one_client() {
        let clients = Clients::new(1);
        let _held = standing(&clients, address("2001:db8:0:1::1")).unwrap();
        let beside = standing(&clients, address("2001:db8:0:1:ffff::2")).unwrap();
        assert_eq!(beside.1, Standing::OneTooMany);
        assert_eq!(standing(&clients, address("2001:db8:0:2::1")).unwrap().1, Standing::Welcome);
        let _held = standing(&clients, address("::ffff:192.0.2.1")).unwrap();
        assert_eq!(standing(&clients, address("192.0.2.1")).unwrap().1, Standing::OneTooMany);
    }

    #[test]
    fn l5_an_ipv6_network_of_56_bits_is_one_subscriber() {
        let subscriber = |text: &str| address(text).subscriber();
        assert_eq!(subscriber("2001:db8:0:1::1"), subscriber("2001:db8:0:ff:1::"));
        assert_ne!(subscriber("2001:db8:0:1::1"), subscriber("2001:db8:0:101::1"));
        assert_eq!(subscriber("::ffff:192.0.2.1"), subscriber("192.0.2.1"));
    }

    #[test]
    fn a4_many_addresses_grow_the_table_no_further_than_their_connections() {
        let clients = Clients::new(1);
        let network = |number: usize| address(&format!("2001:db8:0:{number:x}::1"));
        for round in 0..50_000 {
            drop(standing(&clients, network(round)).unwrap());
        }
        assert_eq!(clients.clients().len(), 0);
        let held: Vec<_> = (0..10_000).map(|number| standing(&clients, network(number))).collect();
        assert_eq!(clients.clients().len(), held.len());
        drop(held);
        assert_eq!(clients.clients().len(), 0);
        assert!(clients.clients().capacity() <= 64, "{}", clients.clients().capacity());
    }
}
