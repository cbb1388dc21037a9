//! Our place is taken by the program that lies at our path now (O2), by exec(2): the process stays, with its children,
//! its descriptors and its sessions.
//!
//! - `trial` has the new program say beforehand whether it could, as a child, and `answer` is what that says,
//! - `succession` is how far we are with that; `launch` is how we were started, `held` what we have taken hold of, for our whole
//!   life,
//! - `state` is what the new program needs, `format` how that looks in `memory`,
//! - `marks` says which descriptors go along, `threads` whether ours may be ended, `rest` what becomes of sessions that
//!   cannot go along,
//! - `binary` is the file, `image` what it is executed with,
//! - `arrival` is the other side: our beginning in another's place, and `arrived` what is left of that until we have settled;
//!   until then, `way_back` leads to the program before, and `closed` keeps others out of our memory.
//!
//! Whatever fails before exec(2) is one line in the log, and everything goes on.

mod answer;
mod arrival;
mod arrived;
mod binary;
mod closed;
mod format;
mod held;
mod image;
mod launch;
mod marks;
mod memory;
mod rest;
mod state;
pub(crate) mod succession;
mod threads;
mod trial;
mod way_back;

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use bridge::{Frozen, Moment};
use tracing::{info, warn};

pub(crate) use answer::answer as answer_trial;
pub(crate) use arrival::{Arrival, Estate, Left};
pub(crate) use arrived::Arrived;
pub(crate) use closed::{close_memory, open_memory};
pub(crate) use held::Held;
use image::{BACK, Image, VARIABLE, environment};
pub(crate) use launch::Launch;
use rest::{Parted, Writers};
use state::State;
pub(crate) use succession::Succession;
use trial::Trial;
pub(crate) use trial::is_tried;
pub(crate) use way_back::or_back;

use crate::host::Host;
use crate::program::saved::ProgramState;
use crate::relay::RelayState;

/// How long the bridge may take to stand still.
const FREEZE: Duration = Duration::from_secs(1);

/// How long what is to be logged may take, while sessions go on.
const FLUSH: Duration = Duration::from_millis(500);
/// The same of what comes until everything stands still. What is not written by then is lost.
const LAST_FLUSH: Duration = Duration::from_millis(100);

/// What is bridged to, as it stands still.
pub(crate) struct Parts {
    /// The bridge to a service; that to a program is in its state.
    pub(crate) relay: Option<RelayState>,
    pub(crate) program: Option<ProgramState>,
}

/// Everything stands still, signals too. Must not be dropped, but [left](Host::leave) with.
#[derive(Debug)]
#[must_use]
pub(crate) struct Departure {
    program: OwnedFd,
    /// The bridge, if it is open. Until it is dropped, nothing moves.
    frozen: Option<Frozen>,
    stopped: Instant,
}

impl Host<'_> {
    /// SIGUSR2: has the program that lies at our path tried, if we could make room for it now.
    pub(crate) fn begin_hand_over(&mut self, can: Result<(), String>) {
        if self.succession.trial.is_some() {
            return warn!("cannot hand over: a hand-over is under way already");
        }
        let path = self.succession.path();
        if let Err(why) = can {
            return warn!("cannot hand over to {path}: {why}");
        }
        self.progress.reloading();
        match self.begin_trial() {
            Ok(trial) => self.succession.trial = Some(trial),
            Err(error) => self.stay(&self.explain(&error)),
        }
    }

    /// What root could, the user may not whom we have become.
    fn explain(&self, error: &std::io::Error) -> String {
        let why = bridge::error_text(error);
        match self.users.ours() {
            Some(user) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                format!("{why} for user {}", user.name)
            }
            _ => why,
        }
    }

    fn begin_trial(&self) -> std::io::Result<Trial> {
        let program = binary::at(self.succession.launch.binary())?;
        binary::check_ours()?;
        let state = memory::with(&format::write(&self.state(None, None, Instant::now()), &[])?)?;
        Trial::begin(program, state, self.open_files, &self.aside)
    }

    fn state(
        &self,
        parts: Option<Parts>,
        bridge: Option<bridge::BridgeState>,
        stopped: Instant,
    ) -> State {
        let (relay, program) = parts.map_or((None, None), |parts| (parts.relay, parts.program));
        State {
            pid: std::process::id(),
            launch: self.succession.launch.clone(),
            held: self.succession.held.clone(),
            stopped: Moment::from(stopped),
            is_ready: self.progress.is_ready(),
            standing: self.admin.standing.save(),
            rests: self.aside.rests().into_iter().map(nix::unistd::Pid::as_raw).collect(),
            relay,
            bridge,
            program,
        }
    }

    /// The trial is over. Has everything of ours stand still, and the bridge if it is open: what is said of it from then on
    /// holds. None if nothing comes of it: then everything is as before.
    pub(crate) async fn stand_still(
        &mut self,
        can: Result<(), String>,
        is_open: bool,
    ) -> Option<Departure> {
        let program = self.succession.trial.take()?.program();
        let departure = match can {
            Err(why) => Err(why),
            Ok(()) if !threads::is_main() => Err("this is not the main thread".into()),
            Ok(()) => {
                self.signals.hold().await;
                self.freeze(program, is_open).await.inspect_err(|_| self.signals.release())
            }
        };
        departure.map_err(|why| self.stay(&why)).ok()
    }

    async fn freeze(&self, program: OwnedFd, is_open: bool) -> Result<Departure, String> {
        info!("handing over to {}", self.succession.path());
        self.flush(FLUSH);
        let stopped = Instant::now();
        let frozen = if is_open {
            Some(self.hand_over.freeze(FREEZE).await.map_err(|why| why.to_string())?)
        } else {
            None
        };
        Ok(Departure { program, frozen, stopped })
    }

    /// Executes the program. Returns only if it could not be executed: then everything is as before.
    pub(crate) async fn leave(&mut self, departure: Departure, parts: Parts) {
        let why = self.try_to_leave(departure, parts).await;
        self.signals.release();
        self.stay(&why);
    }

    /// Gives why the program could not be executed.
    async fn try_to_leave(&self, departure: Departure, parts: Parts) -> String {
        let Departure { program, mut frozen, stopped } = departure;
        let bridge = frozen.as_mut().map(|frozen| std::mem::take(&mut frozen.state));
        let mut state = self.state(Some(parts), None, stopped);
        // The bridge has looked at its own.
        if let Err(why) = format::check(&state) {
            return why;
        }
        state.bridge = bridge;
        self.flush(LAST_FLUSH);
        if let Err(thread) = threads::settle().await {
            return format!("thread {thread} is held up in the kernel");
        }
        // It was answered, and would be forgotten.
        if self.admin.standing.drains() {
            return "websockify is draining".into();
        }
        let parted = match self.part(frozen.as_mut(), &state) {
            Ok(parted) => parted,
            Err(error) => {
                let why = bridge::error_text(&error);
                return format!("no process can go on with the encrypted sessions: {why}");
            }
        };
        state.rests.extend(parted.iter().map(|parted| parted.process.as_raw()));
        let bytes = frozen.as_ref().map_or(&[][..], |frozen| &frozen.bytes);
        let why = self.execute(&program, &state, bytes);
        parted.iter().for_each(Parted::call_off);
        why
    }

    /// Has a process go on with the sessions that cannot go along, if there are any.
    fn part(&self, frozen: Option<&mut Frozen>, state: &State) -> std::io::Result<Option<Parted>> {
        let Some(frozen) = frozen.filter(|frozen| frozen.rest.sessions() > 0) else {
            return Ok(None);
        };
        let rest = std::mem::take(&mut frozen.rest);
        let writers = Writers { log: self.log, letters: self.letters };
        let (parted, rest) = rest::part(rest, &state.descriptors(), writers)?;
        // They are given back if nothing comes of it.
        frozen.rest = rest;
        self.aside.add_rest(parted.process);
        Ok(Some(parted))
    }

    /// Executes the program. Gives why it could not be.
    fn execute(&self, program: &OwnedFd, state: &State, bytes: &[u8]) -> String {
        let memory = match format::write(state, bytes) {
            Ok(bytes) => memory::with(&bytes),
            Err(error) => Err(error.into()),
        };
        let (memory, ours) = match memory.and_then(|memory| Ok((memory, binary::ours()?))) {
            Ok(opened) => opened,
            Err(error) => return bridge::error_text(&error),
        };
        let mut kept = state.descriptors();
        kept.extend([memory.as_raw_fd(), ours.as_raw_fd()]);
        let told = (VARIABLE, format!("{},{}", memory.as_raw_fd(), ours.as_raw_fd()));
        let error = Image::new(std::env::args_os(), environment(&[VARIABLE, BACK], [told]))
            .and_then(|image| {
                marks::keep(&kept)?;
                // The other image starts its own.
                self.aside.end_all();
                Ok(image.execute(program.as_raw_fd()))
            });
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
        // The runtime's clock goes, and whoever was to begin has begun.
        tokio::time::sleep(Duration::from_millis(1)).await;
        let Some(mut arrived) = self.succession.arrived.take() else { return };
        arrived.settle();
        drop(std::mem::take(&mut arrived.originals));
        self.hand_over.release();
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
