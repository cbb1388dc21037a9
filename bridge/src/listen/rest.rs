//! The bridge of the forked copy of the old process, which goes on with the sessions that could not be handed over (O2). Must not
//! know how that process is made.

use std::collections::HashMap;
use std::io;

use tokio::sync::watch;
use tracing::warn;

use super::Bridge;
use crate::ending::{Error, Outcome};
use crate::error_text::error_text;
use crate::hand_over::{BridgeState, Frozen, Rest};
use crate::leg::Leg;
use crate::orders::Orders;
use crate::saved::{Descriptors, Invalid};
use crate::session::StoodSession;
use crate::shutdown::Shutdown;

/// Both connections of each session that could not be handed over, by the session's number.
pub(crate) type KeptLegs = HashMap<u64, (Leg, Option<Leg>)>;

impl Rest {
    /// Goes on with the sessions, in a new runtime, in a process that was forked from that of the bridge. Ends with the last
    /// session, or as `shutdown` says.
    ///
    /// # Errors
    /// As [`serve`](crate::serve).
    pub async fn serve(self, shutdown: watch::Sender<Shutdown>) -> Result<Outcome, Error> {
        let (mut state, mut bytes, mut legs) =
            (BridgeState::default(), Vec::new(), KeptLegs::new());
        let mut descriptors = Descriptors::default();
        let Some(config) = self.config else { return Ok(Outcome::Shutdown) };
        if let Some(table) = &config.client_address.table {
            table.leave();
        }
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
            if let Some(file) = recording.and_then(|recording| recording.take_file()) {
                descriptors.add(file);
            }
            saved.move_by(bytes.len());
            bytes.extend(its);
            // No session begins here; the numbers of a state may not be higher than this.
            state.book.begun = state.book.begun.max(saved.entry.id);
            legs.insert(saved.entry.id, (client, target));
            state.sessions.push(saved);
        }
        let frozen = Frozen::of(state, bytes);
        let orders = Orders::from(shutdown);
        orders.hand_over.release();
        let bridge = Bridge::resume(frozen, &mut descriptors, legs, config, orders);
        bridge.map_err(|Invalid(why)| Error::Connection(io::Error::other(why)))?.run().await
    }
}
