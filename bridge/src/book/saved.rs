//! The session book and its entries, as saved in a hand-over and resumed after it. Must not know how they are serialized.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};

use super::{ABNORMAL, Book, Entry, LastSeen, Open, Session, Sessions, TaskWaker};
use crate::demand::Counter;
use crate::directory::{Directory, SavedDestination};
use crate::login::SavedLogin;
use crate::metrics::SavedCounts;
use crate::peer::{Peer, SavedPeer};
use crate::saved::{Invalid, Moment};

/// What the book counts.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct SavedBook {
    pub(crate) begun: u64,
    /// The payload bytes of sessions that have ended.
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) counts: SavedCounts,
}

/// What the book has of a session.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SavedEntry {
    pub(crate) id: u64,
    pub(crate) peer: SavedPeer,
    pub(crate) destination: SavedDestination,
    pub(crate) login: Option<SavedLogin>,
    pub(crate) began: Moment,
    pub(crate) asked: Option<String>,
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) is_heard: bool,
    pub(crate) last_seen: Option<SavedLastSeen>,
    /// What it was called to do and has not done.
    #[serde(default)]
    pub(crate) calls: u8,
}

/// What the upkeep has seen of a session.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SavedLastSeen {
    pub(crate) heard: Moment,
    pub(crate) moved: u64,
    pub(crate) moved_at: Moment,
}

impl Book {
    /// The book's numbers.
    pub(crate) fn saved(&self) -> SavedBook {
        let sessions = self.sessions();
        SavedBook {
            begun: sessions.begun,
            received: sessions.received,
            sent: sessions.sent,
            counts: self.metrics.saved(),
        }
    }

    /// What its upkeep has seen of a session.
    pub(crate) fn last_seen(&self, id: u64) -> Option<SavedLastSeen> {
        let sessions = self.sessions();
        let last_seen = sessions.open.get(&id)?.last_seen.as_deref()?;
        Some(SavedLastSeen {
            heard: last_seen.heard.into(),
            moved: last_seen.moved,
            moved_at: last_seen.moved_at.into(),
        })
    }

    /// Goes on counting from these numbers. `open`: how many connections are open by now.
    pub(crate) fn resume(&self, saved: &SavedBook, open: u64) {
        let mut sessions = self.sessions();
        let SavedBook { begun, received, sent, counts } = saved;
        *sessions =
            Sessions { begun: *begun, received: *received, sent: *sent, ..Sessions::default() };
        drop(sessions);
        self.metrics.resume(counts, open);
    }

    /// Puts a session into the book again that goes on after a hand-over.
    pub(crate) fn go_on(
        self: &Arc<Self>,
        saved: &SavedEntry,
        peer: Arc<Peer>,
        directory: &Directory,
    ) -> Result<Session, Invalid> {
        let entry = Arc::new(Entry {
            id: saved.id,
            peer,
            destination: saved.destination.resume(directory)?,
            login: saved.login.as_ref().map(|login| Box::new(login.resume())),
            began: saved.began.instant(),
            asked: saved
                .asked
                .as_deref()
                .map_or_else(OnceLock::new, |asked| Box::<str>::from(asked).into()),
            received: AtomicU64::new(saved.received),
            sent: AtomicU64::new(saved.sent),
            is_heard: AtomicBool::new(saved.is_heard),
            is_look_wanted: AtomicBool::new(false),
            calls: AtomicU8::new(saved.calls),
            ended: AtomicU16::new(ABNORMAL),
            task: TaskWaker::default(),
        });
        let last_seen = saved.last_seen.as_ref().map(|seen| {
            let (heard, moved_at) = (seen.heard.instant(), seen.moved_at.instant());
            Box::new(LastSeen { heard, moved: seen.moved, moved_at })
        });
        let mut sessions = self.sessions();
        if sessions.open.contains_key(&entry.id) || entry.id > sessions.begun {
            return Err(Invalid(format!("it has an impossible session {}", entry.id)));
        }
        sessions.open.insert(entry.id, Open { entry: Arc::clone(&entry), last_seen });
        self.open.send_replace(sessions.open.len());
        drop(sessions);
        self.changed.notify_one();
        entry.destination.visitors().into_iter().for_each(Counter::begin);
        Ok(Session { entry, book: Arc::clone(self) })
    }
}

impl Entry {
    /// The entry as saved in a hand-over, without what the upkeep has seen: that is in the book.
    pub(crate) fn saved(&self) -> SavedEntry {
        SavedEntry {
            id: self.id,
            peer: SavedPeer::of(&self.peer),
            destination: SavedDestination::of(&self.destination),
            login: self.login.as_deref().map(SavedLogin::of),
            began: self.began.into(),
            asked: self.asked.get().map(ToString::to_string),
            received: self.received(),
            sent: self.sent(),
            is_heard: self.is_heard.load(Ordering::Relaxed),
            last_seen: None,
            calls: self.calls.load(Ordering::Acquire),
        }
    }
}
