//! The directory of an unpacked library in a hand-over (O2): what the old binary saves of it, and how the new one goes
//! on with it. The lock belongs to the descriptor, which stays open over exec(2).

use std::os::fd::{AsRawFd, RawFd};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::Unpacked;
use crate::handed::Handed;
use crate::octets::Octets;

/// What the new binary needs to know of it.
#[derive(Debug, Serialize, Deserialize)]
pub(in super::super) struct UnpackedState {
    path: Octets,
    directory: RawFd,
    #[serde(default)]
    is_kept: bool,
}

impl Unpacked {
    pub(in super::super) fn save(&self) -> UnpackedState {
        UnpackedState {
            path: self.path.as_path().into(),
            directory: self.directory.as_raw_fd(),
            is_kept: self.is_kept,
        }
    }

    /// It is not removed when this is dropped, until it [goes on](Self::go_on).
    pub(in super::super) fn resume(state: UnpackedState, handed: &mut Handed<'_>) -> Result<Self> {
        Ok(Self {
            path: state.path.into_path(),
            directory: handed.directory(state.directory)?,
            is_kept: state.is_kept,
            keep_on_drop: true,
        })
    }

    /// From now on it is removed when this is dropped, unless it is kept.
    pub(in super::super) fn go_on(&mut self) {
        self.keep_on_drop = false;
    }
}

impl UnpackedState {
    pub(in super::super) fn descriptor(&self) -> RawFd {
        self.directory
    }

    #[cfg(test)]
    pub(in super::super) fn set_descriptor(&mut self, number: RawFd) {
        self.directory = number;
    }
}
