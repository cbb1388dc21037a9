//! The state of a bridge for the new binary: what each part of the bridge has saved, in one place. Must not know how a part saves
//! it.

use std::os::fd::RawFd;

use serde::{Deserialize, Serialize};

use crate::admission::SavedPenalty;
use crate::arrival::SavedConnection;
use crate::book::SavedBook;
use crate::net::SavedListener;
use crate::saved::Moment;
use crate::session::SavedSession;

/// What the new binary needs to go on with a bridge.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct BridgeState {
    pub(crate) listeners: Vec<SavedListener>,
    /// When the bridge stops accepting (`Config::timeout`).
    pub(crate) timeout: Option<Moment>,
    /// When the bridge ends, if no session begins until then.
    pub(crate) idle: Option<Moment>,
    pub(crate) next_beat: Option<Moment>,
    pub(crate) next_limits: Option<Moment>,
    pub(crate) is_full: bool,
    pub(crate) is_exhausted: bool,
    pub(crate) book: SavedBook,
    /// How many recordings have a number already.
    pub(crate) recordings: u64,
    pub(crate) sessions: Vec<SavedSession>,
    pub(crate) connections: Vec<SavedConnection>,
    pub(crate) penalties: Vec<SavedPenalty>,
}

impl BridgeState {
    /// The file descriptors that the state names, which must stay open.
    pub fn descriptors(&self) -> Vec<RawFd> {
        let listeners = self.listeners.iter().map(|listener| listener.descriptor);
        let connections = self.connections.iter().map(|connection| connection.socket.descriptor);
        let sessions = self.sessions.iter().flat_map(SavedSession::descriptors);
        listeners.chain(connections).chain(sessions).collect()
    }

    /// How many sessions it has, without those that cannot be handed over.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }
}
