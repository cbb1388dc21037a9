//! A queue of connections in the order in which they give way: the oldest first, but the connections of a client that
//! has more than a few before all others. Knows the connections' numbers, which are the higher the later one has come.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use crate::clients::ClientId;

/// So many connections of one client are not many: a browser that loads a page has six.
pub(super) const FEW: usize = 6;

/// Whose a connection is: by this the queue tells clients apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum ClientKey {
    /// All the connections of one subscriber.
    Client(ClientId),
    /// A connection of a proxy or a Unix socket, which has many clients: each such connection counts for itself.
    Itself(u64),
}

/// How many connections a client has, at least [a few](FEW), and the number of the oldest of them.
type Rank = (usize, Reverse<u64>);

/// A queue of connections.
#[derive(Debug)]
pub(super) struct Queue<T> {
    by_client: HashMap<ClientKey, BTreeMap<u64, T>>,
    /// The clients by rank: the connections of the last are the first to give way.
    order: BTreeMap<Rank, ClientKey>,
    length: usize,
}

impl ClientKey {
    /// Whose the connection with this number is: this client's; none: its client is not known.
    pub(super) fn of(client: Option<ClientId>, number: u64) -> Self {
        client.map_or(Self::Itself(number), |client| Self::Client(client.subscriber()))
    }
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { by_client: HashMap::new(), order: BTreeMap::new(), length: 0 }
    }
}

impl<T> Queue<T> {
    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// How many connections are in it.
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// How many connections the client with the most has, at least [a few](FEW); 0 if the queue is empty.
    pub(super) fn most(&self) -> usize {
        self.first_rank().map_or(0, |(most, _)| most)
    }

    /// The rank of the client whose connection is the first to give way.
    pub(super) fn first_rank(&self) -> Option<Rank> {
        self.order.last_key_value().map(|(rank, _)| *rank)
    }

    /// The connection that is the first to give way.
    pub(super) fn first(&self) -> Option<&T> {
        let (whose, number) = self.first_of_all()?;
        self.get(whose, number)
    }

    pub(super) fn first_number(&self) -> Option<u64> {
        self.first_rank().map(|(_, Reverse(number))| number)
    }

    pub(super) fn get(&self, whose: ClientKey, number: u64) -> Option<&T> {
        self.by_client.get(&whose)?.get(&number)
    }

    /// All of them, in no order.
    pub(super) fn all(&self) -> impl Iterator<Item = (ClientKey, u64, &T)> {
        let of = |(whose, of_client): (&ClientKey, _)| (*whose, of_client);
        self.by_client.iter().map(of).flat_map(|(whose, of_client): (_, &BTreeMap<_, _>)| {
            of_client.iter().map(move |(number, one)| (whose, *number, one))
        })
    }

    pub(super) fn put(&mut self, whose: ClientKey, number: u64, one: T) {
        let of_client = self.by_client.entry(whose).or_default();
        if let Some(rank) = rank(of_client) {
            self.order.remove(&rank);
        }
        if of_client.insert(number, one).is_none() {
            self.length += 1;
        }
        self.order.extend(rank(of_client).map(|rank| (rank, whose)));
    }

    pub(super) fn take(&mut self, whose: ClientKey, number: u64) -> Option<T> {
        let of_client = self.by_client.get_mut(&whose)?;
        let before = rank(of_client)?;
        let one = of_client.remove(&number)?;
        self.length -= 1;
        self.order.remove(&before);
        match rank(of_client) {
            Some(rank) => drop(self.order.insert(rank, whose)),
            None => drop(self.by_client.remove(&whose)),
        }
        // The memory that many clients have needed is given back.
        if self.by_client.capacity() > 64 && self.by_client.len() < self.by_client.capacity() / 8 {
            let needed = self.by_client.len() * 2;
            self.by_client.shrink_to(needed);
        }
        Some(one)
    }

    pub(super) fn take_first(&mut self) -> Option<T> {
        let (whose, number) = self.first_of_all()?;
        self.take(whose, number)
    }

    /// Whose the connection is that is the first to give way, and its number.
    pub(super) fn first_of_all(&self) -> Option<(ClientKey, u64)> {
        let ((_, Reverse(number)), whose) = self.order.last_key_value()?;
        Some((*whose, *number))
    }
}

fn rank<T>(of_client: &BTreeMap<u64, T>) -> Option<Rank> {
    let (oldest, _) = of_client.first_key_value()?;
    Some((of_client.len().max(FEW), Reverse(*oldest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l5_many_clients_leave_nothing_behind() {
        let mut line = Queue::default();
        let all: Vec<_> =
            (0..10_000).map(|n| (ClientKey::of(Some(ClientId::User(n)), 0), n)).collect();
        for (whose, number) in &all {
            line.put(*whose, (*number).into(), ());
        }
        assert_eq!((line.all().count(), line.len()), (all.len(), all.len()));
        for (whose, number) in all {
            assert_eq!(line.take(whose, number.into()), Some(()));
            assert_eq!(line.take(whose, number.into()), None);
        }
        assert!(line.is_empty() && line.first_rank().is_none());
        assert!(line.by_client.capacity() <= 64, "{}", line.by_client.capacity());
    }
}
