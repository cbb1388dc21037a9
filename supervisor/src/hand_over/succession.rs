//! The succession: how far a hand-over to another binary is. Must not know what is to be done for it.

use std::future::pending;
use std::os::fd::OwnedFd;

use super::arrived::Arrived;
use super::held::Held;
use super::launch::Launch;
use super::trial::Trial;

/// How far a hand-over is, of this binary to another or from another to this one.
#[derive(Debug)]
pub(crate) struct Succession {
    pub(super) launch: Launch,
    pub(super) held: Held,
    pub(super) trial: Option<Trial>,
    pub(super) arrived: Option<Arrived>,
}

impl Succession {
    pub(crate) fn new(launch: Launch, held: Held, arrived: Option<Arrived>) -> Self {
        Self { launch, held, trial: None, arrived }
    }

    /// Whether we have begun in the place of an old binary, and not settled yet.
    pub(crate) fn is_arriving(&self) -> bool {
        self.arrived.is_some()
    }

    /// Keeps descriptors open until there is no way back to the old binary.
    pub(crate) fn keep(&mut self, originals: Vec<OwnedFd>) {
        if let Some(arrived) = &mut self.arrived {
            arrived.originals.extend(originals);
        }
    }

    /// What came of a trial, if one is under way. Cancel-safe.
    pub(crate) async fn tried(&mut self) -> Result<(), String> {
        match &mut self.trial {
            Some(trial) => trial.verdict().await,
            None => pending().await,
        }
    }

    /// The path of the new binary.
    pub(super) fn path(&self) -> String {
        self.launch.binary().display().to_string()
    }
}
