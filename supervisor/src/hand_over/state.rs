//! The state: what the new binary needs to go on as the old one was. What the bridge and the program know of
//! themselves, they save themselves. Descriptors are named by their numbers, which exec(2) keeps. Must not know how the
//! state is written.

use std::os::fd::RawFd;

use bridge::{BridgeState, Moment};
use serde::{Deserialize, Serialize};

use super::held::Held;
use super::launch::Launch;
use crate::admin::SavedStanding;
use crate::config::Config;
use crate::config::access::Need;
use crate::program::saved::ProgramState;
use crate::relay::RelayState;

/// All of it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct State {
    /// The process that the state is of; exec(2) does not change it.
    pub(crate) pid: u32,
    pub(crate) launch: Launch,
    pub(crate) held: Held,
    /// Since when everything stands still.
    pub(crate) stopped: Moment,
    /// Whether systemd, where it waits for us, has been told that we are ready.
    pub(crate) is_ready: bool,
    pub(crate) standing: SavedStanding,
    /// Whether clients were served by TLS.
    #[serde(default)]
    pub(crate) serves_tls: bool,
    /// The processes that go on with the TLS sessions of before a hand-over.
    #[serde(default)]
    pub(crate) rests: Vec<i32>,
    /// This and the next two are set when everything stands still, and not for a trial.
    pub(crate) relay: Option<RelayState>,
    pub(crate) bridge: Option<BridgeState>,
    pub(crate) program: Option<ProgramState>,
}

impl State {
    /// What the command line means to this binary. Where clients are served by TLS, they are to be served by TLS after the
    /// hand-over too, whether or not an option names a certificate.
    pub(super) fn config(&self) -> Result<Config, String> {
        let mut config = self.launch.config()?;
        if self.serves_tls {
            config.access.need = Need::Present;
        }
        Ok(config)
    }

    /// The descriptors that it names.
    pub(crate) fn descriptors(&self) -> Vec<RawFd> {
        let relay = self.relay.iter().flat_map(RelayState::descriptors);
        let bridge = self.bridge.iter().flat_map(BridgeState::descriptors);
        let program = self.program.iter().flat_map(ProgramState::descriptors);
        self.held.descriptors().chain(relay).chain(bridge).chain(program).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hand_over::format;

    const STATES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/hand_over/states");

    /// Each of these was written by a running websockify of the first version of its format. A field that a later
    /// version adds has a default, or the format gets another number.
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
