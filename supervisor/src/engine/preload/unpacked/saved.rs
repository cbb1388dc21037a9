//! The directory of an unpacked library, as another image of us goes on with it (O2): its lock is the descriptor's, and
//! that goes along.

use std::os::fd::{AsRawFd, RawFd};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::Unpacked;
use crate::handed::Handed;
use crate::octets::Octets;

/// What another image needs to know of it.
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

    /// It is left where it is until it [goes on](Self::go_on).
    pub(in super::super) fn resume(state: UnpackedState, handed: &mut Handed<'_>) -> Result<Self> {
        Ok(Self {
            path: state.path.into_path(),
            directory: handed.directory(state.directory)?,
            is_kept: state.is_kept,
            is_anothers: true,
        })
    }

    /// It is ours to remove.
    pub(in super::super) fn go_on(&mut self) {
        self.is_anothers = false;
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
