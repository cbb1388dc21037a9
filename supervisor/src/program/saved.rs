//! The program's life on its way to another image of this program (O2).

use std::os::fd::RawFd;

use serde::{Deserialize, Serialize};

use super::supervisor::Supervisor;
use crate::config::ProgramSpec;
use crate::exit::{ExitStatus, Failure};
use crate::hand_over::or_back;
use crate::host::Host;
use crate::relay::ProgramRelay;

/// What another image needs to go on with the program.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ProgramState {}

impl ProgramState {
    /// The descriptors that it names, which are to be kept.
    #[expect(clippy::unused_self, reason = "nothing is saved yet")]
    pub(crate) fn descriptors(&self) -> Vec<RawFd> {
        Vec::new()
    }
}

impl<'a, 'b> Supervisor<'a, 'b> {
    /// Goes on with it. Whoever fails goes back ([`or_back`](crate::hand_over::or_back)) before anything of it is dropped.
    pub(super) fn resume(
        _spec: &'a ProgramSpec,
        _relay: ProgramRelay,
        _host: &'a mut Host<'b>,
        _saved: ProgramState,
    ) -> Result<Self, Failure> {
        let reason = "a wrapped program cannot be taken over yet".into();
        or_back(Err(Failure { status: ExitStatus::FAILURE, reason }))
    }

    /// What another image goes on with.
    ///
    /// # Errors
    ///
    /// Why none can, now.
    #[expect(clippy::unused_self, reason = "nothing is saved yet")]
    pub(super) fn save(&self) -> Result<ProgramState, String> {
        Err("a wrapped program cannot be handed over yet".into())
    }
}
