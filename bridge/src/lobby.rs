//! Connections that are no session yet, and which of them gives way where there is room for no more (L5): the oldest, but
//! those of a client first that has many of them. So whoever opens connections again and again is in his own way, and a
//! good client of another address is not. One whose request is being answered goes last, and only if it takes nothing of the
//! answer. Knows who came when; must not know what anybody says.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::future::poll_fn;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::clients::ClientId;

/// So many connections of one client are not many: a browser that loads a page has six, and some people share an address.
const FEW: usize = 16;

/// How long nothing may have been taken of an answer before its connection gives way. Every ten seconds it is asked how much the
/// kernel of a slow client has taken.
const QUIET: Duration = Duration::from_secs(12);

/// How often at most all of those are looked at.
const LOOK: Duration = Duration::from_millis(100);

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
    /// Rung when there is somebody who could, and was nobody, or the other way round.
    changed: Notify,
}

#[derive(Debug, Default)]
struct Guests {
    /// How many have come.
    come: u64,
    /// By their clients, each by its number.
    waiting: HashMap<ClientId, BTreeMap<u64, Arc<Stay>>>,
    /// Which client gives way; the last is the first to do so.
    order: BTreeMap<Rank, ClientId>,
    /// Those who are being answered, by their numbers.
    answered: BTreeMap<u64, Arc<Stay>>,
    /// Before this none of them gives way.
    look: Option<Instant>,
}

/// How many connections a client has, beyond [a few](FEW), and the number of the oldest of them.
type Rank = (usize, Reverse<u64>);

/// How it is with one of them.
#[derive(Debug, Default)]
struct Stay {
    state: AtomicU8,
    task: AtomicWaker,
    answer: Mutex<Option<Answer>>,
}

/// An answer under way.
#[derive(Debug)]
struct Answer {
    /// How many bytes the client has taken on its connection.
    taken: u64,
    /// When that was new.
    since: Instant,
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
    pub(crate) fn has_any(&self) -> bool {
        let mut guests = self.guests();
        !guests.order.is_empty() || guests.quiet(Instant::now()).is_some()
    }

    /// When there may be somebody who can give way, if there is nobody now.
    pub(crate) fn next_look(&self) -> Option<Instant> {
        if self.has_any() { None } else { self.guests().look }
    }

    /// Waits until there is somebody who could give way, where there was nobody, or the other way round.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    fn tell_if(&self, has_changed: bool) {
        if has_changed {
            self.changed.notify_one();
        }
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
        self.make_room_at(Instant::now())
    }

    fn make_room_at(&self, now: Instant) -> bool {
        let mut guests = self.guests();
        while let Some(stay) = guests.first(now) {
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
    fn first(&mut self, now: Instant) -> Option<Arc<Stay>> {
        let Some(((_, Reverse(number)), client)) = self.order.last_key_value() else {
            let quiet = self.quiet(now)?;
            return self.answered.remove(&quiet);
        };
        let (number, client) = (*number, *client);
        self.take(client, number)
    }

    /// The oldest that takes nothing of its answer.
    fn quiet(&mut self, now: Instant) -> Option<u64> {
        if self.look.is_none_or(|look| now < look) {
            return None;
        }
        let is_quiet = |stay: &Stay| stay.is_quiet_at().is_none_or(|quiet| quiet <= now);
        let found = self.answered.iter().find(|(_, stay)| is_quiet(stay));
        if let Some((number, _)) = found {
            return Some(*number);
        }
        let next = self.answered.values().filter_map(|stay| stay.is_quiet_at()).min();
        self.look = next.map(|next| next.max(now + LOOK));
        None
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

    fn answer(&self) -> MutexGuard<'_, Option<Answer>> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When it gives way, if nothing more is taken of its answer until then.
    fn is_quiet_at(&self) -> Option<Instant> {
        self.answer().as_ref().map(|answer| answer.since + QUIET)
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

    /// Its request is being answered, and the client has taken so many bytes by now.
    pub(crate) fn is_answered(&self, taken: u64) {
        let since = Instant::now();
        let before = match &mut *self.stay.answer() {
            Some(answer) if answer.taken == taken => return,
            answer => answer.replace(Answer { taken, since }),
        };
        if before.is_none() {
            let mut guests = self.lobby.guests();
            // Else it gives way already, or is a session.
            if let Some(stay) = guests.take(self.client(), self.number) {
                guests.answered.insert(self.number, stay);
                guests.look.get_or_insert(since + QUIET);
                self.lobby.tell_if(guests.order.is_empty());
            }
        }
    }

    /// It has its answer, and waits with its next request.
    pub(crate) fn waits(&self) {
        if self.stay.answer().take().is_none() {
            return;
        }
        let mut guests = self.lobby.guests();
        if let Some(stay) = guests.answered.remove(&self.number) {
            self.lobby.tell_if(guests.order.is_empty());
            guests.put(self.client(), self.number, stay);
        }
    }

    fn client(&self) -> ClientId {
        *self.client.lock().unwrap_or_else(PoisonError::into_inner)
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
        let client = self.client();
        let mut guests = self.lobby.guests();
        if guests.take(client, self.number).is_none() {
            guests.answered.remove(&self.number);
        }
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
        assert!(!lobby.make_room() && !lobby.has_any());
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
    fn l5_whoever_takes_an_answer_goes_after_all_others_and_only_when_he_takes_nothing() {
        let lobby = Arc::<Lobby>::default();
        let [takes, stops, idle, begun] = [1, 1, 2, 1].map(|number| lobby.enter(client(number)));
        takes.is_answered(0);
        stops.is_answered(0);
        idle.is_answered(5);
        idle.waits();
        assert!(lobby.make_room() && gives_way(&idle));
        assert!(lobby.make_room() && gives_way(&begun));
        assert!(!lobby.make_room() && !lobby.has_any());
        let later = Instant::now() + QUIET;
        assert!(lobby.next_look().unwrap() <= later);
        takes.stay.answer().as_mut().unwrap().since += QUIET / 2;
        assert!(lobby.make_room_at(later) && gives_way(&stops) && !gives_way(&takes));
        assert!(!lobby.make_room_at(later));
        assert!(lobby.make_room_at(later + QUIET) && gives_way(&takes));
        drop((takes, stops, idle, begun));
        assert!(lobby.guests().answered.is_empty() && lobby.leaving() == 0);
    }

    #[test]
    fn l5_a_session_does_not_come_back_with_its_last_answer() {
        let lobby = Arc::<Lobby>::default();
        let [session, other] = [1, 2].map(|number| lobby.enter(client(number)));
        session.is_answered(0);
        session.admit();
        session.is_answered(7);
        session.waits();
        other.is_answered(0);
        drop(other);
        let guests = lobby.guests();
        assert!(guests.answered.is_empty() && guests.order.is_empty());
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
