//! The session book: the table of a bridge's sessions, each with its data, its byte counts, and a way to wake its task.
//!
//! All that is done with the sessions from outside goes through here: limits on their number, their [upkeep](crate::upkeep),
//! and looks, by which a session checks whether a peer that takes nothing is still there. One clock serves all of that, the
//! accept loop's: there is no timer per session. Knows numbers; must not know the bytes of a session, nor when anything is due.

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

/// The close code of a session that has ended without one, because it was cut off or its task panicked (RFC 6455, section 7.1.5).
const ABNORMAL: u16 = 1006;

/// The sessions of one bridge.
#[derive(Debug)]
pub(crate) struct Book {
    limits: Limits,
    sessions: Mutex<Sessions>,
    followed: Followed,
    /// Whether a session has asked for a look since the last one.
    is_look_wanted: AtomicBool,
    changed: Notify,
    /// The memory that clients may make us keep.
    pub(crate) budget: Arc<Budget>,
    /// The other counters.
    pub(crate) metrics: Metrics,
    /// Is sent the number of open sessions. A client that has its 101 is counted already.
    open: watch::Sender<usize>,
}

/// How many sessions there may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// From the bridge's beginning to its end (B8).
    pub(crate) in_all: u64,
    /// Open at once (L2).
    pub(crate) at_once: usize,
}

/// Which of the book's notices are used. Each costs a wake-up, so none is given in vain.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Followed {
    /// Sessions are sent [calls](Call), and not only the looks that they ask for.
    pub(crate) are_called: bool,
    /// [`Book::changed`] also tells when a session begins or ends.
    pub(crate) are_counted: bool,
}

#[derive(Debug, Default)]
struct Sessions {
    /// How many have begun.
    begun: u64,
    /// Whether no other session may begin.
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

/// What a session is called to do, by its upkeep or by the administrator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    /// To end: it has lasted as long as a session may.
    TooLong = 1,
    /// To end: nothing has moved for as long as that may be.
    TooQuiet = 2,
    /// To end: the token that it began with has expired.
    Expired = 32,
    /// To end: the administrator wants that.
    Dismissed = 64,
    /// To see whether the client, which sends nothing, takes anything; if not, to end.
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
pub(crate) struct HandshakeRequest<'a> {
    /// The protocol's version.
    pub(crate) version: &'a str,
    /// The path, without its secrets.
    pub(crate) path: &'a str,
}

/// What the book has of a session. Its task writes, anybody reads.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Its number, from 1.
    pub(crate) id: u64,
    pub(crate) peer: Arc<Peer>,
    pub(crate) destination: Arc<Destination>,
    /// The user or the token by which the client was let in, if it has shown one.
    pub(crate) login: Option<Box<Login>>,
    pub(crate) began: Instant,
    /// What its handshake has asked for, once that is answered: a version, a blank and a path. In one string, to save
    /// memory: each idle session has it.
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
    task: TaskWaker,
}

/// Wakes the task of a session each time it is rung. It keeps the waker, as the task is always the same.
#[derive(Debug, Default)]
struct TaskWaker(Mutex<Option<Waker>>);

/// A session's place in the book, until this is dropped.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) entry: Arc<Entry>,
    book: Arc<Book>,
}

impl Book {
    /// A book that tells nobody how many sessions are open.
    #[cfg(test)]
    pub(crate) fn new(in_all: u64, are_called: bool) -> Arc<Self> {
        let limits = Limits { in_all, at_once: usize::MAX };
        let followed = Followed { are_called, are_counted: true };
        Self::telling(limits, followed, watch::Sender::default(), Budget::new(usize::MAX))
    }

    /// With these limits. `open` is sent the number of open sessions.
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
            task: TaskWaker::default(),
        });
        sessions.open.insert(entry.id, Open { entry: Arc::clone(&entry), last_seen: None });
        // Sent under the lock, as everywhere, so that the numbers are sent in their order.
        self.open.send_replace(sessions.open.len());
        drop(sessions);
        self.has_counted();
        entry.destination.visitors().into_iter().for_each(Counter::begin);
        Some(Session { entry, book: Arc::clone(self) })
    }

    /// From now on no session begins.
    pub(crate) fn close(&self) {
        self.sessions().is_closed = true;
    }

    /// Whether no session may begin, because the book was [closed](Self::close).
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

    /// Waits until a session asks for a look, or, if [sessions are counted](Followed), begins or ends. Changes while
    /// nobody waits are remembered.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Whether a session has asked for a look since the last one.
    pub(crate) fn is_look_wanted(&self) -> bool {
        self.is_look_wanted.load(Ordering::Acquire)
    }

    /// Tells each session that has asked for a look that it is due.
    pub(crate) fn look(&self) {
        self.is_look_wanted.store(false, Ordering::Release);
        for Open { entry, .. } in self.sessions().open.values() {
            if entry.is_look_wanted.swap(false, Ordering::AcqRel) {
                entry.ring(LOOK);
            }
        }
    }

    /// Calls `upkeep` with each open session, and with what was seen of it when upkeep was done before.
    pub(crate) fn each(&self, mut upkeep: impl FnMut(&Entry, &mut LastSeen)) {
        for Open { entry, last_seen } in self.sessions().open.values_mut() {
            let last_seen = last_seen.get_or_insert_with(|| {
                let began = entry.began;
                Box::new(LastSeen { heard: began, moved: 0, moved_at: began })
            });
            upkeep(entry, last_seen);
        }
    }

    /// The open sessions.
    pub(crate) fn entries(&self) -> Vec<Arc<Entry>> {
        self.sessions().open.values().map(|open| Arc::clone(&open.entry)).collect()
    }

    /// The session of this number.
    pub(crate) fn entry(&self, id: u64) -> Option<Arc<Entry>> {
        self.sessions().open.get(&id).map(|open| Arc::clone(&open.entry))
    }

    /// All that was counted.
    pub(crate) fn counts(&self) -> Counts {
        // Under the lock, so that no session begins or ends meanwhile: each counts once, open or not.
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

    /// Its handshake is answered, which was in this version and asked for this path. The path must be without secrets.
    pub(crate) fn note_asked(&self, version: &str, path: &str) {
        self.asked.get_or_init(|| format!("{version} {path}").into());
    }

    /// What its handshake has asked for; none until that is answered.
    pub(crate) fn asked(&self) -> Option<HandshakeRequest<'_>> {
        let (version, path) = self.asked.get()?.split_once(' ')?;
        Some(HandshakeRequest { version, path })
    }

    /// When the token that the session began with expires, if the token says that.
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

impl TaskWaker {
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

    /// Counts that the session gets no connection to its target.
    pub(crate) fn count_unreachable(&self, why: &Unreachable) {
        self.book.metrics.unreachable(why);
    }

    /// Notes that the client has sent something, payload or not.
    pub(crate) fn note_heard(&self) {
        self.entry.is_heard.store(true, Ordering::Relaxed);
    }

    /// Takes what the session is called to do next, if anything. Its task is woken by each call.
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

    /// Ready when the look is due that the first poll has asked for.
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

    /// The memory budget that the session shares with all connections.
    pub(crate) fn budget(&self) -> &Arc<Budget> {
        &self.book.budget
    }

    /// Drops the look that is due, as it is not needed any more: the next one that is asked for comes after its full time.
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

/// Only the session's task adds. So it needs no atomic read-modify-write, which would cost more.
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
