//! A connection without a session, as saved for the new binary in a hand-over. Must not know how it is serialized.

use serde::{Deserialize, Serialize};

use crate::net::SavedSocket;
use crate::peer::SavedPeer;
use crate::saved::{Moment, Place};

/// A connection without a session that the new binary can begin anew.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SavedConnection {
    pub(crate) socket: SavedSocket,
    pub(crate) peer: SavedPeer,
    /// Whether the PROXY header of a trusted proxy was read.
    pub(crate) is_introduced: bool,
    /// What was read of it and has no answer yet.
    #[serde(default)]
    pub(crate) head: Place,
    /// When it was accepted, or had its last answer, or its next head began.
    pub(crate) since: Moment,
    /// Whether it has had an answer.
    pub(crate) is_kept_alive: bool,
}

/// A connection without a session that is stopped for a hand-over.
#[derive(Debug)]
pub(crate) struct StoodConnection {
    /// Its `head` is not set yet: it is the place of the bytes beside this.
    pub(crate) saved: SavedConnection,
    pub(crate) head: Vec<u8>,
}
