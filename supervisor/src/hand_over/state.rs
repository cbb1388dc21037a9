//! What another image of this program needs to go on as we are, but for what the bridge and the program know of
//! themselves. Descriptors are named by their numbers, which exec(2) keeps. Must not know how it is written.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::Path;
use std::time::Instant;

use bridge::{BridgeState, Moment};
use serde::{Deserialize, Serialize};

use super::binary;
use crate::admin::{SavedAdmin, SavedStanding};
use crate::host::open_files::OpenFiles;
use crate::launcher::LauncherState;
use crate::log::Stderr;
use crate::program::ProgramState;
use crate::relay::RelayState;

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
    /// Our rests, which go on beside us.
    #[serde(default)]
    pub(crate) rests: Vec<i32>,
    /// What follows is there when nothing moves, and not for a trial.
    pub(crate) relay: Option<RelayState>,
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
    /// What starts the program where it is another user than we.
    #[serde(default)]
    pub(crate) launcher: Option<LauncherState>,
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
        self.began.instant()
    }

    pub(crate) fn binary(&self) -> &Path {
        Path::new(&self.binary)
    }
}

impl State {
    /// The descriptors that it names.
    pub(crate) fn descriptors(&self) -> Vec<RawFd> {
        let admin = self.held.admin.iter().flat_map(SavedAdmin::descriptors);
        let launcher = self.held.launcher.iter().map(LauncherState::descriptor);
        let relay = self.relay.iter().flat_map(RelayState::descriptors);
        let bridge = self.bridge.iter().flat_map(BridgeState::descriptors);
        let program = self.program.iter().flat_map(ProgramState::descriptors);
        self.held
            .pid_file
            .into_iter()
            .chain(admin)
            .chain(launcher)
            .chain(relay)
            .chain(bridge)
            .chain(program)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hand_over::format;

    const STATES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/hand_over/states");

    /// Each was written by the first version of its format, at work: what a later one adds has a default, or the format
    /// another number.
    #[test]
    fn o2_what_versions_before_have_written_is_read() {
        let mut read = 0;
        for file in std::fs::read_dir(STATES).expect("the states").map(|file| file.expect("one")) {
            let bytes = std::fs::read(file.path()).expect("read");
            let state = format::read::<State>(&bytes);
            let (state, _) = state.unwrap_or_else(|why| panic!("{}: {why}", file.path().display()));
            assert!(state.relay.is_some() || state.program.is_some());
            let again = format::write(&state, &[]).expect("written");
            format::read::<State>(&again).expect("read again");
            read += 1;
        }
        assert!(read >= 5);
    }
}
