//! An engine in a hand-over (O2): what the new binary needs to know of each kind, and how an engine is stopped
//! meanwhile. Must not know how one binary takes the place of another.

use std::os::fd::RawFd;
use std::sync::Arc;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::Engine;
use super::preload::{ClientTableFile, Preload, PreloadState};
use super::seccomp::{Seccomp, SeccompState};
use crate::handed::Handed;

/// What the new binary needs to go on.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum EngineState {
    Preload(PreloadState),
    Seccomp(SeccompState),
}

impl Engine {
    /// Answers no call of the program from now on, until it [goes on](Self::go_on). A call that is being answered is
    /// answered first.
    ///
    /// # Errors
    /// That takes too long. Then it goes on.
    pub(crate) fn still(&mut self) -> Result<()> {
        match self {
            // It has no thread: what comes waits in the queue of its socket.
            Self::Preload(_) => Ok(()),
            Self::Seccomp(seccomp) => seccomp.still(),
        }
    }

    /// # Errors
    /// No thread can be started.
    pub(crate) fn go_on(&mut self) -> Result<()> {
        match self {
            Self::Preload(preload) => {
                preload.go_on();
                Ok(())
            }
            Self::Seccomp(seccomp) => seccomp.go_on(),
        }
    }

    /// What is saved of it while it is stopped.
    pub(crate) fn save(&self) -> EngineState {
        match self {
            Self::Preload(preload) => EngineState::Preload(preload.save()),
            Self::Seccomp(seccomp) => EngineState::Seccomp(seccomp.save()),
        }
    }

    /// An engine for a program with this `port`. It is stopped until it [goes on](Self::go_on), and leaves everything
    /// as it is until then. Needs a runtime.
    ///
    /// # Errors
    /// A descriptor is missing, or is not what it should be.
    pub(crate) fn resume(
        state: EngineState,
        port: u16,
        clients: Option<Arc<ClientTableFile>>,
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
