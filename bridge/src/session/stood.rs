//! What a session says of itself while it stands still, and lends to whoever asked for that. Must not know what becomes of it.

use std::os::fd::RawFd;

use tokio::sync::oneshot;

use super::saved::SavedSession;
use crate::leg::Leg;
use crate::record::StoodRecording;

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
