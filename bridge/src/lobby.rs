//! Connections that are no session yet, and which of them gives way where there is room for no more (L5): the oldest, but
//! those of a client first that has many of them. So whoever opens connections again and again is in his own way, and a
//! good client of another address is not. Knows who came when; must not know what anybody says.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::future::poll_fn;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use futures_util::task::AtomicWaker;

use crate::clients::ClientId;

/// So many connections of one client are not many: a browser that loads a page has six, and some people share an address.
const FEW: usize = 16;

const WAITS: u8 = 0;
const GIVES_WAY: u8 = 1;
const IS_ADMITTED: u8 = 2;
const HAS_GONE: u8 = 3;

/// Those who wait.
#[derive(Debug, Default)]
pub(crate) struct Lobby {
    guests: Mutex<Guests>,
    /// How many are about to give way.
    leaving: AtomicUsize,
}

#[derive(Debug, Default)]
struct Guests {
    /// How many have come.
    come: u64,
    /// By their clients, each by its number.
    waiting: HashMap<ClientId, BTreeMap<u64, Arc<Stay>>>,
    /// Which client gives way; the last is the first to do so.
    order: BTreeMap<Rank, ClientId>,
}

/// How many connections a client has, beyond [a few](FEW), and the number of the oldest of them.
type Rank = (usize, Reverse<u64>);

/// How it is with one of them.
#[derive(Debug, Default)]
struct Stay {
    state: AtomicU8,
    task: AtomicWaker,
}

/// A connection in the lobby, until it is dropped.
#[derive(Debug)]
pub(crate) struct Guest {
    lobby: Arc<Lobby>,
    client: Mutex<ClientId>,
    number: u64,
    stay: Arc<Stay>,
}

impl Lobby {
    /// Somebody has come, as a connection of this client's.
    pub(crate) fn enter(self: &Arc<Self>, client: ClientId) -> Guest {
        let (client, stay) = (client.counted(), Arc::<Stay>::default());
        let mut guests = self.guests();
        guests.come += 1;
        let number = guests.come;
        guests.put(client, number, Arc::clone(&stay));
        drop(guests);
        Guest { lobby: Arc::clone(self), client: Mutex::new(client), number, stay }
    }

    /// Whether there is anybody who could give way.
    pub(crate) fn is_empty(&self) -> bool {
        self.guests().order.is_empty()
    }

    /// How many have been told to give way, and have not ended yet.
    pub(crate) fn leaving(&self) -> usize {
        self.leaving.load(Ordering::Acquire)
    }

    /// One of them has ended that has [given way](Guest::has_given_way).
    pub(crate) fn has_left(&self) {
        self.leaving.fetch_sub(1, Ordering::AcqRel);
    }

    /// Has one of them give way. False: there is none.
    pub(crate) fn make_room(&self) -> bool {
        let mut guests = self.guests();
        while let Some(stay) = guests.first() {
            self.leaving.fetch_add(1, Ordering::AcqRel);
            // Else it becomes a session just now.
            if stay.changes(WAITS, GIVES_WAY) {
                drop(guests);
                stay.task.wake();
                return true;
            }
            self.has_left();
        }
        false
    }

    fn guests(&self) -> MutexGuard<'_, Guests> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Guests {
    fn put(&mut self, client: ClientId, number: u64, stay: Arc<Stay>) {
        let of_client = self.waiting.entry(client).or_default();
        if let Some(rank) = rank(of_client) {
            self.order.remove(&rank);
        }
        of_client.insert(number, stay);
        self.order.extend(rank(of_client).map(|rank| (rank, client)));
    }

    fn take(&mut self, client: ClientId, number: u64) -> Option<Arc<Stay>> {
        let of_client = self.waiting.get_mut(&client)?;
        let before = rank(of_client)?;
        let stay = of_client.remove(&number)?;
        self.order.remove(&before);
        match rank(of_client) {
            Some(rank) => drop(self.order.insert(rank, client)),
            None => drop(self.waiting.remove(&client)),
        }
        // What many have needed is given back.
        if self.waiting.capacity() > 64 && self.waiting.len() < self.waiting.capacity() / 8 {
            let needed = self.waiting.len() * 2;
            self.waiting.shrink_to(needed);
        }
        Some(stay)
    }

    /// Takes out whose turn it is.
    fn first(&mut self) -> Option<Arc<Stay>> {
        let ((_, Reverse(number)), client) = self.order.last_key_value()?;
        let (number, client) = (*number, *client);
        self.take(client, number)
    }
}

fn rank(of_client: &BTreeMap<u64, Arc<Stay>>) -> Option<Rank> {
    let (oldest, _) = of_client.first_key_value()?;
    Some((of_client.len().max(FEW), Reverse(*oldest)))
}

impl Stay {
    fn changes(&self, from: u8, to: u8) -> bool {
        self.state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

impl Guest {
    /// It is another client's than it seemed: a proxy has said whose.
    pub(crate) fn is_of(&self, client: ClientId) {
        let client = client.counted();
        let mut guests = self.lobby.guests();
        let before = std::mem::replace(
            &mut *self.client.lock().unwrap_or_else(PoisonError::into_inner),
            client,
        );
        // Else it gives way already.
        if let Some(stay) = guests.take(before, self.number) {
            guests.put(client, self.number, stay);
        }
    }

    /// It becomes a session, and gives way to nobody from now on: also where it was told to just now, as what it asks for
    /// had come before that. Somebody else is to give way then.
    pub(crate) fn admit(&self) {
        if !self.stay.changes(WAITS, IS_ADMITTED) && self.stay.changes(GIVES_WAY, IS_ADMITTED) {
            self.lobby.has_left();
        }
        self.leave();
    }

    /// Whether it ends as one that was told to give way: when it has, the lobby is [told](Lobby::has_left).
    pub(crate) fn has_given_way(&self) -> bool {
        self.stay.changes(GIVES_WAY, HAS_GONE)
    }

    fn leave(&self) {
        let client = *self.client.lock().unwrap_or_else(PoisonError::into_inner);
        self.lobby.guests().take(client, self.number);
    }

    /// Waits until it is to give way.
    pub(crate) async fn gives_way(&self) {
        poll_fn(|cx| {
            self.stay.task.register(cx.waker());
            match self.stay.state.load(Ordering::Acquire) {
                GIVES_WAY => Poll::Ready(()),
                _ => Poll::Pending,
            }
        })
        .await;
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.leave();
        // It ends by a panic, or is cut off.
        if self.has_given_way() {
            self.lobby.has_left();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(number: u32) -> ClientId {
        ClientId::User(number)
    }

    fn gives_way(guest: &Guest) -> bool {
        guest.stay.state.load(Ordering::Acquire) == GIVES_WAY
    }

    #[test]
    fn l5_the_oldest_gives_way_and_no_session_does() {
        let lobby = Arc::<Lobby>::default();
        assert!(!lobby.make_room());
        let guests: Vec<_> = (0..5).map(|number| lobby.enter(client(number))).collect();
        guests[0].admit();
        assert!(lobby.make_room());
        assert_eq!(
            guests.iter().map(gives_way).collect::<Vec<_>>(),
            [false, true, false, false, false]
        );
        let mut guests = guests.into_iter();
        let (_session, _sent_away, left) = (guests.next(), guests.next(), guests.next());
        drop(left);
        assert!(lobby.make_room() && lobby.make_room());
        assert!(guests.all(|guest| gives_way(&guest)));
        assert!(!lobby.make_room() && lobby.is_empty());
    }

    #[test]
    fn l5_who_has_asked_in_time_is_admitted_and_another_gives_way() {
        let lobby = Arc::<Lobby>::default();
        let [asks, waits] = [1, 2].map(|number| lobby.enter(client(number)));
        assert!(lobby.make_room());
        assert_eq!(lobby.leaving(), 1);
        asks.admit();
        assert_eq!(lobby.leaving(), 0);
        assert!(lobby.make_room() && gives_way(&waits) && !gives_way(&asks));
        drop(asks);
        assert_eq!(lobby.leaving(), 1);
        assert!(waits.has_given_way());
        drop(waits);
        assert_eq!(lobby.leaving(), 1, "its connection is still to end");
        lobby.has_left();
        let panics = lobby.enter(client(3));
        assert!(lobby.make_room());
        drop(panics);
        assert_eq!(lobby.leaving(), 0);
    }

    #[test]
    fn l5_who_has_many_connections_is_in_his_own_way() {
        let lobby = Arc::<Lobby>::default();
        let good: Vec<_> = (0..6).map(|_| lobby.enter(client(1))).collect();
        let other = lobby.enter(client(2));
        let many: Vec<_> = (0..2 * FEW).map(|_| lobby.enter(client(3))).collect();
        for _ in 0..FEW {
            assert!(lobby.make_room());
        }
        assert!(many[..FEW].iter().all(gives_way) && !many[FEW..].iter().any(gives_way));
        assert!(!good.iter().any(gives_way) && !gives_way(&other));
        // Nobody has many any more.
        assert!(lobby.make_room());
        assert!(gives_way(&good[0]));
    }

    #[test]
    fn l5_a_connection_is_that_clients_of_whom_a_proxy_says_so() {
        let lobby = Arc::<Lobby>::default();
        let others: Vec<_> = (0..FEW).map(|_| lobby.enter(client(1))).collect();
        let guest = lobby.enter(client(2));
        guest.is_of(client(1));
        assert!(lobby.make_room());
        assert!(gives_way(&others[0]));
        drop((others, guest));
        let guests = lobby.guests();
        assert!(guests.waiting.is_empty() && guests.order.is_empty());
    }

    #[test]
    fn l5_many_clients_leave_nothing_behind() {
        let lobby = Arc::<Lobby>::default();
        let guests: Vec<_> = (0..10_000).map(|number| lobby.enter(client(number))).collect();
        drop(guests);
        let guests = lobby.guests();
        assert!(guests.waiting.capacity() <= 64, "{}", guests.waiting.capacity());
    }
}
