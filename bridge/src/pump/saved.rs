//! A session that has its target, in the state of a hand-over. Must not know how the state is written down.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Joined, Phase, Side};
use crate::client_address::ClientTable;
use crate::leg::{Leg, SavedLeg};
use crate::program::{Gate, SavedTrial, Trial};
use crate::saved::{Invalid, Moment};
use crate::standstill::Standstill;

/// A [`Joined`] in the state of a hand-over.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SavedJoined {
    pub(crate) target: SavedLeg,
    input: Side,
    output: Side,
    phase: Phase,
    limit: Option<Moment>,
    under_way: Option<u64>,
    #[serde(default)]
    stalls: u32,
    standstill: Option<Standstill>,
    trial: Option<SavedTrial>,
}

impl SavedJoined {
    pub(crate) fn of(joined: &Joined) -> Self {
        Self {
            target: joined.target.saved(),
            input: joined.input,
            output: joined.output,
            phase: joined.phase,
            limit: joined.limit.map(Moment::from),
            under_way: joined.under_way,
            stalls: joined.stalls,
            standstill: joined.standstill.as_deref().cloned(),
            trial: joined.trial.as_ref().map(Trial::saved),
        }
    }

    /// Checks that the session can be gone on with.
    pub(crate) fn look(
        &self,
        has_program: bool,
        table: Option<&Arc<ClientTable>>,
    ) -> Result<(), Invalid> {
        match self.trial {
            Some(_) if !has_program => {
                Err(Invalid("it has a connection to a program, and there is none".to_owned()))
            }
            Some(trial) => trial.look(table),
            None => Ok(()),
        }
    }

    /// The session, with this leg to the target. `gate` is the program's, if the target is the program.
    pub(crate) fn resume(
        self,
        target: Leg,
        gate: Option<&Gate>,
        table: Option<&Arc<ClientTable>>,
    ) -> Result<Joined, Invalid> {
        let no_program =
            || Invalid("it has a connection to a program, and there is none".to_owned());
        let trial = self
            .trial
            .map(|trial| trial.resume(gate.ok_or_else(no_program)?, table))
            .transpose()?;
        Ok(Joined {
            target,
            input: self.input,
            output: self.output,
            phase: self.phase,
            limit: self.limit.map(|limit| limit.instant().into()),
            under_way: self.under_way,
            stalls: self.stalls,
            standstill: self.standstill.map(Box::new),
            answered: 0,
            counted: 0,
            silence: None,
            has_unsent_limit: false,
            trial,
        })
    }
}
