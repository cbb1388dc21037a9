//! The session book: the sessions of a bridge, each with what it is, what it has carried, and a way to
//! have it look after itself.
//!
//! Whatever is to be done with all sessions, or one of them, from outside goes through here: limits on
//! their number, and the looks after those in which a peer takes nothing. There is one clock for these
//! looks, the accept loop's, and no timer per session.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use futures_util::task::AtomicWaker;
use tokio::sync::Notify;

use crate::destination::Destination;
use crate::peer::Peer;

/// The sessions of one bridge.
#[derive(Debug)]
pub(crate) struct Book {
    /// How many there may be in all (B8).
    limit: u64,
    sessions: Mutex<Sessions>,
    /// Whether a session has asked for a look since the last.
    is_look_wanted: AtomicBool,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Sessions {
    /// How many have begun.
    begun: u64,
    open: HashMap<u64, Arc<Entry>>,
}

/// What the book has of a session. Its task writes, anybody reads.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Its number, from 1.
    pub(crate) id: u64,
    pub(crate) peer: Arc<Peer>,
    pub(crate) destination: Arc<Destination>,
    pub(crate) began: Instant,
    /// Payload bytes from the client.
    received: AtomicU64,
    /// Payload bytes for the client.
    sent: AtomicU64,
    is_look_wanted: AtomicBool,
    is_look_due: AtomicBool,
    task: AtomicWaker,
}

/// A session, in the book while it lives.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) entry: Arc<Entry>,
    book: Arc<Book>,
}

impl Book {
    pub(crate) fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self {
            limit,
            sessions: Mutex::default(),
            is_look_wanted: AtomicBool::new(false),
            changed: Notify::new(),
        })
    }

    /// Begins a session, if there may be another.
    pub(crate) fn begin(
        self: &Arc<Self>,
        peer: Arc<Peer>,
        destination: Arc<Destination>,
    ) -> Option<Session> {
        let mut sessions = self.sessions();
        if sessions.begun == self.limit {
            return None;
        }
        sessions.begun += 1;
        let entry = Arc::new(Entry {
            id: sessions.begun,
            peer,
            destination,
            began: Instant::now(),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            is_look_wanted: AtomicBool::new(false),
            is_look_due: AtomicBool::new(false),
            task: AtomicWaker::new(),
        });
        sessions.open.insert(entry.id, Arc::clone(&entry));
        drop(sessions);
        self.changed.notify_one();
        Some(Session { entry, book: Arc::clone(self) })
    }

    /// Whether the last session that there may be has begun.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.sessions().begun == self.limit
    }

    /// Whether there is a session now.
    pub(crate) fn any(&self) -> bool {
        !self.sessions().open.is_empty()
    }

    /// Waits until a session begins or ends, or asks for a look. Changes while nobody waits are
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
        for entry in self.sessions().open.values() {
            if entry.is_look_wanted.swap(false, Ordering::AcqRel) {
                entry.is_look_due.store(true, Ordering::Release);
                entry.task.wake();
            }
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

    /// Ready when the book has the session look after itself, which the first call asks for.
    pub(crate) fn poll_look(&self, cx: &mut Context<'_>) -> Poll<()> {
        let entry = &self.entry;
        entry.task.register(cx.waker());
        if entry.is_look_due.swap(false, Ordering::AcqRel) {
            return Poll::Ready(());
        }
        if !entry.is_look_wanted.swap(true, Ordering::AcqRel)
            && !self.book.is_look_wanted.swap(true, Ordering::AcqRel)
        {
            self.book.changed.notify_one();
        }
        Poll::Pending
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.book.sessions().open.remove(&self.entry.id);
        self.book.changed.notify_one();
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
        let address = "127.0.0.1:1".parse().unwrap();
        let peer = Peer { address, tls: None, certificate: None };
        book.begin(Arc::new(peer), Arc::new(destination.into()))
    }

    #[test]
    fn b8_the_limit_counts_begun_sessions_ended_or_not() {
        let book = Book::new(2);
        assert!(!book.any());
        let first = begin(&book).unwrap();
        assert!(book.any() && !book.is_exhausted());
        drop(first);
        assert!(!book.any());
        assert_eq!(begin(&book).unwrap().entry.id, 2);
        assert!(book.is_exhausted());
        assert!(begin(&book).is_none());
    }

    #[tokio::test]
    async fn l4_only_who_has_asked_for_a_look_is_woken_and_once() {
        let book = Book::new(3);
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
            assert!(!session.entry.is_look_due.load(Ordering::Relaxed));
        }
    }
}
