//! The sessions that cannot be handed over to the new binary, since the keys of a TLS connection exist in this process's memory
//! only: a forked copy of this process goes on with them, to their end. Must not know how that process is made.

use std::os::fd::RawFd;
use std::sync::Arc;

use crate::config::Config;
use crate::session::{LentLegs, StoodSession};

/// The sessions with a TLS connection, of a bridge that stands still.
#[derive(Debug, Default)]
pub struct Rest {
    pub(crate) sessions: Vec<StoodSession>,
    /// The bridge's configuration.
    pub(crate) config: Option<Arc<Config>>,
}

impl Rest {
    /// How many sessions these are.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// The file descriptors of their connections.
    pub fn descriptors(&self) -> Vec<RawFd> {
        let legs = self.sessions.iter().filter_map(|session| session.legs.as_ref());
        legs.flat_map(LentLegs::descriptors).collect()
    }
}
