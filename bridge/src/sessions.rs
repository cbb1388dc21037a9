//! How many sessions there are, and whether there may be another.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// The sessions of one bridge.
#[derive(Debug)]
pub(crate) struct Sessions {
    /// How many there may be in all (B8).
    limit: u64,
    begun: AtomicU64,
    ended: AtomicU64,
    changed: Notify,
}

/// A session, counted while it lives.
#[derive(Debug)]
pub(crate) struct Session {
    /// Its number, from 1.
    pub(crate) id: u64,
    sessions: Arc<Sessions>,
}

impl Sessions {
    pub(crate) fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self {
            limit,
            begun: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            changed: Notify::new(),
        })
    }

    /// Begins a session, if there may be another.
    pub(crate) fn begin(self: &Arc<Self>) -> Option<Session> {
        let count = |begun| (begun < self.limit).then_some(begun + 1);
        let begun = self.begun.fetch_update(Ordering::SeqCst, Ordering::SeqCst, count).ok()?;
        self.changed.notify_one();
        Some(Session { id: begun + 1, sessions: Arc::clone(self) })
    }

    /// Whether the last session that there may be has begun.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.begun.load(Ordering::SeqCst) == self.limit
    }

    /// Whether there is a session now.
    pub(crate) fn any(&self) -> bool {
        // In this order: one that begins in between is not overlooked.
        let ended = self.ended.load(Ordering::SeqCst);
        self.begun.load(Ordering::SeqCst) > ended
    }

    /// Waits until a session begins or ends. Changes while nobody waits are remembered.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.sessions.ended.fetch_add(1, Ordering::SeqCst);
        self.sessions.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b8_the_limit_counts_begun_sessions_ended_or_not() {
        let sessions = Sessions::new(2);
        assert!(!sessions.any());
        let first = sessions.begin().unwrap();
        assert!(sessions.any() && !sessions.is_exhausted());
        drop(first);
        assert!(!sessions.any());
        assert_eq!(sessions.begin().unwrap().id, 2);
        assert!(sessions.is_exhausted());
        assert!(sessions.begin().is_none());
    }
}
