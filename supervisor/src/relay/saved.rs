//! The relay in a hand-over (O2): how far it is, and what is known of the demand. The state of the sessions is the
//! bridge's own matter, and is frozen and resumed beside this.

use std::os::fd::{OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Result, ensure};
use bridge::{Demand, Descriptors, Destination, Frozen, Readiness, Shutdown};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::served::Served;
use super::{Around, ProgramRelay, Relay, Stage};
use crate::clock::maybe_instant;
use crate::handed::Handed;
use crate::machine::public::{EndpointState, PublicEndpoint, SocketFile, SocketFileState};
use crate::program::state::Policy;

/// What the new binary needs to go on with a bridge.
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

/// What the new binary needs to go on with the bridge to a program.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ProgramRelayState {
    relay: RelayState,
    #[serde(with = "ReadinessState")]
    readiness: Readiness,
    served: ServedState,
    /// The demand that was reported last.
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
    /// The state for the new binary, besides the bridge's own state if it [is open](RelayState::is_open).
    pub(crate) fn save(&self) -> RelayState {
        let stage = match &self.stage {
            Stage::Held { public, open_by, .. } => {
                StageState::Held { public: public.save(), open_by: *open_by }
            }
            Stage::Open { file, .. } | Stage::Still { file, .. } => {
                StageState::Open { file: file.as_ref().map(SocketFile::save) }
            }
            Stage::Parting(_) | Stage::Ended => StageState::Ended,
        };
        RelayState { stage, shutdown: *self.shutdown.borrow() }
    }

    /// A relay that is stopped, and leaves everything as it is until it [goes on](Self::go_on).
    ///
    /// # Errors
    /// A descriptor is missing, or is not what it should be.
    pub(crate) fn resume(
        state: RelayState,
        config: bridge::Config,
        Around { announcement, rests, hand_over }: Around,
        handed: &mut Handed<'_>,
    ) -> Result<Self> {
        let config = Box::new(config);
        let is_open = state.is_open();
        let resumed = match state.stage {
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
        let shutdown = watch::Sender::new(state.shutdown);
        let is_open = Arc::new(AtomicBool::new(is_open));
        Ok(Self { stage: resumed, shutdown, is_open, announcement, rests, hand_over })
    }

    /// A relay to a service, which goes on, and the descriptors that are to be closed when there is no way back.
    ///
    /// # Errors
    /// As [`resume`](Self::resume) and [`go_on`](Self::go_on).
    pub(crate) fn take_over(
        (state, frozen, mut handed): (RelayState, Option<Frozen>, Handed<'_>),
        config: bridge::Config,
        around: Around,
    ) -> Result<(Self, Vec<OwnedFd>)> {
        let mut relay = Self::resume(state, config, around, &mut handed)?;
        ensure!(frozen.is_some() || !relay.is_still(), "the bridge says nothing of itself");
        relay.go_on(frozen, handed.others())?;
        Ok((relay, handed.settle()))
    }

    /// Whether it waits for the bridge's own state.
    pub(crate) fn is_still(&self) -> bool {
        matches!(self.stage, Stage::Still { .. })
    }

    /// All else has succeeded: the bridge goes on as it was `frozen`, with these descriptors. Needs a runtime.
    ///
    /// # Errors
    /// The bridge's own state cannot be used.
    pub(crate) fn go_on(
        &mut self,
        frozen: Option<Frozen>,
        descriptors: &mut Descriptors,
    ) -> Result<()> {
        match (std::mem::replace(&mut self.stage, Stage::Ended), frozen) {
            (Stage::Still { config, file }, Some(frozen)) => {
                let resumed =
                    bridge::resume(frozen, descriptors, Arc::new(*config), self.orders())?;
                self.stage = Stage::Open { serving: tokio::spawn(resumed), file, is_one: false };
            }
            (stage, _) => self.stage = stage,
        }
        Ok(())
    }

    /// There is no way back to the old binary: the file of a Unix socket is ours to remove.
    pub(crate) fn settle(&mut self) {
        match &mut self.stage {
            Stage::Held { public, .. } => public.go_on(),
            Stage::Open { file, .. } => file.iter_mut().for_each(SocketFile::go_on),
            Stage::Still { .. } | Stage::Parting(_) | Stage::Ended => {}
        }
    }
}

impl RelayState {
    /// Whether the bridge's own state has to go with it.
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
        around: Around,
        handed: &mut Handed<'_>,
    ) -> Result<Self> {
        let ServedState { count, asked, before } = state.served;
        let served = Served { count: Arc::new(AtomicU64::new(count)), asked, before };
        let (program, made) = Self::parts(policy, state.readiness, served, around.rests.aside());
        let relay = Relay::resume(state.relay, config(program.into()), around, handed)?;
        let mut resumed = made(relay);
        resumed.visitors.tell(state.demand);
        Ok(resumed)
    }

    /// See [`Relay::is_still`].
    pub(crate) fn is_still(&self) -> bool {
        self.relay.is_still()
    }

    /// See [`Relay::go_on`].
    pub(crate) fn go_on(
        &mut self,
        frozen: Option<Frozen>,
        descriptors: &mut Descriptors,
    ) -> Result<()> {
        self.relay.go_on(frozen, descriptors)
    }

    /// See [`Relay::settle`].
    pub(crate) fn settle(&mut self) {
        self.relay.settle();
    }
}

impl ProgramRelayState {
    pub(crate) fn descriptors(&self) -> Vec<RawFd> {
        self.relay.descriptors()
    }
}
