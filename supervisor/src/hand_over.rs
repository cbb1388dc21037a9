//! Our place is taken by the program that lies at our path now (O2), by exec(2): the process stays, with its children,
//! its descriptors and its sessions.
//!
//! - `trial` has the new program say beforehand whether it could, as a child,
//! - `state` is what it needs, `format` how that looks in `memory`, `moment` how points in time travel,
//! - `marks` says which descriptors go along, `threads` whether ours may be ended, `rest` what becomes of sessions that
//!   cannot go along,
//! - `binary` is the file, `image` what it is executed with,
//! - `arrival` is the other side: our beginning in another's place; `way_back` leads to the program before, until we have
//!   settled.
//!
//! Whatever fails before exec(2) is one line in the log, and everything goes on.

mod arrival;
mod binary;
mod format;
mod image;
mod marks;
mod memory;
mod moment;
mod rest;
mod state;
mod threads;
mod trial;
mod way_back;

use std::future::pending;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use tracing::{info, warn};

pub(crate) use arrival::{Arrival, Arrived};
use image::{Image, environment};
use moment::Moment;
use state::State;
pub(crate) use state::{Held, Launch};
use trial::Trial;
pub(crate) use trial::{answer as answer_trial, is_tried};
pub(crate) use way_back::or_back;

use crate::host::Host;
use crate::program::ProgramState;
use crate::relay::SavedRelay;

/// By which the next image is told of the memory and of the image before: their descriptors.
const VARIABLE: &str = "WEBSOCKIFY_HAND_OVER";
/// By which the image before is told why it is executed again.
const BACK: &str = "WEBSOCKIFY_HAND_BACK";

/// How long the bridge may take to stand still.
const FREEZE: Duration = Duration::from_secs(1);

/// How long what is to be logged may take. What is not written by then is lost.
const FLUSH: Duration = Duration::from_millis(500);

/// What becomes of our place, through our life.
#[derive(Debug)]
pub(crate) struct Succession {
    launch: Launch,
    held: Held,
    trial: Option<Trial>,
    arrived: Option<Arrived>,
}

/// What is bridged to, as it stands still.
pub(crate) struct Parts {
    pub(crate) relay: SavedRelay,
    pub(crate) program: Option<ProgramState>,
}

impl Succession {
    pub(crate) fn new(launch: Launch, held: Held, arrived: Option<Arrived>) -> Self {
        Self { launch, held, trial: None, arrived }
    }

    /// Whether we have begun in another's place, and not settled yet.
    pub(crate) fn is_arriving(&self) -> bool {
        self.arrived.is_some()
    }

    /// What became of the program in the image before, once.
    pub(crate) fn take_program(&mut self) -> Option<ProgramState> {
        self.arrived.as_mut().and_then(|arrived| arrived.program.take())
    }

    /// What came of a trial, if one is under way. Cancel-safe.
    pub(crate) async fn tried(&mut self) -> Result<(), String> {
        match &mut self.trial {
            Some(trial) => trial.verdict().await,
            None => pending().await,
        }
    }

    fn path(&self) -> String {
        self.launch.binary().display().to_string()
    }
}

impl Host<'_> {
    /// SIGUSR2: has the program that lies at our path tried, if we could make room for it now.
    pub(crate) fn begin_hand_over(&mut self, parts: Result<Parts, String>) {
        if self.succession.trial.is_some() {
            return warn!("cannot hand over: a hand-over is under way already");
        }
        let path = self.succession.path();
        if let Err(why) = parts {
            return warn!("cannot hand over to {path}: {why}");
        }
        self.progress.reloading();
        match self.begin_trial() {
            Ok(trial) => self.succession.trial = Some(trial),
            Err(why) => self.stay(&bridge::error_text(&why)),
        }
    }

    fn begin_trial(&self) -> std::io::Result<Trial> {
        let program = binary::at(self.succession.launch.binary())?;
        let state = memory::with(&format::write(&self.state(None, None, Instant::now()), &[])?)?;
        Trial::begin(program, state, self.open_files, &self.aside)
    }

    fn state(
        &self,
        parts: Option<Parts>,
        bridge: Option<bridge::BridgeState>,
        stopped: Instant,
    ) -> State {
        let (relay, program) =
            parts.map_or((None, None), |parts| (Some(parts.relay), parts.program));
        State {
            pid: std::process::id(),
            launch: self.succession.launch.clone(),
            held: self.succession.held.clone(),
            stopped: Moment::from(stopped),
            is_ready: self.progress.is_ready(),
            standing: self.admin.standing.save(),
            relay,
            bridge,
            program,
        }
    }

    /// The trial is over. Returns only if the program was not executed: then everything is as before.
    pub(crate) async fn hand_over(
        &mut self,
        verdict: Result<(), String>,
        parts: Result<Parts, String>,
    ) {
        let Some(trial) = self.succession.trial.take() else { return };
        let program = trial.program();
        let why = match verdict.and(parts) {
            Err(why) => why,
            Ok(_) if !threads::is_main() => "this is not the main thread".into(),
            Ok(parts) => {
                self.signals.hold().await;
                let why = self.leave(&program, parts).await;
                self.signals.release();
                why
            }
        };
        self.stay(&why);
    }

    /// Has everything stand still, and executes the program. Gives why it could not be.
    async fn leave(&mut self, program: &OwnedFd, parts: Parts) -> String {
        info!("handing over to {}", self.succession.path());
        self.flush(FLUSH);
        let stopped = Instant::now();
        let frozen = match self.hand_over.freeze(FREEZE).await {
            Ok(frozen) => frozen,
            Err(why) => return why.to_string(),
        };
        // Until it is dropped, nothing moves.
        let mut frozen = match rest::part(frozen) {
            Ok(frozen) => frozen,
            Err(why) => return why,
        };
        let state = self.state(Some(parts), Some(std::mem::take(&mut frozen.state)), stopped);
        let memory = match format::write(&state, &frozen.bytes) {
            Ok(bytes) => memory::with(&bytes),
            Err(error) => Err(error.into()),
        };
        let (memory, ours) = match memory.and_then(|memory| Ok((memory, binary::ours()?))) {
            Ok(opened) => opened,
            Err(error) => return bridge::error_text(&error),
        };
        if let Err(thread) = threads::settle().await {
            return format!("thread {thread} is held up in the kernel");
        }
        self.aside.end_all();
        let mut kept = state.descriptors();
        kept.extend([memory.as_raw_fd(), ours.as_raw_fd()]);
        let told = (VARIABLE, format!("{},{}", memory.as_raw_fd(), ours.as_raw_fd()));
        let error = Image::new(std::env::args_os(), environment(&[VARIABLE, BACK], [told]))
            .and_then(|image| marks::keep(&kept).map(|()| image.execute(program.as_raw_fd())));
        marks::leave(&kept);
        bridge::error_text(&error.unwrap_or_else(|error| error))
    }

    fn flush(&self, limit: Duration) {
        self.log.flush_within(limit);
        self.progress.flush(limit);
        self.letters.iter().for_each(|letters| letters.flush_within(limit));
    }

    fn stay(&mut self, why: &str) {
        warn!("cannot hand over to {}: {why}", self.succession.path());
        self.progress.reloaded();
    }

    /// Where we have begun in another's place: everything goes on, and there is no way back.
    pub(crate) async fn settle(&mut self) {
        let Some(arrived) = self.succession.arrived.take() else { return };
        // The runtime's clock goes, and whoever was to begin has begun.
        tokio::time::sleep(Duration::from_millis(1)).await;
        arrived.settle();
        let pause = arrived.stopped.elapsed().as_millis();
        let sessions = *self.drain.count().borrow();
        let number =
            if sessions == 1 { "1 session".into() } else { format!("{sessions} sessions") };
        match &arrived.back {
            None => info!(sessions, "taken over: {number}, pause {pause} ms"),
            Some(why) => {
                let path = self.succession.path();
                warn!(
                    sessions,
                    "cannot hand over to {path}: {why}; {number} go on, pause {pause} ms"
                );
            }
        }
        if arrived.is_ready {
            self.progress.accepting();
        }
    }
}

/// What the image before may have set, so that it is not waited for us for ever.
fn alarm_off() {
    nix::unistd::alarm::cancel();
}
