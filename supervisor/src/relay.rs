//! The bridge as the supervisor handles it: reserved, open, ended; and what its end says about our
//! exit status.

use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use bridge::{Outcome, Security, Shutdown, Target};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{error, info};

use crate::config::Sessions;
use crate::exit::ExitStatus;
use crate::host::ports::Public;

/// How long a client may take over its request head (T6).
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// A bridge through its life.
#[derive(Debug)]
pub(crate) struct Bridging {
    stage: Stage,
    shutdown: watch::Sender<Shutdown>,
    /// When we began; `--timeout` counts from here, also while nobody listens yet.
    began: Instant,
    sessions: Sessions,
}

#[derive(Debug)]
enum Stage {
    Reserved(Public, Target, Security),
    Open(JoinHandle<Result<Outcome, bridge::Error>>),
    Ended,
}

/// What [`Bridging::end`] found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// [`Bridging::ended`] will tell when it is over.
    UnderWay,
    /// The bridge never opened, or has ended before.
    NothingToEnd,
}

impl Bridging {
    /// A bridge whose port is held and refuses clients until [`open`](Self::open).
    pub(crate) fn reserved(
        public: Public,
        target: Target,
        sessions: Sessions,
        security: Security,
    ) -> Self {
        let stage = Stage::Reserved(public, target, security);
        let shutdown = watch::Sender::new(Shutdown::Run);
        Self { stage, shutdown, began: Instant::now(), sessions }
    }

    /// Lets clients in, if that has not been done. Needs a runtime.
    pub(crate) fn open(&mut self) -> Result<()> {
        let (public, target, security) = match std::mem::replace(&mut self.stage, Stage::Ended) {
            Stage::Reserved(public, target, security) => (public, target, security),
            stage => {
                self.stage = stage;
                return Ok(());
            }
        };
        let addresses: Vec<_> = public.addresses().iter().map(ToString::to_string).collect();
        let listeners = public.listen()?;
        let Sessions { max_connections, open_files, .. } = self.sessions;
        info!(max_connections, open_files, "listening on {}", addresses.join(" and "));
        let left = |limit: Option<Duration>| Some(limit?.saturating_sub(self.began.elapsed()));
        let config = bridge::Config {
            target,
            max_connections,
            head_timeout: HEAD_TIMEOUT,
            web: self.sessions.web.clone(),
            run_once: self.sessions.run_once,
            timeout: left(self.sessions.timeout),
            idle_timeout: self.sessions.idle_timeout,
            security,
            record: self.sessions.record.clone(),
            traffic: self.sessions.traffic.clone(),
        };
        let serving = bridge::serve(listeners, Arc::new(config), self.shutdown.clone());
        self.stage = Stage::Open(tokio::spawn(serving));
        Ok(())
    }

    /// Asks the bridge to end.
    pub(crate) fn end(&mut self, shutdown: Shutdown) -> Ending {
        self.shutdown.send_modify(|given| *given = shutdown.max(*given));
        match self.stage {
            Stage::Open(_) => Ending::UnderWay,
            Stage::Reserved(..) | Stage::Ended => {
                self.stage = Stage::Ended;
                Ending::NothingToEnd
            }
        }
    }

    /// Returns once, when the bridge has ended or a time limit has passed before it could open,
    /// with the status that this alone would mean. Cancel-safe.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let status = match &mut self.stage {
            Stage::Reserved(..) => {
                let limit = [self.sessions.timeout, self.sessions.idle_timeout];
                match limit.into_iter().flatten().min() {
                    Some(limit) => tokio::time::sleep_until((self.began + limit).into()).await,
                    None => pending().await,
                }
                info!("time limit reached before the program listened");
                ExitStatus::SUCCESS
            }
            Stage::Open(serving) => match serving.await {
                Ok(Ok(outcome)) => {
                    match outcome {
                        Outcome::Shutdown => {}
                        Outcome::RunOnce => info!("the one session has ended"),
                        Outcome::Timeout => info!("--timeout reached"),
                        Outcome::IdleTimeout => info!("--idle-timeout reached"),
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
            Stage::Ended => pending().await,
        };
        self.stage = Stage::Ended;
        status
    }
}
