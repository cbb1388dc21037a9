//! The hand-over (O2): the new binary, which is the file at our path now, takes our place by exec(2). The process
//! stays, with its children, its descriptors and its sessions.
//!
//! - `trial` runs the new binary as a child beforehand, which says whether it could go on; `answer` is the child's side
//!   of that,
//! - `succession` is how far the hand-over is; `launch` is how we were started, `held` what we keep open for our whole
//!   life,
//! - `state` is what the new binary needs, `format` how that is written, `memory` where it is written to,
//! - `cloexec` says which descriptors stay open over exec(2), `threads` whether our threads can be ended, `rest` is the
//!   forked process that goes on with the sessions that cannot be handed over, and `workers` keeps the runtime's threads from
//!   their tasks while it is forked,
//! - `binary` is the executable file, `image` the arguments and environment that it is executed with,
//! - `arrival` is the beginning of the new binary, and `arrived` what it keeps of that until it has settled; until
//!   then, `way_back` leads back to the old binary, and `closed` keeps others out of our memory.
//!
//! Whatever fails before exec(2) is one line in the log, and everything goes on as before.

mod answer;
mod arrival;
mod arrived;
mod binary;
mod cloexec;
mod closed;
mod format;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod held;
mod image;
mod launch;
mod memory;
mod rest;
mod state;
pub(crate) mod succession;
mod threads;
mod trial;
mod way_back;
mod workers;

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use bridge::{Frozen, Moment};
use tracing::{info, warn};

pub(crate) use answer::answer as answer_trial;
pub(crate) use arrival::{Arrival, Estate, Left};
pub(crate) use arrived::Arrived;
pub(crate) use closed::{close_memory, open_memory};
pub(crate) use held::Held;
use image::{BACK, ExecArgs, VARIABLE, environment};
pub(crate) use launch::Launch;
use rest::{Parted, Writers};
use state::State;
pub(crate) use succession::Succession;
use trial::Trial;
pub(crate) use trial::is_tried;
pub(crate) use way_back::or_back;

use crate::exit::Failure;
use crate::host::Host;
use crate::log::LogFile;
use crate::program::saved::ProgramState;
use crate::relay::RelayState;

/// How long the bridge may take to stand still.
const FREEZE: Duration = Duration::from_secs(1);

/// How long writing what is to be logged may take, while sessions go on.
const FLUSH: Duration = Duration::from_millis(500);
/// The same for the lines that come until everything stands still. Lines that are not written by then are lost.
const LAST_FLUSH: Duration = Duration::from_millis(100);

/// The saved state of what is bridged to: a service or a program.
pub(crate) struct Parts {
    /// The bridge to a service. A bridge to a program is in the state of the program.
    pub(crate) relay: Option<RelayState>,
    pub(crate) program: Option<ProgramState>,
}

/// Everything stands still, signals too. Must not be dropped, but given to [`leave`](Host::leave).
#[derive(Debug)]
#[must_use]
pub(crate) struct Departure {
    program: OwnedFd,
    /// The bridge, if it is open. It stands still until this is dropped.
    frozen: Option<Frozen>,
    stopped: Instant,
}

impl Host<'_> {
    /// SIGUSR2: begins the trial of the binary that lies at our path, if a hand-over is possible now.
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

    /// The text of an error. If we have changed our user, it names that user, who may not do all that root could.
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
            serves_tls: self.certificates.serves_tls(),
            rests: self.aside.rests().into_iter().map(nix::unistd::Pid::as_raw).collect(),
            relay,
            bridge,
            program,
        }
    }

    /// The trial is over. Has everything of ours stand still, and the bridge if it is open, so that what is saved of
    /// them stays true. None if that fails: then everything goes on as before.
    pub(crate) async fn stand_still(
        &mut self,
        can: Result<(), String>,
        is_open: bool,
    ) -> Option<Departure> {
        let program = self.succession.trial.take()?.program();
        let departure = match can.and_then(|()| self.check_log()) {
            Err(why) => Err(why),
            Ok(()) if !threads::is_main() => Err("this is not the main thread".into()),
            // A request to drain was answered already, and the new binary would not know of it.
            Ok(()) if !self.admin.standing.leave() => Err("websockify is draining".into()),
            Ok(()) => {
                self.signals.hold().await;
                self.freeze(program, is_open).await.inspect_err(|_| self.signals.release())
            }
        };
        departure.map_err(|why| self.stay(&why)).ok()
    }

    /// The log file is what the new binary could not try: /dev/stdout is another file for a child that writes its answer
    /// there.
    fn check_log(&self) -> Result<(), String> {
        let checked = self.log.sinks.file.as_ref().map_or(Ok(()), LogFile::check);
        checked.map_err(|failure| Failure::from(failure).reason)
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

    /// Executes the new binary. Returns only if that fails: then everything goes on as before.
    pub(crate) async fn leave(&mut self, departure: Departure, parts: Parts) {
        let why = self.try_to_leave(departure, parts).await;
        self.signals.release();
        self.stay(&why);
    }

    /// Gives the reason why the new binary could not be executed.
    async fn try_to_leave(&self, departure: Departure, parts: Parts) -> String {
        let Departure { program, mut frozen, stopped } = departure;
        let bridge = frozen.as_mut().map(|frozen| std::mem::take(&mut frozen.state));
        let mut state = self.state(Some(parts), None, stopped);
        // The bridge has checked its own state.
        if let Err(why) = format::check(&state) {
            return why;
        }
        state.bridge = bridge;
        self.flush(LAST_FLUSH);
        if let Err(thread) = threads::settle().await {
            return format!("thread {thread} is held up in the kernel");
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

    /// Forks a process that goes on with the sessions that cannot be handed over, if there are any.
    fn part(&self, frozen: Option<&mut Frozen>, state: &State) -> std::io::Result<Option<Parted>> {
        let Some(frozen) = frozen.filter(|frozen| frozen.rest.sessions() > 0) else {
            return Ok(None);
        };
        let rest = std::mem::take(&mut frozen.rest);
        let writers = Writers { log: self.log, letters: self.letters };
        let (parted, rest) = rest::part(rest, &state.descriptors(), writers)?;
        // The bridge gets its sessions back if the hand-over fails.
        frozen.rest = rest;
        self.aside.add_rest(parted.process);
        Ok(Some(parted))
    }

    /// Executes the new binary. Gives the reason why that failed.
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
        let error = ExecArgs::new(std::env::args_os(), environment(&[VARIABLE, BACK], [told]))
            .and_then(|image| {
                cloexec::keep(&kept)?;
                // The new binary starts helpers of its own.
                self.aside.end_all();
                Ok(image.execute(program.as_raw_fd()))
            });
        cloexec::leave(&kept);
        bridge::error_text(&error.unwrap_or_else(|error| error))
    }

    fn flush(&self, limit: Duration) {
        self.log.flush_within(limit);
        self.progress.flush(limit);
        self.letters.iter().for_each(|letters| letters.flush_within(limit));
    }

    fn stay(&mut self, why: &str) {
        warn!("cannot hand over to {}: {why}", self.succession.path());
        self.admin.standing.stay();
        self.progress.reloaded();
    }

    /// In the new binary: everything goes on, and from here there is no way back.
    pub(crate) async fn settle(&mut self) {
        // After this wait the runtime's clock is known to work, and the tasks that were started have begun.
        tokio::time::sleep(Duration::from_millis(1)).await;
        let Some(mut arrived) = self.succession.arrived.take() else { return };
        arrived.settle();
        self.signals.release();
        drop(std::mem::take(&mut arrived.originals));
        self.hand_over.release();
        self.admin.standing.stay();
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
            self.certificates.report_off();
            self.progress.accepting();
        }
    }
}
