//! What becomes of our place, through our life. Knows how far we are, and not what is to be done.

use std::future::pending;
use std::os::fd::OwnedFd;

use super::arrived::Arrived;
use super::held::Held;
use super::launch::Launch;
use super::trial::Trial;

/// What becomes of our place, through our life.
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

    /// Whether we have begun in another's place, and not settled yet.
    pub(crate) fn is_arriving(&self) -> bool {
        self.arrived.is_some()
    }

    /// Keeps descriptors until there is no way back.
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

    /// Where the program lies that takes our place.
    pub(super) fn path(&self) -> String {
        self.launch.binary().display().to_string()
    }
}
