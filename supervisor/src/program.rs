//! Owns the wrapped program's life: waits for the next event, asks [`state::step`] what it means,
//! and does what that says. The decisions are there; here is who carries them out.

mod monitor;
mod output;
mod spawn;
pub(crate) mod state;
mod terminal;

use std::collections::{HashSet, VecDeque};
use std::io;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bridge::Shutdown;
use nix::errno::Errno;
use nix::sys::signal::Signal::{SIGCONT, SIGSTOP, SIGTERM};
use nix::sys::signal::{killpg, raise};
use nix::unistd::Pid;
use tokio::task::JoinSet;
use tracing::{debug, error, info, warn};

use crate::clock::until;
use crate::config::ProgramSpec;
use crate::engine::{BindRequest, Engine, Notices};
use crate::exit::{ExitStatus, Failure};
use crate::host::Host;
use crate::host::signals::Signal;
use crate::processes::{Exits, Process};
use crate::relay::{Ending, Notice, ProgramRelay};
use monitor::{Change, Sight};
use output::Output;
use spawn::{Preparation, spawn};
use state::{Action, Event, State, WrapMode, step};
use terminal::Terminal;

/// How soon we look for a listener ourselves, in case that the program cannot tell us (seccomp, an
/// overflowing queue): at first, and at most.
const FIRST_LOOK: Duration = Duration::from_millis(50);
const SLOWEST_LOOK: Duration = Duration::from_secs(1);
/// How long hints wait after a look: anybody may give them without end. A third of our time at most goes
/// into looking, however many processes there are.
const SHORTEST_REST: Duration = Duration::from_millis(20);
const REST_FACTOR: u32 = 2;
/// How often the tree is walked again while it is being killed: it may still fork.
const KILL_INTERVAL: Duration = Duration::from_millis(20);

/// Runs the program and its bridge until both are over; the result is websockify's exit status.
pub(crate) async fn supervise(
    spec: &ProgramSpec,
    relay: ProgramRelay,
    host: &mut Host<'_>,
) -> Result<ExitStatus, Failure> {
    let mut supervisor = Supervisor::new(spec, relay, host)?;
    let (mut state, actions) = State::begin(Instant::now());
    supervisor.host.progress.status(state.description());
    supervisor.perform(actions);
    loop {
        while let Some(event) = supervisor.events.pop_front() {
            let (next, actions) = step(state, event, Instant::now(), &spec.policy);
            if is_over_unheard(&state, event, &next) {
                supervisor.name_cleared();
            }
            if next != state {
                debug!("{} on {event:?}: {}", state.name(), next.name());
                supervisor.host.progress.status(next.description());
            }
            state = next;
            supervisor.perform(actions);
            if supervisor.events.is_empty() {
                supervisor.check_empty(&state);
            }
        }
        if let State::Ended { status } = state {
            // Who ended since the last SIGCHLD would be left a zombie to the next parent.
            supervisor.sight.reap(None);
            output::finish(supervisor.readers).await;
            return match supervisor.refusal {
                Some(reason) => Err(Failure { status, reason }),
                None => Ok(status),
            };
        }
        supervisor.next(&state).await;
        supervisor.check_empty(&state);
    }
}

struct Supervisor<'a, 'b> {
    spec: &'a ProgramSpec,
    host: &'a mut Host<'b>,
    /// For log records.
    name: String,
    engine: Engine,
    sight: Sight,
    terminal: Option<Terminal>,
    events: VecDeque<Event>,

    /// The leader of the present instance, until it is reaped.
    leader: Option<Pid>,
    /// How it ended, until we have seen whom it left.
    leader_status: Option<ExitStatus>,
    /// Its number, or that of the one before, when it has been reaped.
    leader_pid: Option<Pid>,
    /// Why the first instance could not be started.
    refusal: Option<String>,
    /// Who held the listener of a daemonized instance, until each has ended.
    daemon: Exits,
    /// Those who were seen last have ended before they could be watched: the next look tells who has
    /// taken over.
    unwatched: bool,
    /// Those who log what the instances write.
    readers: JoinSet<()>,
    next_look: Instant,
    look_interval: Duration,
    /// Something has happened that may have changed what there is to see: we look after our rest.
    hinted: bool,
    rest_until: Instant,
    obstacle_named: bool,
    /// When the tree is walked again, once it is being killed.
    next_kill: Option<Instant>,
    /// Which signals could not be sent to whom, as far as it was said.
    unsent: HashSet<(&'static str, Pid)>,

    relay: ProgramRelay,
}

impl<'a, 'b> Supervisor<'a, 'b> {
    fn new(spec: &'a ProgramSpec, relay: ProgramRelay, host: &'a mut Host<'b>) -> Result<Self> {
        let engine = Engine::preload(spec.rebind_lib.as_deref(), spec.port)?;
        Ok(Self {
            spec,
            host,
            name: spec.command[0].display().to_string(),
            sight: Sight::new(engine.port()).context("cannot use /proc")?,
            engine,
            terminal: None,
            events: VecDeque::new(),
            leader: None,
            leader_status: None,
            leader_pid: None,
            refusal: None,
            daemon: Exits::default(),
            unwatched: false,
            readers: JoinSet::new(),
            next_look: Instant::now(),
            look_interval: FIRST_LOOK,
            hinted: false,
            rest_until: Instant::now(),
            obstacle_named: false,
            next_kill: None,
            unsent: HashSet::new(),
            relay,
        })
    }

    /// Waits until something has happened; what it was stands in `events`, unless it was nothing.
    async fn next(&mut self, state: &State) {
        let unseen = state.awaits_listener() && self.sight.listener().is_none();
        let look = (unseen || self.unwatched || self.sight.is_blind()).then_some(self.next_look);
        let hinted = self.hinted.then_some(self.rest_until);
        let kill = self.next_kill;
        tokio::select! {
            signal = self.host.signals.next() => match signal {
                Signal::Child => self.children_ended(),
                Signal::Stop => self.events.push_back(Event::Stop),
                Signal::Reload => self.host.reload(),
            },
            notices = self.engine.heard() => self.take(&notices),
            () = until(hinted) => self.look(),
            () = self.daemon.ended() => self.daemon_ended(),
            notice = self.relay.next() => match notice {
                Notice::Ended(status) => self.events.push_back(Event::BridgeEnded(status)),
                Notice::Recheck => self.hinted = true,
            },
            () = until(state.deadline(&self.spec.policy)) => self.events.push_back(Event::Deadline),
            () = until(look) => self.look_later(),
            () = until(kill) => self.kill(),
        }
    }

    fn perform(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Spawn => self.spawn(),
                Action::WarnSilent => self.warn_silent(),
                Action::WarnSettled => warn!(
                    program = self.name,
                    "what the program has left did not listen on port {} within {:?}, and counts as ended",
                    self.spec.port,
                    self.spec.policy.wrap_timeout
                ),
                Action::WarnUnheard => self.warn_unheard(),
                Action::WarnFast { delay } => {
                    warn!(program = self.name, "respawning too fast, next start in {delay:?}");
                }
                Action::Daemonized => self.daemonized(),
                Action::OpenBridge => self.open_bridge(),
                Action::PauseBridge => self.relay.pause(),
                Action::BarBridge => {
                    self.relay.refuse();
                    info!(program = self.name, "program has ended; sessions are refused");
                }
                Action::DrainBridge => self.end_bridge(Shutdown::Drain),
                Action::StopBridge => self.end_bridge(Shutdown::Now),
                Action::Terminate => self.terminate(),
                Action::Kill => self.kill(),
                Action::LeaveDaemon => self.leave_daemon(),
                Action::NameSurvivors => {
                    error!("cannot end {}", list(&self.sight.everyone()));
                }
            }
        }
    }

    fn spawn(&mut self) {
        self.sight.begin_instance();
        self.engine.begin_instance();
        // What was seen of the last instance is not true of this one.
        self.events.retain(|event| !matches!(event, Event::Listening | Event::ListenerGone));
        self.daemon = Exits::default();
        self.unwatched = false;
        while self.readers.try_join_next().is_some() {}
        self.relay.begin_instance();
        self.look_soon();
        self.terminal = Terminal::in_foreground();
        let log = &self.host.log.sink;
        let output = Output::open(log, self.spec.policy.mode, &self.spec.command[0]);
        match self.start(&output) {
            Ok(pid) => {
                let name = &self.name;
                info!(program = name, pid = pid.as_raw(), "program started: {name}[{pid}]");
                output.log(&self.spec.command[0], pid, &mut self.readers);
                self.host.progress.up(self.host.log);
                self.leader = Some(pid);
                self.leader_pid = Some(pid);
                self.name_obstacle();
            }
            Err(failure) => {
                // The child had taken it before its exec failed.
                if let Some(terminal) = self.terminal.take() {
                    terminal.take_back();
                }
                if self.leader_pid.is_none() {
                    self.refusal = Some(failure.reason);
                } else {
                    error!("{}", failure.reason);
                }
                self.events.push_back(Event::SpawnFailed(failure.status));
            }
        }
    }

    fn start(&mut self, output: &Output) -> Result<Pid, Failure> {
        self.engine.renew(&self.host.private)?;
        let prepared = Preparation {
            engine: &self.engine,
            open_files: self.host.open_files,
            output,
            terminal: self.terminal,
        };
        spawn(&self.spec.command, &prepared)
    }

    /// W12: says at once what can be seen from outside, once.
    fn name_obstacle(&mut self) {
        if self.obstacle_named {
            return;
        }
        if let Some(obstacle) = self.engine.obstacle(&self.spec.command[0]) {
            warn!("program {} {obstacle}", self.name);
            self.obstacle_named = true;
        }
    }

    /// The same where it is seen late: an instance ends, or is silent, as it was started without
    /// rebind.so in its environment.
    fn name_cleared(&mut self) {
        if self.obstacle_named {
            return;
        }
        if let Some(reason) = self.engine.out_of_reach(&self.spec.command) {
            let (name, port) = (&self.name, self.spec.port);
            warn!(program = name, "program {name} does not listen on port {port}: {reason}");
            self.obstacle_named = true;
        }
    }

    fn warn_silent(&mut self) {
        self.name_cleared();
        if !self.obstacle_named {
            let port = self.spec.port;
            let advice = match self.sight.other_ports().as_slice() {
                [] => "; if it uses another one, give it with --program-port".into(),
                [other] => format!(", but on {other}; --program-port={other} bridges to that"),
                others => format!(", but on {others:?}; give the right one with --program-port"),
            };
            warn!(program = self.name, "program does not listen on port {port} yet{advice}");
        }
        self.obstacle_named = true;
    }

    fn take(&mut self, notices: &Notices) {
        self.hinted |= notices.listens;
        if !notices.requests.is_empty() {
            self.look();
            for request in &notices.requests {
                self.bind_for(request);
            }
        }
    }

    /// A process could not bind the relocated port, as it has another user than we. If it is the
    /// program's, and nobody of the program listens there, it is bound for it.
    fn bind_for(&mut self, request: &BindRequest) {
        let pid = request.pid;
        if self.sight.listener().is_some() || !self.sight.is_of_instance(pid) {
            debug!("process {pid} wants the relocated port, and is not given it");
        } else if let Err(failure) = self.engine.bind(request) {
            let reason = bridge::words(&failure);
            warn!(
                "cannot give the relocated port to process {pid}, which has another user: {reason}"
            );
        }
    }

    fn warn_unheard(&self) {
        if !self.obstacle_named {
            let port = self.spec.port;
            warn!(program = self.name, "program has ended without listening on port {port}");
        }
    }

    /// Some children have ended or were stopped: finds out what that means.
    fn children_ended(&mut self) {
        if !self.leader_ended() {
            self.hinted = true;
        }
        if self.sight.has_stopped(self.leader) {
            self.suspend();
        }
    }

    /// ^Z at the terminal that is the program's: its shell expects us to stop, as the job that we
    /// are, and to take both up again together.
    fn suspend(&mut self) {
        let (Some(terminal), Some(group)) = (self.terminal, self.leader) else { return };
        terminal.take_back();
        // Returns when somebody continues us: `fg`, or `bg`.
        if let Err(error) = raise(SIGSTOP) {
            warn!("cannot stop with the program: {}", bridge::words(&error.into()));
        }
        self.terminal = Terminal::in_foreground();
        if let Some(terminal) = self.terminal {
            terminal.give_to(group);
        }
        match killpg(group, SIGCONT) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => warn!("cannot continue the program: {}", bridge::words(&error.into())),
        }
    }

    /// Reaps, and if the leader has ended, tells so and whom it left.
    fn leader_ended(&mut self) -> bool {
        if let Some(status) = self.sight.reap(self.leader) {
            let pid = self.leader.take().map(Pid::as_raw);
            info!(
                program = self.name,
                pid,
                %status,
                "program's first process has ended: status {status}"
            );
            self.leader_status = Some(status);
        }
        let Some(status) = self.leader_status else { return false };
        // If we cannot look, we do at the next look.
        let Some(left) = self.sight.left() else { return true };
        self.leader_status = None;
        let served = self.relay.has_served();
        let interrupted = self.terminal.is_some() && status.is_interrupt();
        self.take_terminal_back();
        self.events.push_back(if interrupted {
            Event::Interrupted(status)
        } else {
            Event::LeaderEnded { status, left, served }
        });
        true
    }

    /// Looks whether a process of the instance listens, and tells what has changed.
    fn look(&mut self) {
        self.hinted = false;
        let began = Instant::now();
        let was_blind = self.sight.is_blind();
        match self.sight.look() {
            Some(Change::Appeared) => {
                self.take_terminal_back();
                self.events.push_back(Event::Listening);
            }
            Some(Change::Gone) => {
                self.events.push_back(Event::ListenerGone);
                self.look_soon();
            }
            None => {}
        }
        if self.sight.is_blind() && !was_blind {
            self.look_soon();
        }
        if self.sight.listener().is_none() {
            self.engine.look(self.sight.instance());
        }
        // Looking reaps, and may have come upon the leader.
        self.leader_ended();
        let rest = (REST_FACTOR * began.elapsed()).clamp(SHORTEST_REST, SLOWEST_LOOK);
        self.rest_until = Instant::now() + rest;
    }

    fn look_soon(&mut self) {
        self.look_interval = FIRST_LOOK;
        self.next_look = Instant::now() + FIRST_LOOK;
    }

    fn look_later(&mut self) {
        self.look_interval = (self.look_interval * 2).min(SLOWEST_LOOK);
        self.next_look = Instant::now() + self.look_interval;
        self.look();
        if std::mem::take(&mut self.unwatched) {
            self.watch_daemon();
        }
    }

    /// Tells when nobody is left of those whose end the state waits for.
    fn check_empty(&mut self, state: &State) {
        let empty = match state {
            State::Settling { .. } => self.sight.is_instance_over(),
            State::Stopping(stopping) => stopping.awaits_tree() && self.sight.is_everyone_gone(),
            _ => false,
        };
        if empty {
            self.events.push_back(Event::TreeEmpty);
        }
    }

    fn daemonized(&mut self) {
        let daemon = self.sight.listener().map_or_else(String::new, |at| list(&at.holders));
        match self.spec.policy.mode {
            WrapMode::Exit => warn!(
                program = self.name,
                "program has daemonized as {daemon} and is stopped; --wrap-mode=ignore would keep it"
            ),
            WrapMode::Ignore | WrapMode::Respawn => {
                info!(program = self.name, "program has daemonized as {daemon}");
            }
        }
        self.watch_daemon();
    }

    /// Watches those who hold the listener now.
    fn watch_daemon(&mut self) {
        let Some(listener) = self.sight.listener() else {
            let served = self.relay.has_served();
            return self.events.push_back(Event::DaemonEnded { served });
        };
        self.daemon = Exits::of(&listener.holders);
        // They have ended since they were seen, and may have handed the listener on.
        if self.daemon.is_empty() {
            self.unwatched = true;
            self.look_soon();
        }
    }

    /// Those who held the listener have ended. A daemon on its way into the background was only
    /// passing through them: it ends when nobody has taken over.
    fn daemon_ended(&mut self) {
        self.look();
        if let Some(listener) = self.sight.listener() {
            let daemon = list(&listener.holders);
            info!(program = self.name, "program goes on as {daemon}");
        }
        self.watch_daemon();
    }

    fn open_bridge(&mut self) {
        let Some(address) = self.sight.listener().map(|listener| listener.address) else { return };
        debug!(program = self.name, "program listens on {address}");
        match self.relay.open(address) {
            Ok(()) => {
                self.host.certificates.report_off();
                self.host.progress.accepting();
            }
            Err(failure) => {
                error!("{failure:#}");
                self.events.push_back(Event::BridgeEnded(ExitStatus::FAILURE));
            }
        }
    }

    fn end_bridge(&mut self, shutdown: Shutdown) {
        self.host.progress.stopping();
        if self.relay.end(shutdown) == Ending::NothingToEnd {
            self.events.push_back(Event::BridgeEnded(ExitStatus::SUCCESS));
        }
    }

    fn terminate(&mut self) {
        self.take_terminal_back();
        for process in self.sight.everyone() {
            let sent = process.signal(SIGTERM);
            // A stopped process handles no SIGTERM before it is continued.
            let sent = sent.and_then(|()| process.signal(SIGCONT));
            self.note_signal("SIGTERM", &process, sent);
        }
    }

    fn kill(&mut self) {
        self.next_kill = Some(Instant::now() + KILL_INTERVAL);
        for process in self.sight.everyone() {
            let sent = process.kill();
            self.note_signal("SIGKILL", &process, sent);
        }
    }

    /// Says once of each process and signal why it could not be sent.
    fn note_signal(&mut self, name: &'static str, process: &Process, sent: io::Result<()>) {
        match sent {
            Ok(()) => debug!("{name} to {process}"),
            Err(failure) => {
                if self.unsent.insert((name, process.pid)) {
                    warn!("cannot send {name} to {process}: {}", bridge::words(&failure));
                }
            }
        }
    }

    fn leave_daemon(&mut self) {
        let left = self.sight.everyone();
        if left.is_empty() {
            return;
        }
        info!("program is left running: {}", list(&left));
        self.engine.keep();
    }

    fn take_terminal_back(&mut self) {
        if let (Some(terminal), Some(group)) = (self.terminal.take(), self.leader_pid) {
            terminal.take_back_from(group);
        }
    }
}

/// Whether an instance has ended, or failed, and nobody of it ever listened.
fn is_over_unheard(before: &State, event: Event, after: &State) -> bool {
    matches!(before, State::Starting { .. } | State::Settling { .. })
        && matches!(event, Event::LeaderEnded { .. } | Event::TreeEmpty | Event::Deadline)
        && !after.awaits_listener()
}

fn list(processes: &[Process]) -> String {
    processes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
