//! Who holds the listener of a daemonized instance, watched until each has ended. Knows processes; who
//! listens it is told.

use crate::processes::{Exits, Process};

/// The processes that the daemon is.
#[derive(Debug, Default)]
pub(super) struct Daemon {
    exits: Exits,
    /// Those who were seen last have ended before they could be watched: the next look tells who has
    /// taken over.
    is_lost: bool,
}

impl Daemon {
    /// Watches these. They may all have ended since they were seen, and have handed the listener on: then
    /// it [is lost](Self::is_lost).
    pub(super) fn watch(&mut self, holders: &[Process]) {
        self.exits = Exits::of(holders);
        self.is_lost = self.exits.is_empty();
    }

    /// Whether somebody must look who it is now.
    pub(super) fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// The same, and somebody looks now.
    pub(super) fn take_lost(&mut self) -> bool {
        std::mem::take(&mut self.is_lost)
    }

    /// Returns when the last of them has ended. Cancel-safe.
    pub(super) async fn ended(&mut self) {
        self.exits.ended().await;
    }
}
