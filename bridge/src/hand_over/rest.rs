//! Sessions that cannot go along to another image, since an encrypted connection lives where its keys are: a process that has
//! this one's memory goes on with them, to their end. Must not know how that process is made.

use std::os::fd::RawFd;
use std::sync::Arc;

use crate::config::Config;
use crate::session::{LentLegs, StoodSession};

/// Encrypted sessions of a bridge that stands still.
#[derive(Debug, Default)]
pub struct Rest {
    pub(crate) sessions: Vec<StoodSession>,
    /// The bridge's.
    pub(crate) config: Option<Arc<Config>>,
}

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
}
