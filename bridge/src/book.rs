//! The session book: the sessions of a bridge, each with what it is, what it has carried, and a way to
//! call on it.
//!
//! Whatever is to be done with all sessions, or one of them, from outside goes through here: limits on
//! their number, the looks after those in which a peer takes nothing, and their [upkeep](crate::upkeep).
//! There is one clock for all that, the accept loop's, and no timer per session. Knows numbers; must not
//! know the bytes of a session, nor when anything is due.

mod saved;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use tokio::sync::{Notify, watch};

use crate::budget::Budget;
use crate::demand::Counter;
use crate::destination::Destination;
use crate::login::Login;
use crate::metrics::{Counts, Metrics};
use crate::peer::Peer;
use crate::unreachable::Unreachable;
pub(crate) use saved::{SavedBook, SavedEntry};

/// The code of a session that has ended without one, cut off or by a panic of ours (RFC 6455, section 7.1.5).
const ABNORMAL: u16 = 1006;

/// The sessions of one bridge.
#[derive(Debug)]
pub(crate) struct Book {
    limits: Limits,
    sessions: Mutex<Sessions>,
    followed: Followed,
    /// Whether a session has asked for a look since the last.
    is_look_wanted: AtomicBool,
    changed: Notify,
    /// What clients may make us keep.
    pub(crate) budget: Arc<Budget>,
    /// What is counted besides.
    pub(crate) metrics: Metrics,
    /// Told how many sessions there are. Whoever has had his 101 is counted already.
    open: watch::Sender<usize>,
}

/// How many sessions there may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// From the beginning to the end (B8).
    pub(crate) in_all: u64,
    /// At once (L2).
    pub(crate) at_once: usize,
}

/// What is done about sessions as they come and go, if anything is: each time, that wakes somebody.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Followed {
    /// They listen to [calls](Call) other than the looks that they ask for.
    pub(crate) are_called: bool,
    /// It is [told](Book::changed) when one begins or ends.
    pub(crate) are_counted: bool,
}

#[derive(Debug, Default)]
struct Sessions {
    /// How many have begun.
    begun: u64,
    /// No other begins.
    is_closed: bool,
    /// The payload bytes of those that have ended, from clients and for them.
    received: u64,
    sent: u64,
    open: HashMap<u64, Open>,
}

#[derive(Debug)]
struct Open {
    entry: Arc<Entry>,
    /// None until it is needed.
    last_seen: Option<Box<LastSeen>>,
}

/// What was seen of a session when its upkeep was last done.
#[derive(Debug)]
pub(crate) struct LastSeen {
    /// When the client was last found to have sent something.
    pub(crate) heard: Instant,
    /// How many payload bytes had moved, both ways, and when that was seen first.
    pub(crate) moved: u64,
    pub(crate) moved_at: Instant,
}

/// What a session is called to do for its upkeep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    /// To end: it has lasted as long as a session may.
    TooLong = 1,
    /// To end: nothing has moved for as long as that may be.
    TooQuiet = 2,
    /// To end: the token that it began with has expired.
    Expired = 32,
    /// To end: somebody who may have it end wants that.
    Dismissed = 64,
    /// To see whether the client, who sends nothing, takes anything; if not, to end.
    Unheard = 4,
    /// To send the client a ping.
    Ping = 8,
}

impl Call {
    /// Those that end a session come first.
    const ALL: [Self; 6] =
        [Self::Dismissed, Self::TooLong, Self::TooQuiet, Self::Expired, Self::Unheard, Self::Ping];
}

/// The bit beside those of the [calls](Call) that says that the look which a session has asked for is due.
const LOOK: u8 = 16;

/// What a session's handshake has asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    /// The protocol's version.
    pub(crate) version: &'a str,
    /// What was asked for, without its secrets.
    pub(crate) path: &'a str,
}

/// What the book has of a session. Its task writes, anybody reads.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Its number, from 1.
    pub(crate) id: u64,
    pub(crate) peer: Arc<Peer>,
    pub(crate) destination: Arc<Destination>,
    /// By what the client was let in, if it has shown anything.
    pub(crate) login: Option<Box<Login>>,
    pub(crate) began: Instant,
    /// What its handshake has asked for, when that is answered: a version, a blank and a path. In one piece, as each idle
    /// session has it.
    asked: OnceLock<Box<str>>,
    /// Payload bytes from the client.
    received: AtomicU64,
    /// Payload bytes for the client.
    sent: AtomicU64,
    /// Whether the client has sent anything since this was asked last.
    is_heard: AtomicBool,
    is_look_wanted: AtomicBool,
    /// The bits of the [calls](Call), and of the [look](LOOK), that were not answered yet.
    calls: AtomicU8,
    /// The code that it has ended with, if it has.
    ended: AtomicU16,
    task: Bell,
}

/// Wakes the task of a session, always the same, as often as it is rung.
#[derive(Debug, Default)]
struct Bell(Mutex<Option<Waker>>);

/// A session, in the book while it lives.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) entry: Arc<Entry>,
    book: Arc<Book>,
}

impl Book {
    /// One that tells nobody.
    #[cfg(test)]
    pub(crate) fn new(in_all: u64, are_called: bool) -> Arc<Self> {
        let limits = Limits { in_all, at_once: usize::MAX };
        let followed = Followed { are_called, are_counted: true };
        Self::telling(limits, followed, watch::Sender::default(), Budget::new(usize::MAX))
    }

    /// For as many sessions. `open` is told how many there are.
    pub(crate) fn telling(
        limits: Limits,
        followed: Followed,
        open: watch::Sender<usize>,
        budget: Arc<Budget>,
    ) -> Arc<Self> {
        Arc::new(Self {
            limits,
            sessions: Mutex::default(),
            followed,
            is_look_wanted: AtomicBool::new(false),
            changed: Notify::new(),
            budget,
            metrics: Metrics::default(),
            open,
        })
    }

    /// Begins a session, if there may be another.
    pub(crate) fn begin(
        self: &Arc<Self>,
        peer: Arc<Peer>,
        destination: Arc<Destination>,
        mut login: Option<Box<Login>>,
        expires: Option<Instant>,
    ) -> Option<Session> {
        if expires.is_some() {
            login.get_or_insert_default().expires = expires;
        }
        let mut sessions = self.sessions();
        let Limits { in_all, at_once } = self.limits;
        if sessions.begun == in_all || sessions.is_closed || sessions.open.len() >= at_once {
            return None;
        }
        sessions.begun += 1;
        let entry = Arc::new(Entry {
            id: sessions.begun,
            peer,
            destination,
            login,
            began: Instant::now(),
            asked: OnceLock::new(),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            is_heard: AtomicBool::new(false),
            is_look_wanted: AtomicBool::new(false),
            calls: AtomicU8::new(0),
            ended: AtomicU16::new(ABNORMAL),
            task: Bell::default(),
        });
        sessions.open.insert(entry.id, Open { entry: Arc::clone(&entry), last_seen: None });
        // Under the lock, as is each of these: in their order.
        self.open.send_replace(sessions.open.len());
        drop(sessions);
        self.has_counted();
        entry.destination.visitors().into_iter().for_each(Counter::begin);
        Some(Session { entry, book: Arc::clone(self) })
    }

    /// No session begins any more.
    pub(crate) fn close(&self) {
        self.sessions().is_closed = true;
    }

    /// Whether that is so.
    pub(crate) fn is_closed(&self) -> bool {
        self.sessions().is_closed
    }

    /// Whether the last session that there may be has begun.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.sessions().begun == self.limits.in_all
    }

    /// Whether there is a session now.
    pub(crate) fn any(&self) -> bool {
        !self.sessions().open.is_empty()
    }

    fn has_counted(&self) {
        if self.followed.are_counted {
            self.changed.notify_one();
        }
    }

    /// Waits until a session begins or ends, where they [are counted](Followed), or asks for a look. Changes while nobody waits are
    /// remembered.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Whether a session has asked for a look since the last.
    pub(crate) fn is_look_wanted(&self) -> bool {
        self.is_look_wanted.load(Ordering::Acquire)
    }

    /// Has each session that has asked for it look after itself.
    pub(crate) fn look(&self) {
        self.is_look_wanted.store(false, Ordering::Release);
        for Open { entry, .. } in self.sessions().open.values() {
            if entry.is_look_wanted.swap(false, Ordering::AcqRel) {
                entry.ring(LOOK);
            }
        }
    }

    /// Does something with each session there is, beside what was seen of it before.
    pub(crate) fn each(&self, mut upkeep: impl FnMut(&Entry, &mut LastSeen)) {
        for Open { entry, last_seen } in self.sessions().open.values_mut() {
            let last_seen = last_seen.get_or_insert_with(|| {
                let began = entry.began;
                Box::new(LastSeen { heard: began, moved: 0, moved_at: began })
            });
            upkeep(entry, last_seen);
        }
    }

    /// The sessions that there are.
    pub(crate) fn entries(&self) -> Vec<Arc<Entry>> {
        self.sessions().open.values().map(|open| Arc::clone(&open.entry)).collect()
    }

    /// The session of this number.
    pub(crate) fn entry(&self, id: u64) -> Option<Arc<Entry>> {
        self.sessions().open.get(&id).map(|open| Arc::clone(&open.entry))
    }

    /// All that was counted.
    pub(crate) fn counts(&self) -> Counts {
        // While none can begin or end: each session counts once, open or not.
        let sessions = self.sessions();
        let open = || sessions.open.values().map(|open| &open.entry);
        Counts {
            sessions: sessions.begun,
            open_sessions: sessions.open.len() as u64,
            received: sessions.received + open().map(|entry| entry.received()).sum::<u64>(),
            sent: sessions.sent + open().map(|entry| entry.sent()).sum::<u64>(),
            ..self.metrics.counts()
        }
    }

    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Whether the client has sent anything since this was asked last.
    pub(crate) fn take_heard(&self) -> bool {
        self.is_heard.swap(false, Ordering::Relaxed)
    }

    /// Its handshake is answered, which was in this version and asked for this path, without its secrets.
    pub(crate) fn note_asked(&self, version: &str, path: &str) {
        self.asked.get_or_init(|| format!("{version} {path}").into());
    }

    /// None until then.
    pub(crate) fn asked(&self) -> Option<Asked<'_>> {
        let (version, path) = self.asked.get()?.split_once(' ')?;
        Some(Asked { version, path })
    }

    /// Until when the token counts that it began with, if that says so.
    pub(crate) fn expires(&self) -> Option<Instant> {
        self.login.as_ref().and_then(|login| login.expires)
    }

    /// The session has ended with this code.
    pub(crate) fn note_end(&self, code: u16) {
        self.ended.store(code, Ordering::Relaxed);
    }

    /// Calls the session to do something.
    pub(crate) fn call(&self, call: Call) {
        self.ring(call as u8);
    }

    fn ring(&self, bit: u8) {
        self.calls.fetch_or(bit, Ordering::Release);
        self.task.ring();
    }

    fn is_called(&self, bit: u8) -> bool {
        self.calls.load(Ordering::Acquire) & bit != 0
    }

    fn take(&self, bit: u8) -> bool {
        self.calls.fetch_and(!bit, Ordering::AcqRel) & bit != 0
    }
}

impl Bell {
    fn listen(&self, cx: &Context<'_>) {
        let mut task = self.task();
        if !task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            *task = Some(cx.waker().clone());
        }
    }

    fn ring(&self) {
        let task = self.task().clone();
        task.iter().for_each(Waker::wake_by_ref);
    }

    /// The task has ended.
    fn fall_silent(&self) {
        drop(self.task().take());
    }

    fn task(&self) -> MutexGuard<'_, Option<Waker>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    /// Counts payload bytes from the client.
    pub(crate) fn count_received(&self, length: usize) {
        add(&self.entry.received, length);
    }

    /// Counts payload bytes for the client.
    pub(crate) fn count_sent(&self, length: usize) {
        add(&self.entry.sent, length);
    }

    /// Counts that it gets no connection.
    pub(crate) fn count_unreachable(&self, why: &Unreachable) {
        self.book.metrics.unreachable(why);
    }

    /// The client has sent something, be it no payload.
    pub(crate) fn note_heard(&self) {
        self.entry.is_heard.store(true, Ordering::Relaxed);
    }

    /// What the session is called to do for its upkeep. The task is woken when there is something.
    pub(crate) fn take_call(&self, cx: &mut Context<'_>) -> Option<Call> {
        if !self.book.followed.are_called {
            return None;
        }
        let entry = &self.entry;
        entry.task.listen(cx);
        if entry.calls.load(Ordering::Acquire) == 0 {
            return None;
        }
        Call::ALL.into_iter().find(|call| entry.take(*call as u8))
    }

    /// Ready when the book has the session look after itself, which the first call asks for.
    pub(crate) fn poll_look(&self, cx: &mut Context<'_>) -> Poll<()> {
        let entry = &self.entry;
        if entry.is_look_wanted.load(Ordering::Acquire) && !entry.is_called(LOOK) {
            return Poll::Pending;
        }
        entry.task.listen(cx);
        if entry.take(LOOK) {
            return Poll::Ready(());
        }
        if !entry.is_look_wanted.swap(true, Ordering::AcqRel)
            && !self.book.is_look_wanted.swap(true, Ordering::AcqRel)
        {
            self.book.changed.notify_one();
        }
        Poll::Pending
    }

    /// What sessions and others may make us keep.
    pub(crate) fn budget(&self) -> &Arc<Budget> {
        &self.book.budget
    }

    /// A look that is due is not needed any more: the next one that is asked for has its whole time.
    pub(crate) fn forget_look(&self) {
        if self.entry.is_called(LOOK) {
            self.entry.take(LOOK);
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.entry.task.fall_silent();
        let mut sessions = self.book.sessions();
        sessions.open.remove(&self.entry.id);
        sessions.received += self.entry.received();
        sessions.sent += self.entry.sent();
        self.book.metrics.ended(self.entry.ended.load(Ordering::Relaxed));
        self.book.open.send_replace(sessions.open.len());
        drop(sessions);
        self.book.has_counted();
        self.entry.destination.visitors().into_iter().for_each(Counter::end);
    }
}

/// Only the session's task adds: that needs no read-modify-write, which would cost more.
fn add(counter: &AtomicU64, length: usize) {
    counter.store(counter.load(Ordering::Relaxed) + length as u64, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;
    use crate::destination::Address;

    fn begin(book: &Arc<Book>) -> Option<Session> {
        let destination = Address { host: "localhost".into(), port: 9 };
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], 1)).into();
        let peer = Peer::new(address);
        book.begin(Arc::new(peer), Arc::new(destination.into()), None, None)
    }

    #[test]
    fn b8_the_limit_counts_begun_sessions_ended_or_not() {
        let book = Book::new(2, false);
        assert!(!book.any());
        let first = begin(&book).unwrap();
        assert!(book.any() && !book.is_exhausted());
        drop(first);
        assert!(!book.any());
        assert_eq!(begin(&book).unwrap().entry.id, 2);
        assert!(book.is_exhausted());
        assert!(begin(&book).is_none());
    }

    #[test]
    fn l2_no_more_sessions_are_open_at_once_than_may_be() {
        let limits = Limits { in_all: 9, at_once: 2 };
        let followed = Followed { are_called: false, are_counted: false };
        let book = Book::telling(limits, followed, watch::Sender::default(), Budget::new(1));
        let sessions = [begin(&book), begin(&book)];
        assert!(sessions.iter().all(Option::is_some) && begin(&book).is_none());
        assert!(!book.is_exhausted());
        drop(sessions);
        assert_eq!(begin(&book).unwrap().entry.id, 3, "who was refused is not counted");
    }

    #[test]
    fn o1_no_session_begins_in_a_closed_book_and_those_that_are_there_stay() {
        let book = Book::new(9, false);
        let first = begin(&book).unwrap();
        book.close();
        assert!(begin(&book).is_none());
        assert_eq!(*book.open.borrow(), 1);
        drop(first);
        assert_eq!(*book.open.borrow(), 0);
    }

    #[test]
    fn o3_what_a_session_has_carried_counts_once_open_or_ended() {
        let book = Book::new(3, false);
        let [first, second] = [begin(&book).unwrap(), begin(&book).unwrap()];
        first.count_received(5);
        second.count_received(7);
        second.count_sent(11);
        let counts = || {
            let counts = book.counts();
            [counts.sessions, counts.open_sessions, counts.received, counts.sent]
        };
        assert_eq!(counts(), [2, 2, 12, 11]);
        second.entry.note_end(1000);
        drop(second);
        assert_eq!(counts(), [2, 1, 12, 11]);
        drop(first);
        assert_eq!(counts(), [2, 0, 12, 11]);
        let ended: Vec<_> = book.counts().ended.into_iter().filter(|(_, n)| *n > 0).collect();
        assert_eq!(ended, [("1000", 1), ("1006", 1)]);
    }

    #[tokio::test]
    async fn l4_only_who_has_asked_for_a_look_is_woken_and_once() {
        let book = Book::new(3, false);
        let [asks, silent] = [begin(&book).unwrap(), begin(&book).unwrap()];
        book.look();
        let look = tokio::spawn(async move {
            poll_fn(|cx| asks.poll_look(cx)).await;
            asks
        });
        while !book.is_look_wanted() {
            tokio::task::yield_now().await;
        }
        book.look();
        let asks = look.await.unwrap();
        assert!(!book.is_look_wanted());
        for session in [&asks, &silent] {
            assert_eq!(session.entry.calls.load(Ordering::Relaxed), 0);
        }
    }

    #[test]
    fn l4_a_look_that_came_too_late_is_not_the_next_one() {
        let book = Book::new(1, false);
        let session = begin(&book).unwrap();
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(session.poll_look(&mut cx).is_pending());
        book.look();
        session.forget_look();
        assert!(session.poll_look(&mut cx).is_pending());
        book.look();
        assert!(session.poll_look(&mut cx).is_ready());
    }
}
