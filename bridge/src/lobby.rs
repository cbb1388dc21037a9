//! Connections that are no session yet, and which of them gives way where there is room for no more, or no memory (L5): the
//! oldest, but those of a client first that has many of them. So whoever opens connections again and again is in his own way,
//! and a good client of another address is not. One whose request is being answered goes last, and only if it takes nothing of
//! the answer, or its client has many answers under way. Knows who came when, and what is kept for him; must not know what
//! anybody says.

mod guests;
mod line;

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::budget::Budget;
use crate::clients::ClientId;
use guests::{Answer, GIVES_WAY, Guests, HAS_GONE, IS_ADMITTED, QUIET, Stay, WAITS};
use line::Whose;

/// Those who have no session yet.
#[derive(Debug)]
pub(crate) struct Lobby {
    guests: Mutex<Guests>,
    budget: Arc<Budget>,
    /// How many are about to give way, and how many bytes they have of the budget.
    leaving: AtomicUsize,
    freeing: AtomicUsize,
    /// Rung when it may have changed who can give way, where somebody [waits](Lobby::waits_for_room) for that.
    changed: Notify,
    is_waited_for: AtomicBool,
}

/// When one of them could give way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Prospect {
    Now,
    /// Then, or later.
    Later(Instant),
    /// There is nobody. Whoever changes that [rings](Lobby::changed).
    Unknown,
}

/// So much of what a connection begins with is not worth counting, bytes.
const LITTLE: usize = 1024;

/// A connection in the lobby, until it is dropped.
#[derive(Debug)]
pub(crate) struct Guest {
    lobby: Arc<Lobby>,
    whose: Mutex<Whose>,
    number: u64,
    stay: Arc<Stay>,
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

    /// Somebody has come, as a connection of this client's. None: of many clients' who cannot be told apart yet.
    pub(crate) fn enter(self: &Arc<Self>, client: Option<ClientId>) -> Guest {
        let stay = Arc::new(Stay::new());
        let mut guests = self.guests();
        guests.come += 1;
        let number = guests.come;
        let whose = Whose::of(client, number);
        guests.waiting.put(whose, number, Arc::clone(&stay));
        drop(guests);
        Guest { lobby: Arc::clone(self), whose: Mutex::new(whose), number, stay }
    }

    /// When somebody could give way.
    pub(crate) fn prospect(&self, now: Instant) -> Prospect {
        let mut guests = self.guests();
        if guests.has_any(now) {
            return Prospect::Now;
        }
        guests.next_look(now).map_or(Prospect::Unknown, Prospect::Later)
    }

    /// Whether somebody waits for one of them to give way. To be said before one asks whether there is any: whoever changes
    /// that afterwards rings.
    pub(crate) fn waits_for_room(&self, is_waited_for: bool) {
        self.is_waited_for.store(is_waited_for, Ordering::Release);
    }

    /// Rings, as one of them has changed its line: nobody could give way before, or nobody can now.
    fn has_changed(&self) {
        if self.is_waited_for.load(Ordering::Acquire) {
            self.changed.notify_one();
        }
    }

    /// Waits until it may have changed who can give way.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// How many have been told to give way, and have not ended yet.
    pub(crate) fn leaving(&self) -> usize {
        self.leaving.load(Ordering::Acquire)
    }

    /// The connection has ended of one that has [given way](Guest::has_given_way).
    pub(crate) fn has_gone(&self) {
        self.leaving.fetch_sub(1, Ordering::AcqRel);
    }

    /// Has one of them give way who could by `now`. False: there is none.
    pub(crate) fn make_room(&self, now: Instant) -> bool {
        self.send_away(|guests| guests.first(now))
    }

    /// Has those give way for whom something is kept, until there is memory for more. False: there is none, as those
    /// have it who have a session, or the next one is this one itself.
    fn free_memory(&self, own: u64) -> bool {
        let now = Instant::now();
        loop {
            let freeing = self.freeing.load(Ordering::Acquire);
            if self.budget.has_any_besides(freeing) {
                return true;
            }
            // Not all of them together would do.
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

    /// Tells whoever is chosen to give way.
    fn send_away(&self, mut choose: impl FnMut(&mut Guests) -> Option<Arc<Stay>>) -> bool {
        let mut guests = self.guests();
        while let Some(stay) = choose(&mut guests) {
            self.leaving.fetch_add(1, Ordering::AcqRel);
            self.freeing.fetch_add(stay.kept.load(Ordering::Acquire), Ordering::AcqRel);
            // Else it becomes a session just now.
            if stay.changes(WAITS, GIVES_WAY) {
                drop(guests);
                stay.task.wake();
                return true;
            }
            self.has_left(&stay);
        }
        false
    }

    /// One of them gives way no more.
    fn has_left(&self, stay: &Stay) {
        self.has_gone();
        self.has_freed(stay);
    }

    fn has_freed(&self, stay: &Stay) {
        self.freeing.fetch_sub(stay.kept.load(Ordering::Acquire), Ordering::AcqRel);
    }

    fn guests(&self) -> MutexGuard<'_, Guests> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Guest {
    /// It is another client's than it seemed, a proxy has said whose; or one of many (None).
    pub(crate) fn is_of(&self, client: Option<ClientId>) {
        let (whose, before) = (Whose::of(client, self.number), self.whose());
        let mut guests = self.lobby.guests();
        self.moves(&mut guests, || {
            *self.whose.lock().unwrap_or_else(PoisonError::into_inner) = whose;
        });
        if guests.remove_long_head(before, self.number) {
            guests.add_long_head(whose, self.number);
        }
    }

    /// So much has come of its head, which is not whole, that there is room for that of a few only: where they are too many,
    /// one of them gives way.
    pub(crate) fn begins_long_head(&self) {
        self.lobby.send_away(|guests| guests.add_long_head(self.whose(), self.number));
    }

    /// That head is whole, or is read no more.
    pub(crate) fn ends_long_head(&self) {
        self.lobby.guests().remove_long_head(self.whose(), self.number);
    }

    /// So many bytes of the budget are kept for it now. False: that is more than there is, and nobody else can give way for it.
    pub(crate) fn keeps(&self, bytes: usize) -> bool {
        let before = self.stay.kept.load(Ordering::Acquire);
        if bytes == before {
            return true;
        }
        self.note_kept(bytes);
        bytes < before || self.has_memory()
    }

    /// The same for what it begins with, which stays with the kernel until it is whole: that keeps as much again, or more.
    pub(crate) fn leaves_unread(&self, bytes: usize) -> bool {
        bytes <= LITTLE || self.keeps(2 * bytes)
    }

    fn note_kept(&self, bytes: usize) {
        let mut guests = self.lobby.guests();
        let mut before = 0;
        let waits = self.moves(&mut guests, || {
            before = self.stay.kept.swap(bytes, Ordering::AcqRel);
        });
        // What it was told to free is another amount now.
        if !waits && self.is_to_give_way() {
            self.lobby.freeing.fetch_add(bytes, Ordering::AcqRel);
            self.lobby.freeing.fetch_sub(before, Ordering::AcqRel);
        }
        drop(guests);
        self.lobby.budget.add(bytes);
        self.lobby.budget.release(before);
    }

    /// Whether there is memory for more, if need be as others give way.
    pub(crate) fn has_memory(&self) -> bool {
        !self.lobby.budget.is_spent() || self.lobby.free_memory(self.number)
    }

    /// Whether each should get less at a time.
    pub(crate) fn is_memory_tight(&self) -> bool {
        self.lobby.budget.is_tight()
    }

    /// Its request is being answered, and the client has taken so many bytes by now.
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

    /// It has its answer, and waits with its next request.
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

    /// Goes where it belongs in the lines after this. False: it is in none, as it gives way already, or is a session.
    fn moves(&self, guests: &mut Guests, change: impl FnOnce()) -> bool {
        let stay = guests.take(self.whose(), self.number);
        change();
        let waits = stay.is_some();
        if let Some(stay) = stay {
            guests.put(self.whose(), self.number, stay);
        }
        waits
    }

    fn whose(&self) -> Whose {
        *self.whose.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It becomes a session, and gives way to nobody from now on: also where it was told to just now, as what it asks for
    /// had come before that. Somebody else is to give way then.
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

    /// Whether it ends as one that was told to give way: when its connection has ended, the lobby is [told](Lobby::has_gone).
    pub(crate) fn has_given_way(&self) -> bool {
        self.stay.changes(GIVES_WAY, HAS_GONE)
    }

    /// Whether it is to give way.
    pub(crate) fn is_to_give_way(&self) -> bool {
        self.stay.state.load(Ordering::Acquire) == GIVES_WAY
    }

    /// Waits until it is.
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
        // Nobody tells it any more.
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
