//! The lobby: the table of connections that have no session yet, and the choice which of them gives way, that is, is
//! closed to make room for a new connection or to free memory (L5). The oldest gives way first, but the connections of
//! a client that has many go before all others. So a client that opens connections again and again displaces its own,
//! and not those of a good client with another address. A connection whose request is being answered goes last, and
//! only if its client takes nothing of the answer, or has many answers under way. Knows when connections came, and how
//! much memory is kept for them; must not know what is sent on them.

mod guests;
mod queue;

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::budget::Budget;
use crate::clients::ClientId;
use guests::{Answer, GIVES_WAY, GuestEntry, Guests, HAS_GONE, IS_ADMITTED, QUIET, WAITS};
use queue::ClientKey;

/// All connections that have no session yet.
#[derive(Debug)]
pub(crate) struct Lobby {
    guests: Mutex<Guests>,
    budget: Arc<Budget>,
    /// How many connections are about to give way, and how many bytes of the budget they will free.
    leaving: AtomicUsize,
    freeing: AtomicUsize,
    /// Notified when it may have changed which connection can give way, while the accept loop
    /// [waits](Lobby::waits_for_room) for that.
    changed: Notify,
    is_waited_for: AtomicBool,
}

/// When a connection could give way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Prospect {
    Now,
    /// At this time, or later.
    Later(Instant),
    /// There is none. A change of that is [told](Lobby::changed).
    Unknown,
}

/// Up to so many bytes at the beginning of a connection are not counted.
const LITTLE: usize = 1024;

/// A connection that has no session yet: it is in the lobby until this is dropped.
#[derive(Debug)]
pub(crate) struct Guest {
    lobby: Arc<Lobby>,
    whose: Mutex<ClientKey>,
    number: u64,
    stay: Arc<GuestEntry>,
}

impl Lobby {
    pub(crate) fn new(budget: Arc<Budget>) -> Arc<Self> {
        Arc::new(Self {
            guests: Mutex::default(),
            budget,
            leaving: AtomicUsize::new(0),
            freeing: AtomicUsize::new(0),
            changed: Notify::new(),
            is_waited_for: AtomicBool::new(false),
        })
    }

    /// A new connection has come, of this client. None: of a proxy or a Unix socket, whose clients cannot be told apart yet.
    pub(crate) fn enter(self: &Arc<Self>, client: Option<ClientId>) -> Guest {
        let stay = Arc::new(GuestEntry::new());
        let mut guests = self.guests();
        guests.come += 1;
        let number = guests.come;
        let whose = ClientKey::of(client, number);
        guests.waiting.put(whose, number, Arc::clone(&stay));
        drop(guests);
        Guest { lobby: Arc::clone(self), whose: Mutex::new(whose), number, stay }
    }

    /// When a connection could give way.
    pub(crate) fn prospect(&self, now: Instant) -> Prospect {
        let mut guests = self.guests();
        if guests.has_any(now) {
            return Prospect::Now;
        }
        guests.next_look(now).map_or(Prospect::Unknown, Prospect::Later)
    }

    /// Whether the accept loop waits for a connection to give way. It must say so before it asks whether a connection
    /// can, so that it is [told](Self::changed) of any change after that.
    pub(crate) fn waits_for_room(&self, is_waited_for: bool) {
        self.is_waited_for.store(is_waited_for, Ordering::Release);
    }

    /// Tells the accept loop, if it waits, that a connection has gone to another queue: none could give way before, or
    /// none can now.
    fn has_changed(&self) {
        if self.is_waited_for.load(Ordering::Acquire) {
            self.changed.notify_one();
        }
    }

    /// Waits until it may have changed which connection can give way.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// How many connections have been told to give way, and have not ended yet.
    pub(crate) fn leaving(&self) -> usize {
        self.leaving.load(Ordering::Acquire)
    }

    /// A connection has ended that has [given way](Guest::has_given_way).
    pub(crate) fn has_gone(&self) {
        self.leaving.fetch_sub(1, Ordering::AcqRel);
    }

    /// Has the next connection give way that can by `now`. False: there is none.
    pub(crate) fn make_room(&self, now: Instant) -> bool {
        self.send_away(|guests| guests.first(now))
    }

    /// Has connections give way for which memory is kept, until there is memory for more. False: there is none, as
    /// sessions have it, or as the next to give way is the connection with the number `own` itself.
    fn free_memory(&self, own: u64) -> bool {
        let now = Instant::now();
        loop {
            let freeing = self.freeing.load(Ordering::Acquire);
            if self.budget.has_any_besides(freeing) {
                return true;
            }
            // All of them together would not free enough.
            let kept = self.guests().kept;
            if !self.budget.has_any_besides(freeing.saturating_add(kept)) {
                return false;
            }
            let is_found = self.send_away(|guests| guests.first_with_memory(now, own));
            if !is_found {
                return false;
            }
        }
    }

    /// Tells the connection that `choose` takes out of its queue to give way. False: there is none.
    fn send_away(&self, mut choose: impl FnMut(&mut Guests) -> Option<Arc<GuestEntry>>) -> bool {
        let mut guests = self.guests();
        while let Some(stay) = choose(&mut guests) {
            self.leaving.fetch_add(1, Ordering::AcqRel);
            self.freeing.fetch_add(stay.kept.load(Ordering::Acquire), Ordering::AcqRel);
            // If this fails, the connection has just become a session.
            if stay.changes(WAITS, GIVES_WAY) {
                drop(guests);
                stay.task.wake();
                return true;
            }
            self.has_left(&stay);
        }
        false
    }

    /// A connection that was told to give way does not do so any more.
    fn has_left(&self, stay: &GuestEntry) {
        self.has_gone();
        self.has_freed(stay);
    }

    fn has_freed(&self, stay: &GuestEntry) {
        self.freeing.fetch_sub(stay.kept.load(Ordering::Acquire), Ordering::AcqRel);
    }

    fn guests(&self) -> MutexGuard<'_, Guests> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Guest {
    /// Sets whose the connection is, as a proxy has named the client; none: it is still one of many clients.
    pub(crate) fn is_of(&self, client: Option<ClientId>) {
        let (whose, before) = (ClientKey::of(client, self.number), self.whose());
        let mut guests = self.lobby.guests();
        self.moves(&mut guests, || {
            *self.whose.lock().unwrap_or_else(PoisonError::into_inner) = whose;
        });
        if guests.remove_long_head(before, self.number) {
            guests.add_long_head(whose, self.number);
        }
    }

    /// A long part of its head has come, and the head is not whole. There is room for few such heads: where they are
    /// too many, one of these connections gives way.
    pub(crate) fn begins_long_head(&self) {
        self.lobby.send_away(|guests| guests.add_long_head(self.whose(), self.number));
    }

    /// Its long head is whole, or is read no more.
    pub(crate) fn ends_long_head(&self) {
        self.lobby.guests().remove_long_head(self.whose(), self.number);
    }

    /// So many bytes of the budget are kept for this connection now. False: that is more than there is, and no other
    /// connection can give way for it.
    pub(crate) fn keeps(&self, bytes: usize) -> bool {
        let before = self.stay.kept.load(Ordering::Acquire);
        if bytes == before {
            return true;
        }
        self.note_kept(bytes);
        bytes < before || self.has_memory()
    }

    /// The same for the first bytes of the connection, which stay unread in the kernel until the message is whole. They
    /// count twice, as the kernel keeps as much again for them, or more.
    pub(crate) fn leaves_unread(&self, bytes: usize) -> bool {
        bytes <= LITTLE || self.keeps(2 * bytes)
    }

    fn note_kept(&self, bytes: usize) {
        let mut guests = self.lobby.guests();
        let mut before = 0;
        let waits = self.moves(&mut guests, || {
            before = self.stay.kept.swap(bytes, Ordering::AcqRel);
        });
        // It was told to give way, and will free another amount now.
        if !waits && self.is_to_give_way() {
            self.lobby.freeing.fetch_add(bytes, Ordering::AcqRel);
            self.lobby.freeing.fetch_sub(before, Ordering::AcqRel);
        }
        drop(guests);
        self.lobby.budget.add(bytes);
        self.lobby.budget.release(before);
    }

    /// Whether there is memory for more; if need be, other connections give way for it.
    pub(crate) fn has_memory(&self) -> bool {
        !self.lobby.budget.is_spent() || self.lobby.free_memory(self.number)
    }

    /// Whether memory is scarce, so that each connection should get less at a time.
    pub(crate) fn is_memory_tight(&self) -> bool {
        self.lobby.budget.is_tight()
    }

    /// Its request is being answered, and the client has taken `taken` bytes by now.
    pub(crate) fn is_answered(&self, taken: u64) {
        let since = Instant::now();
        let before = match &mut *self.stay.answer() {
            Some(answer) if answer.taken == taken => return,
            answer => answer.replace(Answer { taken, since }),
        };
        if before.is_some() {
            return;
        }
        let mut guests = self.lobby.guests();
        if !self.moves(&mut guests, || {}) {
            return;
        }
        guests.look.get_or_insert(since + QUIET);
        let nobody_waits = guests.nobody_waits();
        drop(guests);
        if nobody_waits {
            self.lobby.has_changed();
        }
    }

    /// It has its answer, and its client has sent no further request yet.
    pub(crate) fn waits(&self) {
        if self.stay.answer().take().is_none() {
            return;
        }
        let mut guests = self.lobby.guests();
        let nobody_waited = guests.nobody_waits();
        let waits = self.moves(&mut guests, || {});
        drop(guests);
        if waits && nobody_waited {
            self.lobby.has_changed();
        }
    }

    /// Makes this change, and puts the connection into the queue where it then belongs. False: it is in no queue, as it
    /// gives way already, or is a session.
    fn moves(&self, guests: &mut Guests, change: impl FnOnce()) -> bool {
        let stay = guests.take(self.whose(), self.number);
        change();
        let waits = stay.is_some();
        if let Some(stay) = stay {
            guests.put(self.whose(), self.number, stay);
        }
        waits
    }

    fn whose(&self) -> ClientKey {
        *self.whose.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection becomes a session, and does not give way from now on, even if it was told to just now: its
    /// request had come before that. Another one is to give way then.
    pub(crate) fn admit(&self) {
        let before = self.stay.state.swap(IS_ADMITTED, Ordering::AcqRel);
        if before == GIVES_WAY {
            self.lobby.has_left(&self.stay);
            self.lobby.changed.notify_one();
        }
        self.leave();
    }

    fn leave(&self) {
        let (mut guests, whose) = (self.lobby.guests(), self.whose());
        guests.take(whose, self.number);
        guests.remove_long_head(whose, self.number);
    }

    /// Whether the connection ends because it was told to give way. Then the lobby must be [told](Lobby::has_gone) when
    /// it has ended.
    pub(crate) fn has_given_way(&self) -> bool {
        self.stay.changes(GIVES_WAY, HAS_GONE)
    }

    /// Whether the connection was told to give way, and has not yet.
    pub(crate) fn is_to_give_way(&self) -> bool {
        self.stay.state.load(Ordering::Acquire) == GIVES_WAY
    }

    /// Waits until the connection is told to give way.
    pub(crate) async fn gives_way(&self) {
        poll_fn(|cx| {
            self.stay.task.register(cx.waker());
            if self.is_to_give_way() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.leave();
        self.lobby.budget.release(self.stay.kept.load(Ordering::Acquire));
        // It is in no queue any more, so it is not told to give way from here on.
        match self.stay.state.load(Ordering::Acquire) {
            // It ends by a panic, or is cut off.
            GIVES_WAY => self.lobby.has_left(&self.stay),
            HAS_GONE => self.lobby.has_freed(&self.stay),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
