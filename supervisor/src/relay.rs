//! The bridge as the supervisor handles it: held, open, paused, ended; and what its end says about our
//! exit status. Knows nothing of why it is opened or ended.

mod demand;
mod rests;
mod saved;
mod served;
mod view;

use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::Result;
use bridge::{Demand, Destination, HandOver, Orders, Outcome, Readiness, Shutdown};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tracing::{error, info};

use crate::clock::until;
use crate::exit::ExitStatus;
use crate::machine::public::{Clients, Opened, PublicEndpoint, SocketFile};
use crate::processes::Aside;
use crate::program::state::{Policy, Start, WrapMode};
use demand::Visitors;
pub(crate) use rests::{REST_ASKED, Rests};
pub(crate) use saved::{ProgramRelayState, RelayState};
use served::Served;
use view::ViewedProgram;
pub(crate) use view::{NotReady, RelayView};

/// A bridge through its life.
#[derive(Debug)]
pub(crate) struct Relay {
    stage: Stage,
    shutdown: watch::Sender<Shutdown>,
    /// Whether the bridge is open, for a [`RelayView`].
    is_open: Arc<AtomicBool>,
    /// What the log says once it accepts.
    announcement: Announcement,
    /// The rests, which end with it: forked copies of the old process, which carry to their end the TLS sessions that
    /// could not be handed over.
    rests: Rests,
    /// Asks the bridge to stop for a hand-over (O2).
    hand_over: HandOver,
}

/// What a [`Relay`] has, whatever it bridges to.
#[derive(Debug)]
pub(crate) struct Around {
    pub(crate) announcement: Announcement,
    pub(crate) rests: Rests,
    pub(crate) hand_over: HandOver,
}

/// What the log says of an open bridge.
#[derive(Debug, Clone)]
pub(crate) struct Announcement {
    /// From where to where clients are brought.
    pub(crate) proxying: String,
    /// Our limit on open files.
    pub(crate) open_files: u64,
}

#[derive(Debug)]
enum Stage {
    /// The public endpoint is ours, and refuses clients. At `open_by` a time limit is over, and with it the bridge, if
    /// it has not opened.
    Held {
        public: PublicEndpoint,
        config: Box<bridge::Config>,
        open_by: Option<Instant>,
    },
    Open {
        serving: JoinHandle<Result<Outcome, bridge::Error>>,
        /// The file that clients connect to, if it is a Unix socket.
        file: Option<SocketFile>,
        /// Whether only one client is served, whose connection inetd has given us.
        is_one: bool,
    },
    /// The old binary has had it open, and it is about to go on in the new binary.
    Still {
        config: Box<bridge::Config>,
        file: Option<SocketFile>,
    },
    /// The bridge has ended, with this status, and the rests have not.
    Parting(ExitStatus),
    Ended,
}

/// What [`Relay::end`] found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// [`Relay::ended`] will tell when it is over.
    UnderWay,
    /// The bridge never opened, or has ended before.
    NothingToEnd,
}

impl Relay {
    /// A bridge whose public endpoint is held and refuses clients until [`open`](Self::open).
    pub(crate) fn hold(
        public: PublicEndpoint,
        config: bridge::Config,
        Around { announcement, rests, hand_over }: Around,
    ) -> Self {
        // From the opening on, the bridge counts the time without a session itself.
        let idle = config.idle_timeout.map(|timeout| Instant::now() + timeout);
        let open_by = [config.timeout, idle].into_iter().flatten().min();
        let stage = Stage::Held { public, config: Box::new(config), open_by };
        let shutdown = watch::Sender::new(Shutdown::Run);
        Self { stage, shutdown, is_open: Arc::default(), announcement, rests, hand_over }
    }

    /// Lets clients in, if that has not been done. Needs a runtime.
    pub(crate) fn open(&mut self) -> Result<()> {
        let (public, config) = match std::mem::replace(&mut self.stage, Stage::Ended) {
            Stage::Held { public, config, .. } => (public, config),
            stage => {
                self.stage = stage;
                return Ok(());
            }
        };
        let deed = public.deed();
        let Opened { clients, file } = public.open()?;
        let Announcement { proxying, open_files } = &self.announcement;
        let max_connections = config.max_connections;
        info!(max_connections, open_files, "{deed}");
        // Other programs wait for these words (U2).
        info!("{proxying}");
        let (config, orders) = (Arc::new(*config), self.orders());
        let is_one = matches!(clients, Clients::One(_));
        let serving = match clients {
            Clients::Of(listeners) => tokio::spawn(bridge::serve(listeners, config, orders)),
            Clients::One(client) => tokio::spawn(bridge::serve_connection(client, config, orders)),
        };
        self.stage = Stage::Open { serving, file, is_one };
        self.is_open.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// The channels by which the open bridge is told what to do.
    fn orders(&self) -> Orders {
        Orders { shutdown: self.shutdown.clone(), hand_over: self.hand_over.clone() }
    }

    /// What others see of it.
    pub(crate) fn view(&self) -> RelayView {
        RelayView {
            is_open: Arc::clone(&self.is_open),
            shutdown: self.shutdown.subscribe(),
            program: None,
        }
    }

    /// Whether a hand-over to a new binary can begin now.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn can_hand_over(&self) -> Result<(), String> {
        match &self.stage {
            _ if *self.shutdown.borrow() != Shutdown::Run => Err("websockify is ending".into()),
            Stage::Still { .. } => Err("websockify is still starting".into()),
            Stage::Parting(_) | Stage::Ended => Err("websockify is ending".into()),
            Stage::Open { is_one: true, .. } => {
                Err("websockify serves the one connection that inetd has given it".into())
            }
            Stage::Held { .. } | Stage::Open { .. } => Ok(()),
        }
    }

    /// Whether clients are let in: then the bridge has to be stopped for a hand-over.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Open { .. })
    }

    /// Asks the bridge to end.
    pub(crate) fn end(&mut self, shutdown: Shutdown) -> Ending {
        self.shutdown.send_modify(|given| *given = shutdown.max(*given));
        if shutdown == Shutdown::Now {
            self.rests.terminate();
        }
        match self.stage {
            Stage::Open { .. } | Stage::Parting(_) => Ending::UnderWay,
            Stage::Held { .. } | Stage::Still { .. } | Stage::Ended => {
                self.stage = Stage::Ended;
                Ending::NothingToEnd
            }
        }
    }

    /// Returns once, when the bridge has ended or a time limit has passed before it could open, with the exit status
    /// that follows if nothing else gives one. Cancel-safe.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let status = match &mut self.stage {
            Stage::Held { open_by, .. } => {
                until(*open_by).await;
                info!("time limit reached before the program listened");
                ExitStatus::SUCCESS
            }
            Stage::Open { serving, .. } => match serving.await {
                Ok(Ok(outcome)) => {
                    match outcome {
                        Outcome::Shutdown => {}
                        Outcome::RunOnce => info!("the one session has ended"),
                        Outcome::Timeout => info!("--timeout reached"),
                        Outcome::IdleTimeout => info!("--idle-timeout reached"),
                        Outcome::Served => info!("the one connection has ended"),
                    }
                    ExitStatus::SUCCESS
                }
                Ok(Err(failure)) => {
                    error!("cannot bridge: {failure}");
                    ExitStatus::FAILURE
                }
                Err(panic) => {
                    error!("the bridge has failed: {panic}");
                    ExitStatus::FAILURE
                }
            },
            Stage::Parting(status) => *status,
            Stage::Still { .. } | Stage::Ended => pending().await,
        };
        self.is_open.store(false, Ordering::Relaxed);
        self.stage = Stage::Parting(status);
        self.rests.ended().await;
        self.stage = Stage::Ended;
        status
    }
}

/// The bridge to a program, which comes and goes.
#[derive(Debug)]
pub(crate) struct ProgramRelay {
    relay: Relay,
    readiness: watch::Sender<Readiness>,
    recheck: Arc<Notify>,
    served: Served,
    /// The sessions that are bound for the program.
    visitors: Visitors,
    /// Whether the program is started and stopped on demand (O5).
    is_on_demand: bool,
}

/// What a [`ProgramRelay`] tells of itself.
#[derive(Debug)]
pub(crate) enum RelayEvent {
    /// As [`Relay::ended`] says.
    Ended(ExitStatus),
    /// A connection to the program has failed in a way that says that it may have stopped listening.
    Recheck,
    /// Whether the program is needed has changed.
    Demand(Demand),
}

impl ProgramRelay {
    /// As [`Relay::hold`]; `config` makes the bridge's configuration for this target.
    pub(crate) fn hold(
        public: PublicEndpoint,
        policy: &Policy,
        config: impl FnOnce(Destination) -> bridge::Config,
        around: Around,
    ) -> Self {
        let (program, made) =
            Self::parts(policy, Readiness::Waiting, Served::default(), around.rests.aside());
        made(Relay::hold(public, config(program.into()), around))
    }

    /// What the bridge is told of its program, and what makes a `ProgramRelay` of a [`Relay`].
    fn parts(
        policy: &Policy,
        readiness: Readiness,
        served: Served,
        aside: Aside,
    ) -> (bridge::Program, impl FnOnce(Relay) -> Self) {
        let (readiness, seen) = watch::channel(readiness);
        let recheck = Arc::new(Notify::new());
        let (counter, visitors) = Visitors::new(aside);
        let program = bridge::Program {
            readiness: seen,
            hold: policy.wrap_timeout,
            respawns: policy.mode == WrapMode::Respawn,
            recheck: Arc::clone(&recheck),
            served: served.count(),
            visitors: counter,
        };
        let is_on_demand = policy.start != Start::Now;
        let made = move |relay| Self { relay, readiness, recheck, served, visitors, is_on_demand };
        (program, made)
    }

    /// Lets clients in, who are held, if that has not been done.
    pub(crate) fn accept(&mut self) -> Result<()> {
        self.relay.open()
    }

    /// Lets clients through to the program, which listens here: to begin with, or again.
    pub(crate) fn open(&mut self, program: SocketAddr) -> Result<()> {
        self.readiness.send_replace(Readiness::Ready(program));
        self.relay.open()
    }

    /// Holds the clients that come.
    pub(crate) fn pause(&self) {
        self.readiness.send_replace(Readiness::Waiting);
    }

    /// Tells clients that the program could not be started.
    pub(crate) fn fail(&self) {
        self.readiness.send_replace(Readiness::Failed);
    }

    /// Tells clients that the program is gone for good.
    pub(crate) fn refuse(&self) {
        self.readiness.send_replace(Readiness::Gone);
    }

    /// See [`Relay::can_hand_over`].
    pub(crate) fn can_hand_over(&self) -> Result<(), String> {
        self.relay.can_hand_over()
    }

    /// See [`Relay::is_open`].
    pub(crate) fn is_open(&self) -> bool {
        self.relay.is_open()
    }

    /// See [`Relay::view`].
    pub(crate) fn view(&self) -> RelayView {
        let program = ViewedProgram {
            readiness: self.readiness.subscribe(),
            is_on_demand: self.is_on_demand,
        };
        RelayView { program: Some(program), ..self.relay.view() }
    }

    /// See [`Relay::end`].
    pub(crate) fn end(&mut self, shutdown: Shutdown) -> Ending {
        self.relay.end(shutdown)
    }

    /// How many clients wait for the program.
    pub(crate) fn held(&self) -> usize {
        self.visitors.waiting()
    }

    /// Waits until there is something to tell. Cancel-safe.
    pub(crate) async fn next(&mut self) -> RelayEvent {
        tokio::select! {
            status = self.relay.ended() => RelayEvent::Ended(status),
            () = self.recheck.notified() => RelayEvent::Recheck,
            demand = self.visitors.changed(), if self.is_on_demand => RelayEvent::Demand(demand),
        }
    }

    /// Whether the program is needed, if it is started and stopped on demand, and that has changed.
    pub(crate) fn news(&mut self) -> Option<Demand> {
        if self.is_on_demand { self.visitors.news() } else { None }
    }

    /// An instance of the program begins.
    pub(crate) fn begin_instance(&mut self) {
        self.served.begin_instance();
    }

    /// Whether the present instance has served a session.
    pub(crate) fn has_served(&mut self) -> bool {
        self.served.has_served()
    }
}
