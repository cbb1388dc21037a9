//! Owns the wrapped program's life: waits for the next event, asks [`state::step`] what it means,
//! and does what that says. The decisions are there; here is who carries them out.

mod daemon;
mod diagnosis;
mod leader;
mod monitor;
mod output;
mod pace;
mod signalling;
mod spawn;
pub(crate) mod state;
mod terminal;

use std::collections::VecDeque;
use std::time::Instant;

use anyhow::{Context, Result};
use bridge::Shutdown;
use nix::unistd::Pid;
use tokio::task::JoinSet;
use tracing::{debug, error, info, warn};

use crate::clock::until;
use crate::config::ProgramSpec;
use crate::engine::{BindRequest, Engine, Notices};
use crate::exit::{ExitStatus, Failure};
use crate::host::Host;
use crate::host::signals::Signal;
use crate::processes::Process;
use crate::relay::{Ending, Notice, ProgramRelay};
use daemon::Daemon;
use diagnosis::Diagnosis;
use leader::Leader;
use monitor::{Change, Monitor};
use output::Output;
use pace::Pace;
use signalling::Signalling;
use spawn::{Preparation, spawn};
use state::{Action, Event, State, WrapMode, ended_unheard, step};

/// Runs the program and its bridge until both are over; the result is websockify's exit status.
pub(crate) async fn supervise(
    spec: &ProgramSpec,
    relay: ProgramRelay,
    host: &mut Host<'_>,
) -> Result<ExitStatus, Failure> {
    let (state, actions) = State::begin(Instant::now());
    let mut supervisor = Supervisor::new(spec, relay, host, state)?;
    supervisor.host.progress.status(state.description());
    supervisor.perform(actions);
    loop {
        while let Some(event) = supervisor.events.pop_front() {
            supervisor.take(event);
            if supervisor.events.is_empty() {
                supervisor.check_empty();
            }
        }
        if let State::Ended { status } = supervisor.state {
            return supervisor.finish(status).await;
        }
        supervisor.next().await;
        supervisor.check_empty();
    }
}

struct Supervisor<'a, 'b> {
    spec: &'a ProgramSpec,
    host: &'a mut Host<'b>,
    state: State,
    events: VecDeque<Event>,
    engine: Engine,
    relay: ProgramRelay,
    monitor: Monitor,
    pace: Pace,
    leader: Leader,
    daemon: Daemon,
    diagnosis: Diagnosis<'a>,
    signalling: Signalling,
    /// Those who log what the instances write.
    readers: JoinSet<()>,
    /// Why the first instance could not be started.
    refusal: Option<String>,
}

impl<'a, 'b> Supervisor<'a, 'b> {
    fn new(
        spec: &'a ProgramSpec,
        relay: ProgramRelay,
        host: &'a mut Host<'b>,
        state: State,
    ) -> Result<Self> {
        let engine = Engine::preload(spec.rebind_lib.as_deref(), spec.port)?;
        let monitor = Monitor::new(engine.port()).context("cannot use /proc")?;
        Ok(Self {
            spec,
            host,
            state,
            events: VecDeque::new(),
            engine,
            relay,
            monitor,
            pace: Pace::new(Instant::now()),
            leader: Leader::default(),
            daemon: Daemon::default(),
            diagnosis: Diagnosis::of(spec),
            signalling: Signalling::default(),
            readers: JoinSet::new(),
            refusal: None,
        })
    }

    /// Waits until something has happened; what it was stands in `events`, unless it was nothing.
    async fn next(&mut self) {
        let unseen = self.state.awaits_listener() && self.monitor.listener().is_none();
        let awaited = unseen || self.daemon.is_lost() || self.monitor.is_blind();
        let unasked = awaited.then_some(self.pace.unasked());
        let hinted = self.pace.hinted();
        let deadline = self.state.deadline(&self.spec.policy);
        let kill = self.signalling.next_kill();
        tokio::select! {
            signal = self.host.signals.next() => match signal {
                Signal::Child => self.children_ended(),
                Signal::Stop => self.events.push_back(Event::Stop),
                Signal::Reload => self.host.reload(),
            },
            notices = self.engine.heard() => self.heed(&notices),
            () = until(hinted) => self.look(),
            () = self.daemon.ended() => self.daemon_ended(),
            notice = self.relay.next() => match notice {
                Notice::Ended(status) => self.events.push_back(Event::BridgeEnded(status)),
                Notice::Recheck => self.pace.hint(),
            },
            () = until(deadline) => self.events.push_back(Event::Deadline),
            () = until(unasked) => self.look_unasked(),
            () = until(kill) => self.kill(),
        }
    }

    fn take(&mut self, event: Event) {
        let before = self.state;
        let (next, actions) = step(before, event, Instant::now(), &self.spec.policy);
        if ended_unheard(&before, event, &next) {
            self.diagnosis.unheard(&self.engine);
        }
        if next != before {
            debug!("{} on {event:?}: {}", before.name(), next.name());
            self.host.progress.status(next.description());
        }
        self.state = next;
        self.perform(actions);
    }

    /// All is over.
    async fn finish(mut self, status: ExitStatus) -> Result<ExitStatus, Failure> {
        // Who ended since the last SIGCHLD would be left a zombie to the next parent.
        self.monitor.reap(None);
        output::finish(self.readers).await;
        match self.refusal {
            Some(reason) => Err(Failure { status, reason }),
            None => Ok(status),
        }
    }

    fn perform(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Spawn => self.spawn(),
                Action::WarnSilent => self.diagnosis.silent(&self.engine, &mut self.monitor),
                Action::WarnSettled => warn!(
                    program = self.spec.name,
                    "what the program has left did not listen on port {} within {:?}, and counts as ended",
                    self.spec.port,
                    self.spec.policy.wrap_timeout
                ),
                Action::WarnUnheard => self.diagnosis.never_listened(),
                Action::WarnFast { delay } => {
                    warn!(program = self.spec.name, "respawning too fast, next start in {delay:?}");
                }
                Action::Daemonized => self.daemonized(),
                Action::OpenBridge => self.open_bridge(),
                Action::PauseBridge => self.relay.pause(),
                Action::RefuseSessions => {
                    self.relay.refuse();
                    info!(program = self.spec.name, "program has ended; sessions are refused");
                }
                Action::DrainBridge => self.end_bridge(Shutdown::Drain),
                Action::StopBridge => self.end_bridge(Shutdown::Now),
                Action::Terminate => self.terminate(),
                Action::Kill => self.kill(),
                Action::LeaveDaemon => self.leave_daemon(),
                Action::NameSurvivors => {
                    error!("cannot end {}", list(&self.monitor.everyone()));
                }
            }
        }
    }

    fn spawn(&mut self) {
        self.begin_instance();
        let command = &self.spec.command;
        let output = Output::open(&self.host.log.sink, self.spec.policy.mode, &command[0]);
        match self.start(&output) {
            Ok(pid) => {
                let name = &self.spec.name;
                info!(program = name, pid = pid.as_raw(), "program started: {name}[{pid}]");
                output.log(&command[0], pid, &mut self.readers);
                self.host.progress.up(self.host.log);
                self.leader.begin(pid);
                self.diagnosis.started(&self.engine);
            }
            Err(failure) => {
                self.leader.fail();
                if self.leader.is_first() {
                    self.refusal = Some(failure.reason);
                } else {
                    error!("{}", failure.reason);
                }
                self.events.push_back(Event::SpawnFailed(failure.status));
            }
        }
    }

    /// What was seen of the last instance is not true of the next.
    fn begin_instance(&mut self) {
        self.monitor.begin_instance();
        self.engine.begin_instance();
        self.relay.begin_instance();
        self.daemon = Daemon::default();
        self.events.retain(|event| !matches!(event, Event::Listening | Event::ListenerGone));
        while self.readers.try_join_next().is_some() {}
        self.pace.quicken(Instant::now());
    }

    fn start(&mut self, output: &Output) -> Result<Pid, Failure> {
        let terminal = self.leader.lend_terminal();
        self.engine.renew(&self.host.private)?;
        let open_files = self.host.open_files;
        let prepared = Preparation { engine: &self.engine, open_files, output, terminal };
        spawn(&self.spec.command, &prepared)
    }

    /// The engine has heard something of the program.
    fn heed(&mut self, notices: &Notices) {
        if notices.listens {
            self.pace.hint();
        }
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
        if self.monitor.listener().is_some() || !self.monitor.is_of_instance(pid) {
            debug!("process {pid} wants the relocated port, and is not given it");
        } else if let Err(failure) = self.engine.bind(request) {
            let reason = bridge::words(&failure);
            warn!(
                "cannot give the relocated port to process {pid}, which has another user: {reason}"
            );
        }
    }

    /// Some children have ended or were stopped: finds out what that means.
    fn children_ended(&mut self) {
        if !self.leader_ended() {
            self.pace.hint();
        }
        if self.monitor.has_stopped(self.leader.running()) {
            self.leader.suspend();
        }
    }

    /// Reaps, and if the leader has ended, tells so and whom it left.
    fn leader_ended(&mut self) -> bool {
        if let Some(status) = self.monitor.reap(self.leader.running()) {
            let pid = self.leader.end(status).map(Pid::as_raw);
            info!(
                program = self.spec.name,
                pid,
                %status,
                "program's first process has ended: status {status}"
            );
        }
        let Some(status) = self.leader.ended() else { return false };
        if !self.state.minds_listener() {
            self.leader.forget();
            self.leader.take_terminal_back();
            return true;
        }
        // If we cannot look, we do at the next look.
        let Some(left) = self.monitor.left() else { return true };
        self.leader.forget();
        let served = self.relay.has_served();
        let is_interrupted = self.leader.is_interrupted(status);
        self.leader.take_terminal_back();
        self.events.push_back(if is_interrupted {
            Event::Interrupted(status)
        } else {
            Event::LeaderEnded { status, left, served }
        });
        true
    }

    /// Looks whether a process of the instance listens, where that matters, and tells what has changed.
    fn look(&mut self) {
        self.pace.begin_look();
        if !self.state.minds_listener() {
            return;
        }
        let began = Instant::now();
        let was_blind = self.monitor.is_blind();
        match self.monitor.look() {
            Some(Change::Appeared) => {
                self.leader.take_terminal_back();
                self.events.push_back(Event::Listening);
            }
            Some(Change::Gone) => {
                self.events.push_back(Event::ListenerGone);
                self.pace.quicken(Instant::now());
            }
            None => {}
        }
        if self.monitor.is_blind() && !was_blind {
            self.pace.quicken(Instant::now());
        }
        if self.monitor.listener().is_none() {
            self.engine.look(self.monitor.instance());
        }
        // Looking reaps, and may have come upon the leader.
        self.leader_ended();
        self.pace.end_look(began.elapsed(), Instant::now());
    }

    fn look_unasked(&mut self) {
        self.pace.slow_down(Instant::now());
        self.look();
        if self.daemon.take_lost() {
            self.watch_daemon();
        }
    }

    /// Tells when nobody is left of those whose end the state waits for.
    fn check_empty(&mut self) {
        let empty = match self.state {
            State::Settling { .. } => self.monitor.is_instance_over(),
            State::Stopping(stopping) => stopping.awaits_tree() && self.monitor.is_everyone_gone(),
            _ => false,
        };
        if empty {
            self.events.push_back(Event::TreeEmpty);
        }
    }

    fn daemonized(&mut self) {
        let daemon = self.monitor.listener().map_or_else(String::new, |at| list(&at.holders));
        match self.spec.policy.mode {
            WrapMode::Exit => warn!(
                program = self.spec.name,
                "program has daemonized as {daemon} and is stopped; --wrap-mode=ignore would keep it"
            ),
            WrapMode::Ignore | WrapMode::Respawn => {
                info!(program = self.spec.name, "program has daemonized as {daemon}");
            }
        }
        self.watch_daemon();
    }

    /// Watches those who hold the listener now, where that matters.
    fn watch_daemon(&mut self) {
        if !self.state.minds_listener() {
            return;
        }
        let Some(listener) = self.monitor.listener() else {
            let served = self.relay.has_served();
            return self.events.push_back(Event::DaemonEnded { served });
        };
        self.daemon.watch(&listener.holders);
        if self.daemon.is_lost() {
            self.pace.quicken(Instant::now());
        }
    }

    /// Those who held the listener have ended. A daemon on its way into the background was only
    /// passing through them: it ends when nobody has taken over.
    fn daemon_ended(&mut self) {
        self.look();
        if let Some(listener) = self.monitor.listener().filter(|_| self.state.minds_listener()) {
            let daemon = list(&listener.holders);
            info!(program = self.spec.name, "program goes on as {daemon}");
        }
        self.watch_daemon();
    }

    fn open_bridge(&mut self) {
        let Some(address) = self.monitor.listener().map(|listener| listener.address) else {
            return;
        };
        debug!(program = self.spec.name, "program listens on {address}");
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
        self.leader.take_terminal_back();
        self.signalling.terminate(&self.monitor.everyone());
    }

    fn kill(&mut self) {
        self.signalling.kill(&self.monitor.everyone());
    }

    fn leave_daemon(&mut self) {
        let left = self.monitor.everyone();
        if left.is_empty() {
            return;
        }
        info!("program is left running: {}", list(&left));
        self.engine.keep();
    }
}

fn list(processes: &[Process]) -> String {
    processes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
