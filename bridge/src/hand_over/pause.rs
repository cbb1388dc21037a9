//! How far a bridge is with standing still, as its tasks see it. First it settles: nobody new is let in, sessions go on, and
//! whoever is between a request and its answer, or a connect and its end, comes through. Then it is still: each task
//! says what it is, and waits until it may go on, or this image of the program is no more.
//!
//! Tasks are woken by the channel that tells them of a shutdown, which each of them has anyway.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};

use super::saved::{SavedConnection, SavedSession};
use crate::leg::Leg;
use crate::record::StoodRecording;

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
    stood: Mutex<Stood>,
    changed: Notify,
}

/// Those who stand still.
#[derive(Debug, Default)]
pub(crate) struct Stood {
    pub(crate) sessions: Vec<StoodSession>,
    pub(crate) connections: Vec<StoodConnection>,
    /// How many say nothing: what they are at cannot be handed over.
    pub(crate) others: usize,
}

/// A connection without a session that stands still.
#[derive(Debug)]
pub(crate) struct StoodConnection {
    /// Its head has no place yet.
    pub(crate) saved: SavedConnection,
    pub(crate) head: Vec<u8>,
}

/// A session that stands still.
#[derive(Debug)]
pub(crate) struct StoodSession {
    pub(crate) saved: SavedSession,
    /// Those that it speaks of.
    pub(crate) bytes: Vec<u8>,
    pub(crate) recording: Option<StoodRecording>,
    /// Its connections, if they live where their keys are.
    pub(crate) legs: Option<LentLegs>,
}

/// The client's connection and the target's, if there is one. Dropped, they are given back.
pub(crate) struct LentLegs {
    legs: Option<(Leg, Option<Leg>)>,
    back: Option<oneshot::Sender<(Leg, Option<Leg>)>>,
}

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

    /// All go on as before, who have said what they are.
    pub(crate) fn go_on(&self) {
        let mut stood = self.stood();
        *stood = Stood::default();
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

    /// Says what somebody is who stands still, until it [has gone on](Self::has_gone_on) once more. `None`: it has by now, and
    /// nothing was said.
    pub(crate) fn stand(&self, note: impl FnOnce(&mut Stood)) -> Option<u64> {
        let mut stood = self.stood();
        if !self.is_still() {
            return None;
        }
        note(&mut stood);
        let goings = self.goings.load(Ordering::Acquire);
        drop(stood);
        self.changed.notify_one();
        Some(goings)
    }

    /// How many have said it.
    pub(crate) fn standing(&self) -> usize {
        let stood = self.stood();
        stood.sessions.len() + stood.connections.len() + stood.others
    }

    /// What they have said.
    pub(crate) fn take(&self) -> Stood {
        std::mem::take(&mut self.stood())
    }

    /// Waits until somebody more has. Changes while nobody waits are remembered.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    fn stood(&self) -> MutexGuard<'_, Stood> {
        self.stood.lock().unwrap_or_else(PoisonError::into_inner)
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

impl LentLegs {
    /// What is to be lent, and where it comes back.
    pub(crate) fn new(
        client: Leg,
        target: Option<Leg>,
    ) -> (Self, oneshot::Receiver<(Leg, Option<Leg>)>) {
        let (back, returned) = oneshot::channel();
        (Self { legs: Some((client, target)), back: Some(back) }, returned)
    }

    /// Their descriptors.
    pub(crate) fn descriptors(&self) -> Vec<RawFd> {
        let legs = self.legs.iter().flat_map(|(client, target)| [Some(client), target.as_ref()]);
        legs.flatten().filter_map(Leg::descriptor).collect()
    }

    /// For good.
    pub(crate) fn keep(mut self) -> (Leg, Option<Leg>) {
        self.back = None;
        self.legs.take().expect("they are taken only here and when this is dropped")
    }
}

impl Drop for LentLegs {
    fn drop(&mut self) {
        if let (Some(legs), Some(back)) = (self.legs.take(), self.back.take()) {
            let _ = back.send(legs);
        }
    }
}

impl std::fmt::Debug for LentLegs {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("LentLegs")
    }
}
