//! How far a bridge is with standing still, as its tasks see it. First it settles: nobody new is let in, sessions go on, and
//! whoever is between a request and its answer, or a connect and its end, comes through. Then it is still: each task
//! says what it is, and waits until it may go on, or this image of the program is no more.
//!
//! Tasks are woken by the channel that tells them of a shutdown, which each of them has anyway.

use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

const GOES_ON: u8 = 0;
const SETTLES: u8 = 1;
const IS_STILL: u8 = 2;

/// The stillness of one bridge.
#[derive(Debug, Default)]
pub(crate) struct Pause {
    level: AtomicU8,
    /// How often it has gone on. One that was resumed does so first when it may move bytes.
    goings: AtomicU64,
    /// How many are under way between two states that can be handed over.
    under_way: AtomicUsize,
    /// How many stand still.
    standing: Mutex<usize>,
    changed: Notify,
}

/// What those of one kind say who stand still, until somebody takes it.
#[derive(Debug)]
pub(crate) struct Said<T>(Mutex<Vec<T>>);

/// Somebody who is under way.
#[derive(Debug)]
pub(crate) struct UnderWay(Arc<Pause>);

impl Pause {
    pub(crate) fn begin_settling(&self) {
        self.level.store(SETTLES, Ordering::SeqCst);
    }

    pub(crate) fn be_still(&self) {
        self.level.store(IS_STILL, Ordering::Release);
    }

    /// All go on as before. What they have [said](Said) of themselves is to be forgotten then.
    pub(crate) fn go_on(&self) {
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        *standing = 0;
        self.level.store(GOES_ON, Ordering::Release);
        self.goings.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether it has gone on since it had done so this often.
    pub(crate) fn has_gone_on(&self, goings: u64) -> bool {
        self.goings.load(Ordering::Acquire) > goings
    }

    pub(crate) fn is_still(&self) -> bool {
        self.level.load(Ordering::Acquire) == IS_STILL
    }

    /// Somebody is under way until the result is dropped.
    pub(crate) fn set_out(self: &Arc<Self>) -> UnderWay {
        self.under_way.fetch_add(1, Ordering::AcqRel);
        UnderWay(Arc::clone(self))
    }

    /// Waits until nobody is under way.
    pub(crate) async fn settled(&self) {
        loop {
            let changed = self.changed.notified();
            if self.under_way.load(Ordering::SeqCst) == 0 {
                return;
            }
            changed.await;
        }
    }

    /// Has somebody who stands still say what it is, until it [has gone on](Self::has_gone_on) once more. `None`: it has by
    /// now, and is not asked.
    pub(crate) fn stand(&self, say: impl FnOnce()) -> Option<u64> {
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.is_still() {
            return None;
        }
        say();
        *standing += 1;
        let goings = self.goings.load(Ordering::Acquire);
        drop(standing);
        self.changed.notify_one();
        Some(goings)
    }

    /// How many have been asked.
    pub(crate) fn standing(&self) -> usize {
        *self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until somebody more has. Changes while nobody waits are remembered.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        // In one order with who begins to settle and then counts: one of the two sees the other.
        let before = self.0.under_way.fetch_sub(1, Ordering::SeqCst);
        if before == 1 && self.0.level.load(Ordering::SeqCst) != GOES_ON {
            self.0.changed.notify_one();
        }
    }
}

impl<T> Default for Said<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Said<T> {
    /// One says what it is.
    pub(crate) fn add(&self, what: T) {
        self.all().push(what);
    }

    /// What all have said.
    pub(crate) fn take(&self) -> Vec<T> {
        std::mem::take(&mut self.all())
    }

    fn all(&self) -> MutexGuard<'_, Vec<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
