//! What a session that stands still gives to the hand-over: its state, and its connections on loan. Must not know what
//! becomes of them.

use std::os::fd::RawFd;

use tokio::sync::oneshot;

use super::saved::SavedSession;
use crate::leg::Leg;
use crate::record::StoodRecording;

/// A session that stands still.
#[derive(Debug)]
pub(crate) struct StoodSession {
    pub(crate) saved: SavedSession,
    /// The bytes that `saved` refers to.
    pub(crate) bytes: Vec<u8>,
    pub(crate) recording: Option<StoodRecording>,
    /// Its connections, if one of them is encrypted: they stay in the process that has the TLS keys.
    pub(crate) legs: Option<LentLegs>,
}

/// The client's connection and the target's, if there is one. When this is dropped, the session gets them back.
pub(crate) struct LentLegs {
    legs: Option<(Leg, Option<Leg>)>,
    back: Option<oneshot::Sender<(Leg, Option<Leg>)>>,
}

impl LentLegs {
    /// The loan, and the receiver by which the connections come back.
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

    /// Takes the connections for good: they do not come back.
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
