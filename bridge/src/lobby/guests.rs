//! The connections that have no session yet, in their queues, and the state of each. Knows which one is the next to give way.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::time::Instant;

use super::queue::{ClientKey, FEW, Queue};

/// How long a client may take nothing of an answer before its connection can give way. Longer than ten seconds: no more
/// often is the kernel asked how much a slow client has taken.
pub(super) const QUIET: Duration = Duration::from_secs(12);

/// How long a new connection has before it can give way, unless its client has many connections: for a TLS hello, a TLS
/// handshake and a request, over two round trips.
pub(super) const GRACE: Duration = Duration::from_millis(500);

/// How many connections may have, at a time, a long head that is not whole. Such a head, of a TLS client for example,
/// is in our memory and not in the kernel's.
pub(super) const LONG_HEADS: usize = 64;

/// How often, at most, all connections that are being answered are looked at.
const LOOK: Duration = Duration::from_millis(100);

pub(super) const WAITS: u8 = 0;
pub(super) const GIVES_WAY: u8 = 1;
pub(super) const IS_ADMITTED: u8 = 2;
pub(super) const HAS_GONE: u8 = 3;

/// All connections that have no session yet.
#[derive(Debug, Default)]
pub(super) struct Guests {
    /// How many connections have come.
    pub(super) come: u64,
    /// The queue of connections for which no memory is kept.
    pub(super) waiting: Queue<Arc<GuestEntry>>,
    /// The queue of connections for which memory is kept.
    pub(super) keeping: Queue<Arc<GuestEntry>>,
    /// The queue of connections whose requests are being answered.
    pub(super) answered: Queue<Arc<GuestEntry>>,
    /// Those being answered whose clients were found to take nothing, the oldest first.
    quiet: VecDeque<(ClientKey, u64)>,
    /// When those being answered are looked at again: until then no other connection is taken to be quiet.
    pub(super) look: Option<Instant>,
    /// Those with a long head that is not whole. Each is in one of the queues above, too.
    pub(super) long: Queue<()>,
    /// How much is kept for all of them, bytes.
    pub(super) kept: usize,
}

/// The entry of one connection.
#[derive(Debug)]
pub(super) struct GuestEntry {
    came: Instant,
    pub(super) state: AtomicU8,
    pub(super) task: AtomicWaker,
    /// How much it has of the budget, bytes.
    pub(super) kept: AtomicUsize,
    answer: Mutex<Option<Answer>>,
}

/// An answer under way.
#[derive(Debug)]
pub(super) struct Answer {
    /// How many bytes the client has taken on its connection.
    pub(super) taken: u64,
    /// When that number was new.
    pub(super) since: Instant,
}

impl Guests {
    /// Whether no connection waits: all are being answered, or there are none.
    pub(super) fn nobody_waits(&self) -> bool {
        self.waiting.is_empty() && self.keeping.is_empty()
    }

    /// Whether a connection could give way now.
    pub(super) fn has_any(&mut self, now: Instant) -> bool {
        self.next(now).is_some_and(|next| next <= now)
            || self.answered.most() > FEW
            || self.quiet(now).is_some()
    }

    /// When a connection may be able to give way, as far as that is known.
    pub(super) fn next_look(&mut self, now: Instant) -> Option<Instant> {
        self.next(now).into_iter().chain(self.look).min()
    }

    /// When the first connection that is not being answered can give way.
    fn next(&mut self, now: Instant) -> Option<Instant> {
        let (most, _) = self.first_line().first_rank()?;
        if most > FEW {
            return Some(now);
        }
        self.first_line().first().map(|stay| stay.came + GRACE)
    }

    fn first_line(&mut self) -> &mut Queue<Arc<GuestEntry>> {
        if self.waiting.first_rank() >= self.keeping.first_rank() {
            &mut self.waiting
        } else {
            &mut self.keeping
        }
    }

    /// Takes the next connection that can give way by `now` out of its queue.
    pub(super) fn first(&mut self, now: Instant) -> Option<Arc<GuestEntry>> {
        let is_time = self.next(now).is_some_and(|next| next <= now);
        let first = if is_time { self.first_line().take_first() } else { None };
        first.map(|stay| self.taken(stay)).or_else(|| self.first_answered(now))
    }

    /// The same for connections for which memory is kept; none if the next is the connection with the number `own` itself.
    pub(super) fn first_with_memory(&mut self, now: Instant, own: u64) -> Option<Arc<GuestEntry>> {
        match self.keeping.first_number() {
            Some(number) if number == own => None,
            Some(_) => self.keeping.take_first().map(|stay| self.taken(stay)),
            None if self.answered.first_number() == Some(own) => None,
            None => self.first_answered(now),
        }
    }

    fn first_answered(&mut self, now: Instant) -> Option<Arc<GuestEntry>> {
        let stay = match self.quiet(now) {
            Some((whose, number)) => self.answered.take(whose, number),
            None if self.answered.most() > FEW => self.answered.take_first(),
            None => None,
        };
        stay.map(|stay| self.taken(stay))
    }

    /// The oldest connection whose client takes nothing of its answer. All are looked at now and then, and not each
    /// time that one is needed.
    fn quiet(&mut self, now: Instant) -> Option<(ClientKey, u64)> {
        let is_quiet = |stay: &GuestEntry| stay.is_quiet_at().is_some_and(|quiet| quiet <= now);
        while let Some((whose, number)) = self.quiet.front() {
            if self.answered.get(*whose, *number).is_some_and(|stay| is_quiet(stay)) {
                return Some((*whose, *number));
            }
            self.quiet.pop_front();
        }
        if self.look.is_none_or(|look| now < look) {
            return None;
        }
        let quiet = self.answered.all().filter(|(_, _, stay)| is_quiet(stay));
        let mut quiet: Vec<_> = quiet.map(|(whose, number, _)| (whose, number)).collect();
        quiet.sort_unstable_by_key(|(_, number)| *number);
        self.quiet = quiet.into();
        let next = self.answered.all().filter_map(|(_, _, stay)| stay.is_quiet_at()).min();
        self.look = next.map(|next| next.max(now + LOOK));
        self.quiet.front().copied()
    }

    /// A connection has a long head that is not whole. Gives the connection that is to give way, if there are too many
    /// of these now.
    pub(super) fn add_long_head(
        &mut self,
        whose: ClientKey,
        number: u64,
    ) -> Option<Arc<GuestEntry>> {
        let lines = [&self.waiting, &self.keeping, &self.answered];
        if !lines.into_iter().any(|line| line.get(whose, number).is_some()) {
            // It gives way already.
            return None;
        }
        self.long.put(whose, number, ());
        while self.long.len() > LONG_HEADS
            && let Some((whose, number)) = self.long.first_of_all()
        {
            self.long.take(whose, number);
            // Else it gives way already.
            if let Some(stay) = self.take(whose, number) {
                return Some(stay);
            }
        }
        None
    }

    /// The connection has no such head any more. True: it had one.
    pub(super) fn remove_long_head(&mut self, whose: ClientKey, number: u64) -> bool {
        self.long.take(whose, number).is_some()
    }

    /// A connection is in no queue any more.
    fn taken(&mut self, stay: Arc<GuestEntry>) -> Arc<GuestEntry> {
        self.kept -= stay.kept.load(Ordering::Acquire);
        stay
    }

    /// Takes a connection out of the queue that it is in.
    pub(super) fn take(&mut self, whose: ClientKey, number: u64) -> Option<Arc<GuestEntry>> {
        let Self { waiting, keeping, answered, .. } = self;
        let lines = [waiting, keeping, answered];
        let stay = lines.into_iter().find_map(|line| line.take(whose, number));
        stay.map(|stay| self.taken(stay))
    }

    /// Puts a connection into the queue where it belongs.
    pub(super) fn put(&mut self, whose: ClientKey, number: u64, stay: Arc<GuestEntry>) {
        self.kept += stay.kept.load(Ordering::Acquire);
        let line = if stay.answer().is_some() {
            &mut self.answered
        } else if stay.kept.load(Ordering::Acquire) > 0 {
            &mut self.keeping
        } else {
            &mut self.waiting
        };
        line.put(whose, number, stay);
    }
}

impl GuestEntry {
    pub(super) fn new() -> Self {
        Self {
            came: Instant::now(),
            state: AtomicU8::new(WAITS),
            task: AtomicWaker::new(),
            kept: AtomicUsize::new(0),
            answer: Mutex::default(),
        }
    }

    pub(super) fn changes(&self, from: u8, to: u8) -> bool {
        self.state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    pub(super) fn answer(&self) -> MutexGuard<'_, Option<Answer>> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When it can give way, if its client takes nothing more of the answer until then.
    fn is_quiet_at(&self) -> Option<Instant> {
        self.answer().as_ref().map(|answer| answer.since + QUIET)
    }
}
