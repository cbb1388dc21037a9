//! The bridge as another image of us goes on with it (O2): how far it is, and what is known of who is there. What the
//! bridge itself says of its sessions is its own matter, and is frozen and resumed beside this.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use anyhow::Result;
use bridge::{Demand, Descriptors, Destination, Frozen, Readiness, Shutdown};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::served::Served;
use super::{Announcement, ProgramRelay, Relay, Stage};
use crate::clock::maybe_instant;
use crate::handed::Handed;
use crate::host::public::{EndpointState, PublicEndpoint, SocketFile, SocketFileState};
use crate::program::state::Policy;

/// What another image needs to go on with a bridge.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RelayState {
    stage: StageState,
    #[serde(with = "ShutdownState")]
    shutdown: Shutdown,
}

#[derive(Debug, Serialize, Deserialize)]
enum StageState {
    Held {
        public: EndpointState,
        #[serde(default, with = "maybe_instant")]
        open_by: Option<Instant>,
    },
    Open {
        #[serde(default)]
        file: Option<SocketFileState>,
    },
    Ended,
}

/// What another image needs to go on with the bridge to a program.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ProgramRelayState {
    relay: RelayState,
    #[serde(with = "ReadinessState")]
    readiness: Readiness,
    served: ServedState,
    /// What was told last.
    #[serde(with = "DemandState")]
    demand: Demand,
}

/// Counts of sessions.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(default)]
struct ServedState {
    count: u64,
    asked: u64,
    before: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Shutdown")]
enum ShutdownState {
    Run,
    NoMore,
    Drain,
    Late,
    Finish,
    Now,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Readiness")]
enum ReadinessState {
    Waiting,
    Ready(std::net::SocketAddr),
    Failed,
    Gone,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Demand")]
enum DemandState {
    Nobody,
    Served,
    Waiting,
}

impl Relay {
    /// What is to be said of it, besides what the bridge says of itself if it [is open](RelayState::is_open).
    pub(crate) fn save(&self) -> RelayState {
        let stage = match &self.stage {
            Stage::Held { public, open_by, .. } => {
                StageState::Held { public: public.save(), open_by: *open_by }
            }
            Stage::Open { file, .. } | Stage::Still { file, .. } => {
                StageState::Open { file: file.as_ref().map(SocketFile::save) }
            }
            Stage::Ended => StageState::Ended,
        };
        RelayState { stage, shutdown: *self.shutdown.borrow() }
    }

    /// One that is still yet, and leaves everything as it is until it [goes on](Self::go_on).
    ///
    /// # Errors
    /// A descriptor is missing, or is not what it should be.
    pub(crate) fn resume(
        saved: RelayState,
        config: bridge::Config,
        announcement: Announcement,
        handed: &mut Handed<'_>,
    ) -> Result<Self> {
        let config = Box::new(config);
        let is_open = saved.is_open();
        let stage = match saved.stage {
            StageState::Held { public, open_by } => {
                let public = PublicEndpoint::resume(public, handed)?;
                Stage::Held { public, config, open_by }
            }
            StageState::Open { file } => {
                let file = file.map(|file| SocketFile::resume(file, handed)).transpose()?;
                Stage::Still { config, file }
            }
            StageState::Ended => Stage::Ended,
        };
        let shutdown = watch::Sender::new(saved.shutdown);
        Ok(Self { stage, shutdown, is_open: Arc::new(AtomicBool::new(is_open)), announcement })
    }

    /// Whether it waits for what the bridge has said of itself.
    pub(crate) fn is_still(&self) -> bool {
        matches!(self.stage, Stage::Still { .. })
    }

    /// All has succeeded: the bridge goes on as it was `frozen`, with these descriptors. Needs a runtime.
    pub(crate) fn go_on(&mut self, frozen: Option<Frozen>, mut descriptors: Descriptors) {
        match (std::mem::replace(&mut self.stage, Stage::Ended), frozen) {
            (Stage::Still { config, mut file }, Some(frozen)) => {
                file.iter_mut().for_each(SocketFile::go_on);
                let (config, shutdown) = (Arc::new(*config), self.shutdown.clone());
                let serving = tokio::spawn(async move {
                    bridge::resume(frozen, &mut descriptors, config, shutdown).await
                });
                self.stage = Stage::Open { serving, file };
            }
            (Stage::Held { mut public, config, open_by }, _) => {
                public.go_on();
                self.stage = Stage::Held { public, config, open_by };
            }
            (stage, _) => self.stage = stage,
        }
    }
}

impl RelayState {
    /// Whether the bridge has to be frozen with it.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.stage, StageState::Open { .. })
    }

    pub(crate) fn descriptors(&self) -> Vec<RawFd> {
        match &self.stage {
            StageState::Held { public, .. } => public.descriptors(),
            StageState::Open { file: Some(file) } => file.descriptors(),
            StageState::Open { file: None } | StageState::Ended => vec![],
        }
    }
}

impl ProgramRelay {
    /// See [`Relay::save`].
    pub(crate) fn save(&self) -> ProgramRelayState {
        let Served { count, asked, before } = &self.served;
        let count = count.load(Ordering::Relaxed);
        ProgramRelayState {
            relay: self.relay.save(),
            readiness: self.readiness.borrow().clone(),
            served: ServedState { count, asked: *asked, before: *before },
            demand: self.visitors.told(),
        }
    }

    /// See [`Relay::resume`]; otherwise as [`hold`](Self::hold).
    pub(crate) fn resume(
        state: ProgramRelayState,
        policy: &Policy,
        config: impl FnOnce(Destination) -> bridge::Config,
        announcement: Announcement,
        handed: &mut Handed<'_>,
    ) -> Result<Self> {
        let ServedState { count, asked, before } = state.served;
        let served = Served { count: Arc::new(AtomicU64::new(count)), asked, before };
        let (program, around) = Self::parts(policy, state.readiness, served);
        let relay = Relay::resume(state.relay, config(program.into()), announcement, handed)?;
        let mut resumed = around(relay);
        resumed.visitors.tell(state.demand);
        Ok(resumed)
    }

    /// See [`Relay::is_still`].
    pub(crate) fn is_still(&self) -> bool {
        self.relay.is_still()
    }

    /// See [`Relay::go_on`].
    pub(crate) fn go_on(&mut self, frozen: Option<Frozen>, descriptors: Descriptors) {
        self.relay.go_on(frozen, descriptors);
    }
}

impl ProgramRelayState {
    /// See [`RelayState::is_open`].
    pub(crate) fn is_open(&self) -> bool {
        self.relay.is_open()
    }

    pub(crate) fn descriptors(&self) -> Vec<RawFd> {
        self.relay.descriptors()
    }
}
