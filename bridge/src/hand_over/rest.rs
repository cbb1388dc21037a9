//! Sessions that cannot go along to another image, since an encrypted connection lives where its keys are. A process that has
//! this one's memory goes on with them, to their end. Must not know how that process is made.

use std::collections::HashMap;
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;

use tokio::sync::watch;
use tracing::warn;

use super::{BridgeState, Descriptors, Frozen, Invalid, LentLegs, StoodSession};
use crate::config::Config;
use crate::error_text::error_text;
use crate::leg::Leg;
use crate::listen::Bridge;
use crate::shutdown::Shutdown;
use crate::{Error, Outcome};

/// Encrypted sessions of a bridge that stands still.
#[derive(Debug, Default)]
pub struct Rest {
    pub(crate) sessions: Vec<StoodSession>,
    /// The bridge's.
    pub(crate) config: Option<Arc<Config>>,
}

/// The connections of sessions that are kept apart, by the session's number.
pub(crate) type KeptLegs = HashMap<u64, (Leg, Option<Leg>)>;

impl Rest {
    /// How many sessions these are.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// The descriptors of their connections.
    pub fn descriptors(&self) -> Vec<RawFd> {
        let legs = self.sessions.iter().filter_map(|session| session.legs.as_ref());
        legs.flat_map(LentLegs::descriptors).collect()
    }

    /// Goes on with them, in a runtime of its own, in a process that was forked from that of the bridge. Ends with the last
    /// of them, or as `shutdown` says.
    ///
    /// # Errors
    /// As [`serve`](crate::serve).
    pub async fn serve(self, shutdown: watch::Sender<Shutdown>) -> Result<Outcome, Error> {
        let (mut state, mut bytes, mut legs) =
            (BridgeState::default(), Vec::new(), KeptLegs::new());
        let mut descriptors = Descriptors::default();
        let Some(config) = self.config else { return Ok(Outcome::Shutdown) };
        for stood in self.sessions {
            let StoodSession { mut saved, bytes: its, recording, legs: lent } = stood;
            let Some(lent) = lent else { continue };
            let (mut client, mut target) = lent.keep();
            let moved =
                client.move_here().and_then(|()| target.as_mut().map_or(Ok(()), Leg::move_here));
            if let Err(error) = moved {
                let (session, why) = (saved.entry.id, error_text(&error));
                warn!(session, "session {session} cannot go on in a process of its own: {why}");
                continue;
            }
            if let (Some(recording), Some(saved)) = (recording, &mut saved.recording)
                && let Some(file) = recording.duplicate().map_err(Error::Record)?
            {
                saved.renumber(descriptors.add(file));
            }
            saved.move_by(bytes.len());
            bytes.extend(its);
            // None begins here.
            state.book.begun = state.book.begun.max(saved.entry.id);
            legs.insert(saved.entry.id, (client, target));
            state.sessions.push(saved);
        }
        let frozen = Frozen::of(state, bytes);
        config.hand_over.release();
        let bridge = Bridge::resume(frozen, &mut descriptors, legs, config, shutdown);
        bridge.map_err(|Invalid(why)| Error::Connection(io::Error::other(why)))?.run().await
    }
}
