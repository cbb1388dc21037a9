//! What a bridge is, for another image of this program: numbers, times, sockets by their descriptors. It is versioned by
//! whoever writes it down; what a later version adds must have a default here. Knows nothing of how it came about.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Moment, Place};
use crate::client::SavedClient;
use crate::leg::SavedLeg;
use crate::net::SavedSocket;
use crate::peer::PeerAddress;
use crate::pump::SavedJoined;
use crate::record::SavedRecording;

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

/// What was counted, by family and name.
pub(crate) type SavedCounts = BTreeMap<String, BTreeMap<String, u64>>;

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct SavedBook {
    pub(crate) begun: u64,
    /// The payload bytes of sessions that have ended.
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) counts: SavedCounts,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct SavedListener {
    pub(crate) descriptor: RawFd,
    pub(crate) is_unix: bool,
    /// Whether somebody else has it open, too.
    pub(crate) is_lent: bool,
}

/// How long one who guesses passwords waits.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SavedPenalty {
    pub(crate) client: SavedClientId,
    pub(crate) count: u32,
    pub(crate) end: Moment,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum SavedClientId {
    Address(std::net::IpAddr),
    User(u32),
}

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
    /// When it was accepted, or had its last answer.
    pub(crate) since: Moment,
    /// Whether it has had an answer.
    pub(crate) is_kept_alive: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SavedPeer {
    pub(crate) address: PeerAddress,
    pub(crate) via: Option<PeerAddress>,
    pub(crate) is_unnamed: bool,
    pub(crate) tls: Option<crate::peer::TlsVersion>,
    pub(crate) certificate: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum SavedDestination {
    Program,
    Tcp {
        host: String,
        port: u16,
    },
    Resolved {
        host: String,
        port: u16,
        addresses: Vec<SocketAddr>,
    },
    Unix(PathBuf),
    /// One that was opened to be checked: how it is shown, and where it was.
    Opened {
        shown: String,
        path: PathBuf,
    },
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SavedLogin {
    pub(crate) user: Option<String>,
    pub(crate) token: Option<String>,
    pub(crate) expires: Option<Moment>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SavedLastSeen {
    pub(crate) heard: Moment,
    pub(crate) moved: u64,
    pub(crate) moved_at: Moment,
}

/// What the book has of a session.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SavedEntry {
    pub(crate) id: u64,
    pub(crate) peer: SavedPeer,
    pub(crate) destination: SavedDestination,
    pub(crate) login: Option<SavedLogin>,
    pub(crate) began: Moment,
    pub(crate) asked: Option<String>,
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) is_heard: bool,
    pub(crate) last_seen: Option<SavedLastSeen>,
    /// What it was called to do and has not done.
    #[serde(default)]
    pub(crate) calls: u8,
}

/// How far a session is.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum SavedStage {
    /// It has no connection yet, or none any more.
    Waiting(Option<SavedHold>),
    /// It has one, and what is left of its time, if it loses that.
    Joined(SavedJoined, Option<SavedHold>),
    /// It is over but for its last words.
    Leaving,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SavedHold {
    /// When it ends.
    pub(crate) until: Moment,
    pub(crate) has_lost: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SavedSession {
    pub(crate) entry: SavedEntry,
    pub(crate) client: SavedClient,
    pub(crate) stage: SavedStage,
    /// Whether the log has its beginning.
    pub(crate) is_recorded: bool,
    /// Where its target was reached first.
    pub(crate) reached: Option<SocketAddr>,
    pub(crate) recording: Option<SavedRecording>,
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

impl SavedSession {
    fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        let sockets = [Some(self.client.leg), self.target()].into_iter().flatten();
        let sockets = sockets.filter_map(|leg| match leg {
            SavedLeg::Plain(socket) => Some(socket.descriptor),
            SavedLeg::Kept => None,
        });
        sockets.chain(self.recording.as_ref().and_then(SavedRecording::descriptor))
    }

    /// As `Place::move_by`.
    pub(crate) fn move_by(&mut self, base: usize) {
        self.client.move_by(base);
    }

    /// The target's connection, if it has one.
    pub(crate) fn target(&self) -> Option<SavedLeg> {
        match &self.stage {
            SavedStage::Joined(joined, _) => Some(joined.target),
            SavedStage::Waiting(_) | SavedStage::Leaving => None,
        }
    }

    /// Whether it has bytes that are still to be written.
    pub(crate) fn is_busy(&self) -> bool {
        self.client.is_busy()
    }

    /// Its connections stay where their keys are.
    pub(crate) fn keep_legs(&mut self) {
        self.client.leg = SavedLeg::Kept;
        if let SavedStage::Joined(joined, _) = &mut self.stage {
            joined.target = SavedLeg::Kept;
        }
    }
}
