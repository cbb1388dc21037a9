//! A session that stands still, and as another image of this program goes on with it. Must not know how that is written
//! down, nor when.

use std::sync::Arc;

use super::{Course, Ongoing, Stage};
use crate::account::Account;
use crate::book::Session;
use crate::client::SavedClient;
use crate::client_address::ClientTable;
use crate::destination::Destination;
use crate::directory::Directory;
use crate::hand_over::{Invalid, LentLegs, SavedSession, SavedStage, StoodSession};
use crate::leg::{Leg, SavedLeg};
use crate::program::{Gate, Hold};
use crate::pump::SavedJoined;
use crate::shutdown::ShutdownWatch;
use crate::tap::Tap;

/// What there is to go on with a session.
pub(crate) struct Resumption<'a> {
    pub(crate) session: Session,
    /// Its client's connection, and the target's.
    pub(crate) legs: (Leg, Option<Leg>),
    /// The bytes that it speaks of.
    pub(crate) bytes: &'a [u8],
    pub(crate) tap: Option<Box<Tap>>,
    pub(crate) table: Option<&'a Arc<ClientTable>>,
}

/// Says what the session is, and waits until it may go on.
pub(super) async fn stand_still(
    Ongoing { client, account, course }: &mut Ongoing,
    shutdown: &mut ShutdownWatch,
) {
    let mut bytes = Vec::new();
    let mut saved = SavedSession {
        entry: client.session.entry.saved(),
        client: SavedClient::of(client, &mut bytes),
        stage: course.saved(),
        is_recorded: course.is_recorded,
        reached: account.reached(),
        // It is known when it is written.
        recording: None,
    };
    let recording = client.tap.as_ref().and_then(|tap| tap.stand());
    let (mut legs, mut returned) = (None, None);
    if saved.is_encrypted() {
        saved.keep_legs();
        let take = |leg: &mut Leg| std::mem::replace(leg, Leg::Away);
        let (lent, back) = LentLegs::new(take(client.leg()), course.target().map(take));
        (legs, returned) = (Some(lent), Some(back));
    }
    let session = StoodSession { saved, bytes, recording, legs };
    let stood = shutdown.pause.stand(|stood| stood.sessions.push(session));
    shutdown.goes_on(stood).await;
    let Some(back) = returned else { return };
    // Who has borrowed them gives them back, or this process is gone.
    if let Ok((leg, target)) = back.await {
        *client.leg() = leg;
        if let (Some(place), Some(target)) = (course.target(), target) {
            *place = target;
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

    fn target(&mut self) -> Option<&mut Leg> {
        match &mut self.stage {
            Stage::Joined(joined) => Some(&mut joined.target),
            Stage::Connecting | Stage::Leaving => None,
        }
    }
}

impl SavedSession {
    /// Whether a connection of it lives where its keys are.
    fn is_encrypted(&self) -> bool {
        self.client.leg == SavedLeg::Kept || self.target() == Some(SavedLeg::Kept)
    }

    /// Whether it can be gone on with, before anything is taken for it.
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

    /// The session, with what there is of it.
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
        Ok(Box::new(Ongoing { client, account: Account::resume(self.reached), course }))
    }
}
