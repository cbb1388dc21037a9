//! Owns the wrapped program's life: waits until something happens, has [events](self::events) find out
//! what, asks [`state::step`] what it means, and has [actions](self::actions) carry that out.

mod actions;
mod daemon;
mod diagnosis;
mod events;
mod leader;
mod monitor;
mod output;
mod pace;
mod queue;
pub(crate) mod readers;
pub(crate) mod saved;
mod signalling;
mod spawn;
pub(crate) mod state;
mod supervisor;

use std::time::Instant;

use tracing::{debug, error};

use crate::admin::{MainLoopRequest, ProgramEnd};
use crate::clock::until;
use crate::config::ProgramSpec;
use crate::exit::{ExitStatus, Failure};
use crate::hand_over::{Parts, or_back};
use crate::host::Host;
use crate::machine::signals::Signal;
use crate::relay::{ProgramRelay, RelayEvent};
use saved::Begin;
use state::{Event, Start, State, ended_without_listening, step};
use supervisor::Supervisor;

/// Runs the program and its bridge until both are over; the result is websockify's exit status.
pub(crate) async fn supervise(
    spec: &ProgramSpec,
    relay: ProgramRelay,
    host: &mut Host<'_>,
    begin: Begin<'_>,
) -> Result<ExitStatus, Failure> {
    let mut supervisor = match begin {
        Begin::Fresh => Supervisor::begin(spec, relay, host)?,
        Begin::Resumed(resumption) => {
            let resumed = Supervisor::resume(spec, relay, host, *resumption);
            or_back(resumed.map_err(Failure::from))?
        }
    };
    if supervisor.host.succession.is_arriving() {
        supervisor.host.settle().await;
        if let Err(failure) = supervisor.begin_again() {
            error!("{failure:#}");
        }
    }
    loop {
        while let Some(event) = supervisor.events.next(|| supervisor.relay.news()) {
            supervisor.take(event);
            if supervisor.events.is_empty() {
                supervisor.check_empty();
            }
        }
        supervisor.host.admin.standing.settled();
        if let State::Ended { status } = supervisor.state {
            return supervisor.finish(status).await;
        }
        supervisor.next().await;
        supervisor.check_empty();
    }
}

impl<'a, 'b> Supervisor<'a, 'b> {
    fn begin(
        spec: &'a ProgramSpec,
        relay: ProgramRelay,
        host: &'a mut Host<'b>,
    ) -> Result<Self, Failure> {
        if spec.policy.start != Start::Now {
            // The program is started later, but a name that is mistyped is reported now (W8).
            spawn::look(&spec.command)?;
        }
        let (state, actions) = State::begin(Instant::now(), &spec.policy);
        let mut supervisor = Self::new(spec, relay, host, state)?;
        supervisor.host.progress.status(state.description());
        supervisor.host.progress.awaits_program();
        supervisor.perform(actions);
        Ok(supervisor)
    }
}

impl Supervisor<'_, '_> {
    /// Waits until something has happened. What follows from it is put into `events`.
    async fn next(&mut self) {
        let unseen = self.state.awaits_listener() && self.monitor.listener().is_none();
        let unreported = self.leader.ended().is_some();
        let awaited = unseen || unreported || self.daemon.is_unsettled() || self.monitor.is_blind();
        let unasked = (awaited && !self.state.is_asleep()).then_some(self.pace.unasked());
        let (hinted, rested) = (self.pace.hinted(), self.pace.rest_until());
        let deadline = self.state.deadline(&self.spec.policy);
        // Where we are ending, the caller is told at the end.
        let caller_deadline =
            self.host.progress.caller_deadline().filter(|_| !self.state.is_ending());
        let terminate = self.signalling.next_terminate().filter(|_| self.state.is_terminating());
        let kill = self.signalling.next_kill().filter(|_| self.state.is_killing());
        tokio::select! {
            signal = self.host.signals.next() => match signal {
                Signal::Child => self.children_ended(),
                Signal::Stop => self.events.push(Event::Stop),
                Signal::Reload => self.host.reload(),
                Signal::HandOver => {
                    let can = self.can_hand_over();
                    self.host.begin_hand_over(can);
                }
            },
            verdict = self.host.succession.tried() => self.hand_over(verdict).await,
            request = self.host.admin.requests.next() => match request {
                MainLoopRequest::Drain => self.events.push(Event::Drain),
                MainLoopRequest::Look => self.pace.hint(),
            },
            notices = async {
                until(Some(rested)).await;
                self.engine.heard().await
            } => self.heed(&notices),
            () = until(hinted) => self.look(),
            () = self.daemon.ended() => self.daemon_ended(),
            notice = self.relay.next() => match notice {
                RelayEvent::Ended(status) => self.events.push(Event::BridgeEnded(status)),
                RelayEvent::Recheck => self.pace.hint(),
                RelayEvent::Demand(demand) => self.events.push(Event::Demand(demand)),
            },
            () = self.host.drain.news() => self.host.drain.tell(self.host.progress),
            () = until(deadline) => self.deadline(),
            () = until(unasked) => self.look_unasked(),
            () = until(terminate) => self.terminate(),
            () = until(kill) => self.kill(),
            () = until(caller_deadline) => self.release_caller(),
        }
    }

    /// Whether a hand-over to a new binary can begin now (O2).
    fn can_hand_over(&self) -> Result<(), String> {
        match self.state {
            State::Draining { .. } => Err("websockify is draining".into()),
            State::Finishing { .. } | State::Stopping(_) | State::Ended { .. } => {
                Err("websockify is ending".into())
            }
            _ if self.host.progress.caller_deadline().is_some() => {
                Err("whoever has started websockify still waits for the program to listen".into())
            }
            _ => self.relay.can_hand_over(),
        }
    }

    /// The trial of the new binary is over: hands over to it. Returns only if that fails.
    async fn hand_over(&mut self, verdict: Result<(), String>) {
        let can = verdict.and_then(|()| self.can_hand_over());
        let can = can.and_then(|()| self.still().map_err(|why| format!("{why:#}")));
        if let Some(departure) = self.host.stand_still(can, self.relay.is_open()).await {
            // Only now: until it stands still, the bridge has let clients through to the program.
            let parts = Parts { relay: None, program: Some(self.save()) };
            self.host.leave(departure, parts).await;
        }
        if let Err(failure) = self.go_on() {
            error!("{failure:#}");
        }
    }

    /// The state's deadline has come. If the demand has changed meanwhile, that is the event instead, and the deadline
    /// comes again. If it is the deadline of a program without clients, the bridge is paused first: a client that comes
    /// in this moment is held, or is seen here, so that no client is let through to a program that is about to be
    /// ended.
    fn deadline(&mut self) {
        let is_idle = self.state.is_idle_too_long(Instant::now(), &self.spec.policy);
        if is_idle {
            self.relay.pause();
        }
        let Some(demand) = self.relay.news() else {
            return self.events.push(Event::Deadline);
        };
        self.events.push(Event::Demand(demand));
        if is_idle {
            self.open_bridge();
        }
    }

    fn take(&mut self, event: Event) {
        let before = self.state;
        let (next, actions) = step(before, event, Instant::now(), &self.spec.policy);
        if ended_without_listening(&before, event, &next) {
            self.diagnosis.ended(&self.engine);
        }
        if self.state.awaits_listener() && next.is_ending() {
            self.unheard = self.ended_with(event);
        }
        if next != before {
            debug!("{} on {event:?}: {}", before.name(), next.name());
        }
        if next.description() != before.description() {
            self.host.progress.status(next.description());
        }
        let is_draining = |state| matches!(state, State::Draining { .. });
        if is_draining(before) && !is_draining(next) {
            self.host.drain.end(self.spec.policy.stop_timeout, self.host.progress);
        }
        if matches!((before, next), (State::Daemonized { .. }, State::Retiring(_))) {
            self.host.admin.standing.program_ended(ProgramEnd::Daemon);
        }
        if !next.has_instance() {
            self.host.admin.standing.program_is_over();
        }
        self.state = next;
        self.perform(actions);
    }

    /// Ends: the program and the bridge are over.
    async fn finish(mut self, status: ExitStatus) -> Result<ExitStatus, Failure> {
        // A child that has ended since the last SIGCHLD would be left a zombie to its next parent.
        self.monitor.reap(None);
        // The caller of `-D` still waits (D1).
        let in_vain = self.host.progress.caller_deadline().map(|_| self.in_vain(status));
        self.readers.finish().await;
        match self.refusal {
            Some(reason) => Err(Failure { status, reason }),
            None => in_vain.map_or(Ok(status), Err),
        }
    }

    /// The end of the program, as a line for the caller of `-D`, which waits until the program listens. None: the event
    /// is no such end.
    fn ended_with(&self, event: Event) -> Option<String> {
        let status = match event {
            Event::LeaderEnded { status, .. } | Event::Interrupted(status) => status,
            Event::TreeEmpty | Event::Deadline => ExitStatus::SUCCESS,
            Event::LauncherLost => {
                let name = &self.spec.name;
                return Some(format!("program {name} cannot be started: its launcher has ended"));
            }
            _ => return None,
        };
        let (name, port) = (&self.spec.name, self.spec.port);
        let with = match status.code() {
            0 => String::new(),
            code => format!(" with status {code}"),
        };
        Some(format!("program {name} has ended{with} before it listened on port {port}"))
    }

    /// The failure for the caller of `-D`, which has waited in vain for the program to listen. Its status is the
    /// program's, but never success.
    fn in_vain(&mut self, status: ExitStatus) -> Failure {
        let (name, port) = (&self.spec.name, self.spec.port);
        let reason = self.unheard.take().unwrap_or_else(|| {
            format!("websockify was stopped before program {name} listened on port {port}")
        });
        let status = if status == ExitStatus::SUCCESS { ExitStatus::FAILURE } else { status };
        Failure { status, reason }
    }
}
