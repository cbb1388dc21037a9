//! Owns the wrapped program's life: waits for the next event, asks [`state::step`] what it means,
//! and does what that says. The decisions are there; here is who carries them out.

mod census;
mod cleared;
mod output;
mod process;
mod reap;
mod sight;
mod spawn;
pub(crate) mod state;
mod tally;
mod terminal;
mod tree;
mod watched;

use std::collections::{HashSet, VecDeque};
use std::future::pending;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bridge::{Readiness, Shutdown};
use nix::errno::Errno;
use nix::sys::signal::Signal::{SIGCONT, SIGSTOP, SIGTERM};
use nix::sys::signal::{killpg, raise};
use nix::unistd::Pid;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tracing::{debug, error, info, warn};

use crate::Host;
use crate::bridging::{self, Bridging};
use crate::config::{ProgramSpec, Sessions, WrapMode};
use crate::exit::{ExitStatus, Failure};
use crate::names;
use crate::notify::{Notices, Notifications, Refused};
use crate::ports::{Public, Relocated};
use crate::preload;
use crate::signals::Signal;
use cleared::Cleared;
use output::Output;
use process::Process;
use sight::{Change, Sight};
use spawn::{Preparation, spawn};
use state::{Action, Event, State, step};
use tally::Tally;
use terminal::Terminal;
use watched::Watched;

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
    sessions: Sessions,
    public: Public,
    host: &mut Host<'_>,
) -> Result<ExitStatus, Failure> {
    let mut supervisor = Supervisor::new(spec, sessions, public, host)?;
    let (mut state, actions) = State::begin(Instant::now());
    supervisor.host.announcer.status(state.description());
    supervisor.perform(actions);
    loop {
        while let Some(event) = supervisor.events.pop_front() {
            let (next, actions) = step(state, event, Instant::now(), &spec.policy);
            if is_over_unheard(&state, event, &next) {
                supervisor.name_cleared();
            }
            if next != state {
                debug!("{} on {event:?}: {}", state.name(), next.name());
                supervisor.host.announcer.status(next.description());
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
    /// Until it is left to a daemon.
    library: Option<preload::Library>,
    relocated: Relocated,
    notifications: Notifications,
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
    daemon: Watched,
    /// Who is watched was seen a moment ago, and may not be the daemon: they may have handed the listener
    /// on and ended, and a helper that was being forked has it until its exec. The next looks tell.
    daemon_unsettled: bool,
    /// Those who log what the instances write.
    readers: JoinSet<()>,
    next_look: Instant,
    look_interval: Duration,
    /// Something has happened that may have changed what there is to see: we look after our rest.
    hinted: bool,
    rest_until: Instant,
    obstacle_named: bool,
    /// What of the present instance runs without rebind.so.
    cleared: Cleared,
    /// When the tree is walked again, once it is being killed.
    next_kill: Option<Instant>,
    /// Which signals could not be sent to whom, as far as it was said.
    unsent: HashSet<(&'static str, Pid)>,

    bridging: Bridging,
    readiness: watch::Sender<Readiness>,
    doubt: Arc<Notify>,
    tally: Tally,
}

impl<'a, 'b> Supervisor<'a, 'b> {
    fn new(
        spec: &'a ProgramSpec,
        sessions: Sessions,
        public: Public,
        host: &'a mut Host<'b>,
    ) -> Result<Self> {
        let (readiness, seen) = watch::channel(Readiness::Waiting);
        let doubt = Arc::new(Notify::new());
        let tally = Tally::default();
        let security = host.certificates.for_bridge(&host.private);
        let program = bridge::Program {
            readiness: seen,
            hold: spec.policy.wrap_timeout,
            respawns: spec.policy.mode == WrapMode::Respawn,
            doubt: doubt.clone(),
            served: tally.count(),
        };
        let relocated = Relocated::hold()?;
        tokio::task::spawn_blocking(preload::sweep);
        Ok(Self {
            spec,
            host,
            name: spec.command[0].display().to_string(),
            library: Some(preload::Library::find(spec.rebind_lib.as_deref())?),
            sight: Sight::new(relocated.port).context("cannot use /proc")?,
            relocated,
            notifications: Notifications::open().context("cannot open notification socket")?,
            terminal: None,
            events: VecDeque::new(),
            leader: None,
            leader_status: None,
            leader_pid: None,
            refusal: None,
            daemon: Watched::default(),
            daemon_unsettled: false,
            readers: JoinSet::new(),
            next_look: Instant::now(),
            look_interval: FIRST_LOOK,
            hinted: false,
            rest_until: Instant::now(),
            obstacle_named: false,
            cleared: Cleared::default(),
            next_kill: None,
            unsent: HashSet::new(),
            bridging: Bridging::reserved(
                public,
                bridge::Target::Program(program),
                sessions,
                security,
            ),
            readiness,
            doubt,
            tally,
        })
    }

    /// Waits until something has happened; what it was stands in `events`, unless it was nothing.
    async fn next(&mut self, state: &State) {
        let unseen = state.awaits_listener() && self.sight.listener().is_none();
        let look =
            (unseen || self.daemon_unsettled || self.sight.is_blind()).then_some(self.next_look);
        let hinted = self.hinted.then_some(self.rest_until);
        let kill = self.next_kill;
        tokio::select! {
            signal = self.host.signals.next() => match signal {
                Signal::Child => self.children_ended(),
                Signal::Stop => self.events.push_back(Event::Stop),
                Signal::Reload => self.host.reload(),
            },
            notices = self.notifications.heard() => self.take(notices),
            () = self.doubt.notified() => self.hinted = true,
            () = until(hinted) => self.look(),
            () = self.daemon.ended() => self.daemon_ended(),
            status = self.bridging.ended() => self.events.push_back(Event::BridgeEnded(status)),
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
                Action::PauseBridge => self.publish(Readiness::Waiting),
                Action::BarBridge => {
                    self.publish(Readiness::Gone);
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
        self.cleared = Cleared::default();
        // What was seen of the last instance is not true of this one.
        self.events.retain(|event| !matches!(event, Event::Listening | Event::ListenerGone));
        self.daemon = Watched::default();
        self.daemon_unsettled = false;
        while self.readers.try_join_next().is_some() {}
        self.tally.begin();
        self.look_soon();
        self.terminal = Terminal::in_foreground();
        let log = &self.host.log.destination;
        let output = Output::open(log, self.spec.policy.mode, &self.spec.command[0]);
        match self.start(&output) {
            Ok(pid) => {
                let name = &self.name;
                info!(program = name, pid = pid.as_raw(), "program started: {name}[{pid}]");
                output.log(&self.spec.command[0], pid, &mut self.readers);
                self.host.announcer.up(self.host.log);
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
        let library = self.library.as_mut().expect("nothing is started after a daemon was left");
        library.renew()?;
        if let Ok(metadata) = library.path().metadata() {
            self.host.private.note(&metadata);
        }
        let prepared = Preparation {
            library: library.path(),
            old_port: self.spec.port,
            new_port: self.relocated.port,
            notify_name: &self.notifications.name,
            notify_token: &self.notifications.token,
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
        let path = std::env::var_os("PATH");
        if let Some(obstacle) = preload::diagnose(&self.spec.command[0], path.as_deref()) {
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
        if let Some(reason) = self.cleared.reason(&self.spec.command) {
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

    fn take(&mut self, notices: Notices) {
        self.hinted |= notices.listens;
        let foreign = |refused: &Refused| self.relocated.is_foreign(&refused.socket);
        let refused: Vec<_> = notices.refused.into_iter().filter(foreign).collect();
        if !refused.is_empty() {
            self.look();
            for refused in &refused {
                self.bind_for(refused);
            }
        }
    }

    /// A process could not bind the relocated port, as it has another user than we. If it is the
    /// program's, and nobody of the program listens there, it is bound for it.
    fn bind_for(&mut self, refused: &Refused) {
        let Refused { pid, socket, ip, .. } = refused;
        if self.sight.listener().is_some() || !self.sight.is_of_instance(*pid) {
            debug!("process {pid} wants the relocated port, and is not given it");
        } else if let Err(failure) = self.relocated.bind(socket, *ip) {
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
        let served = self.tally.has_served();
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
        if let Some(listener) = self.sight.listener() {
            self.daemon.narrow(&listener.holders);
        }
        if self.sight.is_blind() && !was_blind {
            self.look_soon();
        }
        if let (None, Some(library)) = (self.sight.listener(), &self.library) {
            self.cleared.look(self.sight.instance(), library.path());
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
        if std::mem::take(&mut self.daemon_unsettled) {
            self.settle_daemon();
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
            let served = self.tally.has_served();
            return self.events.push_back(Event::DaemonEnded { served });
        };
        self.daemon = Watched::of(&listener.holders);
        self.daemon_unsettled = true;
        self.look_soon();
    }

    /// We have looked again since the daemon is watched.
    fn settle_daemon(&mut self) {
        if self.daemon.is_empty() {
            self.watch_daemon();
        } else {
            self.daemon_unsettled = self.look_interval < SLOWEST_LOOK;
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
        self.publish(Readiness::Ready(address));
        match self.bridging.open() {
            Ok(()) => {
                self.host.certificates.report_off();
                self.host.announcer.accepting();
            }
            Err(failure) => {
                error!("{failure:#}");
                self.events.push_back(Event::BridgeEnded(ExitStatus::FAILURE));
            }
        }
    }

    fn publish(&mut self, readiness: Readiness) {
        self.readiness.send_replace(readiness);
    }

    fn end_bridge(&mut self, shutdown: Shutdown) {
        self.host.announcer.stopping();
        if self.bridging.end(shutdown) == bridging::Ending::NothingToEnd {
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
        if let Some(library) = self.library.take() {
            library.keep();
        }
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

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => pending().await,
    }
}

fn list(processes: &[Process]) -> String {
    processes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
