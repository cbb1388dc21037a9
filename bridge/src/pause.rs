//! The pause of a bridge for a hand-over: every task stops at a point where its state can be saved.
//!
//! First the bridge settles: no new connection is let in, sessions go on, and every task that is between a request and
//! its answer, or that is connecting, may finish that. Then the bridge stands still: each task reports its state if that
//! can be handed over, and waits until it may go on, or until the new binary has replaced this one.
//!
//! Tasks are woken by the channel that tells them of a shutdown, which each of them watches anyway. Must not know what
//! the states are.

use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

const GOES_ON: u8 = 0;
const SETTLES: u8 = 1;
const IS_STILL: u8 = 2;

/// How far the pause of one bridge is.
#[derive(Debug, Default)]
pub(crate) struct Pause {
    level: AtomicU8,
    /// How many pauses have ended. Tasks that are resumed after a hand-over begin paused; the first pause ends when
    /// they may move bytes.
    pauses_ended: AtomicU64,
    /// How many tasks are between two states that can be saved.
    under_way: AtomicUsize,
    /// How many tasks stand still.
    standing: Mutex<usize>,
    changed: Notify,
}

/// The states that the tasks of one kind report when they stand still, until they are taken.
#[derive(Debug)]
pub(crate) struct PauseReports<T>(Mutex<Vec<T>>);

/// A task that is between two states that can be saved, until this is dropped.
#[derive(Debug)]
pub(crate) struct UnderWay(Arc<Pause>);

impl Pause {
    pub(crate) fn begin_settling(&self) {
        self.level.store(SETTLES, Ordering::SeqCst);
    }

    pub(crate) fn be_still(&self) {
        self.level.store(IS_STILL, Ordering::Release);
    }

    /// Ends the pause: all tasks go on as before. The states that they have [reported](PauseReports) are then to be dropped.
    pub(crate) fn go_on(&self) {
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        *standing = 0;
        self.level.store(GOES_ON, Ordering::Release);
        self.pauses_ended.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether a pause has ended since `pauses_ended` of them had ended.
    pub(crate) fn has_ended_since(&self, pauses_ended: u64) -> bool {
        self.pauses_ended.load(Ordering::Acquire) > pauses_ended
    }

    pub(crate) fn is_still(&self) -> bool {
        self.level.load(Ordering::Acquire) == IS_STILL
    }

    /// Notes that a task is between two states that can be saved, until the result is dropped.
    pub(crate) fn set_out(self: &Arc<Self>) -> UnderWay {
        self.under_way.fetch_add(1, Ordering::AcqRel);
        UnderWay(Arc::clone(self))
    }

    /// Waits until no task is between two states that can be saved.
    pub(crate) async fn settled(&self) {
        loop {
            let changed = self.changed.notified();
            if self.under_way.load(Ordering::SeqCst) == 0 {
                return;
            }
            changed.await;
        }
    }

    /// Counts a task as standing still, and has it report its state by `say`. Returns the number for
    /// [`has_ended_since`](Self::has_ended_since), by which the task waits for the end of the pause. `None`: the pause has
    /// ended already, and `say` is not called.
    pub(crate) fn stand(&self, say: impl FnOnce()) -> Option<u64> {
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.is_still() {
            return None;
        }
        say();
        *standing += 1;
        let pauses_ended = self.pauses_ended.load(Ordering::Acquire);
        drop(standing);
        self.changed.notify_one();
        Some(pauses_ended)
    }

    /// How many tasks stand still now.
    pub(crate) fn standing(&self) -> usize {
        *self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until one more task stands still. A change while nobody waits is remembered.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        // Sequentially consistent, as in `begin_settling` and `settled`: they set the level and then read the count,
        // this sets the count and then reads the level. So at least one side sees the other's change.
        let before = self.0.under_way.fetch_sub(1, Ordering::SeqCst);
        if before == 1 && self.0.level.load(Ordering::SeqCst) != GOES_ON {
            self.0.changed.notify_one();
        }
    }
}

impl<T> Default for PauseReports<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> PauseReports<T> {
    /// Adds the state of one task.
    pub(crate) fn add(&self, what: T) {
        self.all().push(what);
    }

    /// All states that were reported.
    pub(crate) fn take(&self) -> Vec<T> {
        std::mem::take(&mut self.all())
    }

    fn all(&self) -> MutexGuard<'_, Vec<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
