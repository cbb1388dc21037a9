//! The client table in a hand-over (O2): what the old binary saves of it, and how the new one goes on with it. Programs
//! have the file mapped, so it stays the same file.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::Ordering;

use anyhow::Result;
use bridge::{ClientTable, ClientTableState};
use serde::{Deserialize, Serialize};

use super::ClientTableFile;
use crate::config::Told;
use crate::handed::Handed;
use crate::octets::Octets;

/// What the new binary needs to know of it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ClientTableFileState {
    path: Octets,
    directory: RawFd,
    table: ClientTableState,
}

impl ClientTableFile {
    pub(crate) fn save(&self) -> ClientTableFileState {
        ClientTableFileState {
            path: self.path.as_path().into(),
            directory: self.directory.as_raw_fd(),
            table: self.table.save(),
        }
    }

    /// The file is not removed when this is dropped, until it [goes on](Self::go_on).
    ///
    /// # Errors
    /// A descriptor is not what it should be.
    pub(crate) fn resume(
        told: Told,
        state: ClientTableFileState,
        handed: &mut Handed<'_>,
    ) -> Result<Self> {
        let directory = handed.directory(state.directory)?;
        let [file, held] = state.table.descriptors();
        let both = [handed.copy(file)?, handed.copy(held)?];
        let table = ClientTable::resume(&state.table, both)?;
        Ok(Self { table, told, path: state.path.into_path(), directory, keep_on_drop: true.into() })
    }

    /// From now on the file is removed when this is dropped.
    pub(crate) fn go_on(&self) {
        self.table.go_on();
        self.keep_on_drop.store(false, Ordering::Relaxed);
    }
}

impl ClientTableFileState {
    pub(crate) fn descriptors(&self) -> Vec<RawFd> {
        let [file, held] = self.table.descriptors();
        vec![file, held, self.directory]
    }
}
