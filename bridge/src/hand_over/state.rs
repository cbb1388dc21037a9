//! What a bridge is, for another image of this program: what each part of it has said of itself, in one place. Knows nothing of
//! how it came about.

use std::os::fd::RawFd;

use serde::{Deserialize, Serialize};

use crate::admission::SavedPenalty;
use crate::arrival::SavedConnection;
use crate::book::SavedBook;
use crate::net::SavedListener;
use crate::saved::Moment;
use crate::session::SavedSession;

/// What another image needs to go on.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct BridgeState {
    pub(crate) listeners: Vec<SavedListener>,
    /// When it ends.
    pub(crate) timeout: Option<Moment>,
    /// When it ends, if there is no session until then.
    pub(crate) idle: Option<Moment>,
    pub(crate) next_beat: Option<Moment>,
    pub(crate) next_limits: Option<Moment>,
    pub(crate) is_full: bool,
    pub(crate) is_exhausted: bool,
    pub(crate) book: SavedBook,
    /// How many recordings have had a number.
    pub(crate) recordings: u64,
    pub(crate) sessions: Vec<SavedSession>,
    pub(crate) connections: Vec<SavedConnection>,
    pub(crate) penalties: Vec<SavedPenalty>,
}

impl BridgeState {
    /// The descriptors that it names, which are to be kept.
    pub fn descriptors(&self) -> Vec<RawFd> {
        let listeners = self.listeners.iter().map(|listener| listener.descriptor);
        let connections = self.connections.iter().map(|connection| connection.socket.descriptor);
        let sessions = self.sessions.iter().flat_map(SavedSession::descriptors);
        listeners.chain(connections).chain(sessions).collect()
    }

    /// How many sessions it has.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }
}
