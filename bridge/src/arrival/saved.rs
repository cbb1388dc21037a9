//! A connection without a session, for another image of this program. Must not know how that is written down.

use serde::{Deserialize, Serialize};

use crate::net::SavedSocket;
use crate::peer::SavedPeer;
use crate::saved::{Moment, Place};

/// A connection without a session that can be begun anew.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SavedConnection {
    pub(crate) socket: SavedSocket,
    pub(crate) peer: SavedPeer,
    /// Whether a proxy has said whose it is.
    pub(crate) is_introduced: bool,
    /// What was read of it and has no answer yet.
    #[serde(default)]
    pub(crate) head: Place,
    /// When it was accepted, or had its last answer, or its next head began.
    pub(crate) since: Moment,
    /// Whether it has had an answer.
    pub(crate) is_kept_alive: bool,
}

/// A connection without a session that stands still.
#[derive(Debug)]
pub(crate) struct StoodConnection {
    /// Its head has no place yet.
    pub(crate) saved: SavedConnection,
    pub(crate) head: Vec<u8>,
}
