//! A session in the state of a hand-over. Must not know how the state is written down, nor when.

use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Course, Ongoing, Stage};
use crate::account::SessionLog;
use crate::book::{SavedEntry, Session};
use crate::client::SavedClient;
use crate::client_address::ClientTable;
use crate::destination::Destination;
use crate::directory::Directory;
use crate::leg::{Leg, SavedLeg};
use crate::program::{Gate, Hold, SavedHold};
use crate::pump::SavedJoined;
use crate::record::SavedRecording;
use crate::saved::Invalid;
use crate::tap::Tap;

/// How far a session is.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum SavedStage {
    /// It has no connection yet, or none any more.
    Waiting(Option<SavedHold>),
    /// It has its connection; and what is left of the time that its client may be held, in case the connection is lost.
    Joined(SavedJoined, Option<SavedHold>),
    /// It is over, except that the last bytes for the client are still sent.
    Leaving,
}

/// A session in the state of a hand-over.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SavedSession {
    pub(crate) entry: SavedEntry,
    pub(crate) client: SavedClient,
    pub(crate) stage: SavedStage,
    /// Whether the beginning of the session is in the log.
    pub(crate) is_recorded: bool,
    /// Where its target was reached first.
    pub(crate) reached: Option<SocketAddr>,
    pub(crate) recording: Option<SavedRecording>,
}

/// What is needed to go on with a session, besides its saved state.
pub(crate) struct Resumption<'a> {
    pub(crate) session: Session,
    /// Its client's connection, and the target's.
    pub(crate) legs: (Leg, Option<Leg>),
    /// The bytes that the saved state refers to.
    pub(crate) bytes: &'a [u8],
    pub(crate) tap: Option<Box<Tap>>,
    pub(crate) table: Option<&'a Arc<ClientTable>>,
}

impl Ongoing {
    /// The state of the session. The bytes that it refers to are appended to `bytes`.
    pub(super) fn saved(&mut self, bytes: &mut Vec<u8>) -> SavedSession {
        let Self { client, account, course } = self;
        SavedSession {
            entry: client.session.entry.saved(),
            client: SavedClient::of(client, bytes),
            stage: course.saved(),
            is_recorded: course.is_recorded,
            reached: account.reached(),
            // Set later, when the recording is flushed.
            recording: None,
        }
    }
}

impl Course {
    fn saved(&self) -> SavedStage {
        let hold = self.hold.as_ref().map(Hold::saved);
        match &self.stage {
            Stage::Connecting => SavedStage::Waiting(hold),
            Stage::Joined(joined) => SavedStage::Joined(SavedJoined::of(joined), hold),
            Stage::Leaving => SavedStage::Leaving,
        }
    }
}

impl SavedSession {
    /// The descriptors that it names.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = RawFd> {
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

    /// Marks the connections as kept: encrypted ones stay in the process that has their TLS keys.
    pub(crate) fn keep_legs(&mut self) {
        self.client.leg = SavedLeg::Kept;
        if let SavedStage::Joined(joined, _) = &mut self.stage {
            joined.target = SavedLeg::Kept;
        }
    }

    /// Whether one of its connections is encrypted, and so stays in the process that has its TLS keys.
    pub(super) fn is_encrypted(&self) -> bool {
        self.client.leg == SavedLeg::Kept || self.target() == Some(SavedLeg::Kept)
    }

    /// Checks that the session can be gone on with, before a descriptor is taken for it.
    pub(crate) fn look(
        &self,
        bytes: &[u8],
        directory: &Directory,
        table: Option<&Arc<ClientTable>>,
    ) -> Result<(), Invalid> {
        self.client.look(bytes)?;
        let destination = self.entry.destination.resume(directory)?;
        let has_program = matches!(&*destination, Destination::Program(_));
        match &self.stage {
            SavedStage::Joined(joined, _) => joined.look(has_program, table),
            SavedStage::Waiting(_) | SavedStage::Leaving => Ok(()),
        }
    }

    /// The session, ready to go on.
    pub(crate) fn resume(self, with: Resumption<'_>) -> Result<Box<Ongoing>, Invalid> {
        let Resumption { session, legs: (leg, target), bytes, tap, table } = with;
        let destination = Arc::clone(&session.entry.destination);
        let gate: Option<&Gate> = match &*destination {
            Destination::Program(gate) => Some(gate),
            Destination::Service(_) => None,
        };
        let (stage, hold) = match self.stage {
            SavedStage::Waiting(hold) => (Stage::Connecting, hold),
            SavedStage::Joined(joined, hold) => {
                let target = target.ok_or_else(|| Invalid("a session has no target".to_owned()))?;
                (Stage::Joined(joined.resume(target, gate, table)?), hold)
            }
            SavedStage::Leaving => (Stage::Leaving, None),
        };
        let course = Course { stage, hold: hold.map(Hold::from), is_recorded: self.is_recorded };
        let client = self.client.resume(leg, bytes, tap, session)?;
        Ok(Box::new(Ongoing { client, account: SessionLog::resume(self.reached), course }))
    }
}
