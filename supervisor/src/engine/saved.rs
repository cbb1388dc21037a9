//! An engine as another image of us goes on with it (O2): what each kind needs to know, and how it is made to stand still
//! meanwhile. Must not know how images are changed.

use std::os::fd::RawFd;
use std::sync::Arc;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::Engine;
use super::preload::{Clients, Preload, PreloadState};
use super::seccomp::{Seccomp, SeccompState};
use crate::handed::Handed;

/// What another image needs to go on.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum EngineState {
    Preload(PreloadState),
    Seccomp(SeccompState),
}

impl Engine {
    /// Answers nobody from now on, until it [goes on](Self::go_on); who is being answered is, first.
    ///
    /// # Errors
    /// That takes too long. It goes on.
    pub(crate) fn still(&mut self) -> Result<()> {
        match self {
            // Nobody waits for it but in its socket.
            Self::Preload(_) => Ok(()),
            Self::Seccomp(seccomp) => seccomp.still(),
        }
    }

    /// # Errors
    /// There is no thread to be had.
    pub(crate) fn go_on(&mut self) -> Result<()> {
        match self {
            Self::Preload(preload) => {
                preload.go_on();
                Ok(())
            }
            Self::Seccomp(seccomp) => seccomp.go_on(),
        }
    }

    /// What is to be said of it while it is still.
    pub(crate) fn save(&self) -> EngineState {
        match self {
            Self::Preload(preload) => EngineState::Preload(preload.save()),
            Self::Seccomp(seccomp) => EngineState::Seccomp(seccomp.save()),
        }
    }

    /// One that is still yet, of a program with this `port`, and leaves everything as it is until it
    /// [goes on](Self::go_on). Needs a runtime.
    ///
    /// # Errors
    /// A descriptor is missing, or is not what it should be.
    pub(crate) fn resume(
        state: EngineState,
        port: u16,
        clients: Option<Arc<Clients>>,
        handed: &mut Handed<'_>,
    ) -> Result<Self> {
        Ok(match state {
            EngineState::Preload(state) => {
                Self::Preload(Box::new(Preload::resume(state, port, clients, handed)?))
            }
            EngineState::Seccomp(state) => Self::Seccomp(Seccomp::resume(state, port, handed)?),
        })
    }
}

impl EngineState {
    pub(crate) fn descriptors(&self) -> Vec<RawFd> {
        match self {
            Self::Preload(state) => state.descriptors(),
            Self::Seccomp(state) => state.descriptors(),
        }
    }
}
