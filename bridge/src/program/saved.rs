//! What the program's gate knows of a session, in the state of a hand-over. Must not know how the state is written
//! down.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{Gate, Hold, Trial};
use crate::client_address::{ClientTable, RowGuard};
use crate::saved::{Invalid, Moment};

/// A [`Trial`] in the state of a hand-over.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct SavedTrial {
    is_served: bool,
    is_accepted: bool,
    row: Option<u16>,
}

/// What a client has left of the time that it may be held.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SavedHold {
    /// When that time ends.
    pub(crate) until: Moment,
    pub(crate) has_lost: bool,
}

impl Trial {
    /// What the new binary needs to go on with the trial.
    pub(crate) fn saved(&self) -> SavedTrial {
        let row = self.row.as_ref().map(RowGuard::number);
        SavedTrial { is_served: self.served.is_none(), is_accepted: self.is_accepted, row }
    }
}

impl SavedTrial {
    /// Checks that the row of the trial is in the table.
    pub(crate) fn look(self, table: Option<&Arc<ClientTable>>) -> Result<(), Invalid> {
        match (self.row, table) {
            (None, _) => Ok(()),
            (Some(row), Some(table)) => table.look(row),
            (Some(_), None) => Err(Invalid("it has rows, and there is no table".to_owned())),
        }
    }

    /// The trial of a connection to the program of this gate; its row is in `table`.
    pub(crate) fn resume(
        self,
        gate: &Gate,
        table: Option<&Arc<ClientTable>>,
    ) -> Result<Trial, Invalid> {
        let row = match (self.row, table) {
            (None, _) => None,
            (Some(row), Some(table)) => Some(table.take_again(row)?),
            (Some(_), None) => {
                return Err(Invalid("it has rows, and there is no table".to_owned()));
            }
        };
        let served = (!self.is_served).then(|| Arc::clone(&gate.program.served));
        Ok(Trial { served, is_accepted: self.is_accepted, row })
    }
}

impl Hold {
    /// What the new binary needs to go on with the hold. The time that the hand-over takes counts, too.
    pub(crate) fn saved(&self) -> SavedHold {
        let until = self.until.unwrap_or_else(|| Instant::now() + self.left);
        SavedHold { until: until.into(), has_lost: self.has_lost }
    }
}

impl From<SavedHold> for Hold {
    fn from(saved: SavedHold) -> Self {
        let left = saved.until.instant().saturating_duration_since(Moment::now().instant());
        Self { left, until: None, has_lost: saved.has_lost }
    }
}
