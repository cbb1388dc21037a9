//! What another image of this program needs to go on as we are, but for what the bridge and the program know of
//! themselves. Descriptors are named by their numbers, which exec(2) keeps. Must not know how it is written.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::Path;
use std::time::Instant;

use bridge::BridgeState;
use serde::{Deserialize, Serialize};

use super::binary;
use super::moment::Moment;
use crate::admin::{SavedAdmin, SavedStanding};
use crate::host::open_files::OpenFiles;
use crate::log::Stderr;
use crate::program::ProgramState;
use crate::relay::SavedRelay;

/// All of it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct State {
    /// Whose it is: ours, before and after.
    pub(crate) pid: u32,
    pub(crate) launch: Launch,
    pub(crate) held: Held,
    /// Since when nothing moves.
    pub(crate) stopped: Moment,
    /// Whether whoever waits for us has been told that we are up.
    pub(crate) is_ready: bool,
    pub(crate) standing: SavedStanding,
    /// The rest is there when nothing moves, and not for a trial.
    pub(crate) relay: Option<SavedRelay>,
    pub(crate) bridge: Option<BridgeState>,
    pub(crate) program: Option<ProgramState>,
}

/// How we were started, in the first place.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Launch {
    /// The real command line, which ps does not show where there is a secret in it.
    pub(crate) args: Vec<OsString>,
    began: Moment,
    /// Where our program lay.
    binary: OsString,
    /// What ps shows as our name; some kernels make another one of it.
    pub(crate) name: OsString,
    pub(crate) stderr: Stderr,
}

/// What we have taken hold of, for our whole life.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Held {
    pub(crate) open_files: OpenFiles,
    pub(crate) pid_file: Option<RawFd>,
    pub(crate) admin: Option<SavedAdmin>,
}

impl Launch {
    /// We are started now.
    pub(crate) fn new(args: Vec<OsString>, now: Instant) -> Self {
        let name = std::fs::read_to_string("/proc/self/comm").unwrap_or_default();
        Self {
            args,
            began: now.into(),
            binary: binary::path().into(),
            name: name.trim_end_matches('\n').into(),
            stderr: Stderr::Callers,
        }
    }

    /// When we were.
    pub(crate) fn began(&self) -> Instant {
        self.began.into()
    }

    pub(crate) fn binary(&self) -> &Path {
        Path::new(&self.binary)
    }
}

impl State {
    /// The descriptors that it names.
    pub(crate) fn descriptors(&self) -> Vec<RawFd> {
        let admin = self.held.admin.iter().flat_map(SavedAdmin::descriptors);
        let relay = self.relay.iter().flat_map(SavedRelay::descriptors);
        let bridge = self.bridge.iter().flat_map(BridgeState::descriptors);
        let program = self.program.iter().flat_map(ProgramState::descriptors);
        self.held
            .pid_file
            .into_iter()
            .chain(admin)
            .chain(relay)
            .chain(bridge)
            .chain(program)
            .collect()
    }
}
