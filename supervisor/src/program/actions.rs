//! Carries out what the [state](super::state) says is to be done. Knows how each is
//! done; decides nothing.

use std::time::Instant;

use bridge::Shutdown;
use nix::unistd::Pid;
use tracing::{debug, error, info, warn};

use super::daemon::Daemon;
use super::output::Output;
use super::spawn::{Preparation, spawn};
use super::state::{Action, Event, State, WrapMode};
use super::supervisor::Supervisor;
use crate::exit::{ExitStatus, Failure};
use crate::launcher::Launcher;
use crate::processes::{list, list_with_sessions};
use crate::relay::Ending;

impl Supervisor<'_, '_> {
    pub(super) fn perform(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::AcceptClients => self.accept_clients(),
                Action::Spawn => self.spawn(),
                Action::WarnSilent => self.diagnosis.silent(&self.engine, &mut self.monitor),
                Action::WarnSettled => warn!(
                    program = self.spec.name,
                    "what the program has left did not listen on port {} within {:?}, and counts as ended",
                    self.spec.port,
                    self.spec.policy.wrap_timeout
                ),
                Action::WarnNeverListened => self.diagnosis.never_listened(),
                Action::WarnFast { delay } => {
                    warn!(program = self.spec.name, "respawning too fast, next start in {delay:?}");
                }
                Action::Daemonized => self.daemonized(),
                Action::OpenBridge => self.open_bridge(),
                Action::PauseBridge => self.relay.pause(),
                Action::FailClients => self.relay.fail(),
                Action::RefuseSessions => {
                    self.relay.refuse();
                    info!(program = self.spec.name, "program has ended; sessions are refused");
                }
                Action::FinishBridge => drop(self.end_bridge(Shutdown::Finish)),
                Action::DrainBridge => self.drain_bridge(),
                Action::StopBridge => drop(self.end_bridge(Shutdown::Now)),
                Action::TellIdle => {
                    info!(program = self.spec.name, "program is stopped: no session is left");
                }
                Action::Terminate => self.terminate(),
                Action::Kill => self.kill(),
                Action::LeaveDaemon => self.leave_daemon(),
                Action::NameSurvivors => {
                    let left = self.monitor.everyone();
                    let left =
                        left.map_or_else(|| "what cannot be seen now".into(), |all| list(&all));
                    error!("cannot end {left}");
                }
            }
        }
    }

    fn spawn(&mut self) {
        self.begin_instance();
        let command = &self.spec.command;
        let output = Output::open(&self.host.log.sinks, self.spec.policy.mode, &command[0]);
        match self.start(&output) {
            Ok(pid) => {
                let name = &self.spec.name;
                info!(program = name, pid = pid.as_raw(), "program started: {name}[{pid}]");
                self.host.admin.standing.program_started();
                output.log(&command[0], pid, &mut self.readers);
                self.leader.begin(pid);
                self.diagnosis.started(&self.engine);
            }
            Err(failure) => {
                self.leader.fail();
                self.events.push(if self.state.is_first_start() {
                    self.refusal = Some(failure.reason);
                    Event::SpawnFailed(failure.status)
                } else if self.host.launcher().is_some_and(Launcher::is_lost) {
                    error!("{}, and nothing else can start it: websockify ends", failure.reason);
                    Event::LauncherLost
                } else {
                    error!("{}", failure.reason);
                    Event::SpawnFailed(failure.status)
                });
            }
        }
    }

    /// Forgets what was seen of the last instance: it is not true of the next.
    fn begin_instance(&mut self) {
        self.monitor.begin_instance();
        self.engine.begin_instance();
        self.relay.begin_instance();
        self.daemon = Daemon::default();
        self.events.forget_listener();
        self.readers.tidy();
        self.pace.quicken(Instant::now());
    }

    fn start(&mut self, output: &Output) -> Result<Pid, Failure> {
        let terminal = self.leader.lend_terminal();
        self.engine.renew(&self.host.private)?;
        let open_files = self.host.open_files;
        let prepared = Preparation {
            engine: &self.engine,
            open_files,
            output,
            terminal,
            users: &self.host.users,
            launcher: self.host.launcher(),
        };
        spawn(&self.spec.command, &prepared)
    }

    fn daemonized(&mut self) {
        let daemon =
            self.monitor.listener().map_or_else(String::new, |at| list_with_sessions(&at.holders));
        match self.spec.policy.mode {
            WrapMode::Exit => {
                let line = format!(
                    "program has daemonized as {daemon} and is stopped; --wrap-mode=ignore would keep it"
                );
                warn!(program = self.spec.name, "{line}");
                self.unheard = Some(line);
            }
            WrapMode::Ignore | WrapMode::Respawn => {
                info!(program = self.spec.name, "program has daemonized as {daemon}");
            }
        }
        self.watch_daemon();
    }

    /// Lets clients in before the program is started (O5).
    fn accept_clients(&mut self) {
        match self.relay.accept() {
            Ok(()) => self.accepting(),
            Err(failure) => self.cannot_accept(&failure),
        }
    }

    fn accepting(&mut self) {
        self.host.certificates.report_off();
        self.host.progress.up(self.host.log);
        self.host.progress.accepting();
    }

    fn cannot_accept(&mut self, failure: &anyhow::Error) {
        let reason = format!("{failure:#}");
        error!("{reason}");
        self.host.progress.failed(&Failure { status: ExitStatus::FAILURE, reason });
        self.events.push(Event::BridgeEnded(ExitStatus::FAILURE));
    }

    /// The caller of `-D` has waited long enough for the program to listen (D1).
    pub(super) fn release_caller(&mut self) {
        self.diagnosis.silent(&self.engine, &mut self.monitor);
        self.host.progress.waits_no_more(self.host.log, self.diagnosis.said());
    }

    pub(super) fn open_bridge(&mut self) {
        let Some(address) = self.monitor.listener().map(|listener| listener.address) else {
            return;
        };
        debug!(program = self.spec.name, "program listens on {address}");
        match self.relay.open(address) {
            Ok(()) => self.accepting(),
            Err(failure) => self.cannot_accept(&failure),
        }
    }

    fn end_bridge(&mut self, shutdown: Shutdown) -> Ending {
        self.host.progress.stopping();
        let ending = self.relay.end(shutdown);
        if ending == Ending::NothingToEnd {
            self.events.push(Event::BridgeEnded(ExitStatus::SUCCESS));
        }
        ending
    }

    fn drain_bridge(&mut self) {
        let held = self.relay.held();
        // A bridge that never opened has no sessions.
        if self.end_bridge(Shutdown::Drain) == Ending::NothingToEnd {
            return;
        }
        if let State::Draining { until, .. } = self.state {
            self.host.drain.begin(until, held, self.host.progress);
        }
    }

    /// Sends SIGTERM to every process of every instance: once, as soon as they can be seen.
    pub(super) fn terminate(&mut self) {
        self.leader.take_terminal_back();
        self.signalling.terminate(self.monitor.everyone().as_deref(), self.host.launcher());
    }

    /// Sends SIGKILL to every process of every instance, and again until none is left.
    pub(super) fn kill(&mut self) {
        let everyone = self.monitor.everyone().unwrap_or_default();
        self.signalling.kill(&everyone, self.host.launcher());
    }

    fn leave_daemon(&mut self) {
        match self.monitor.everyone() {
            Some(left) if left.is_empty() => return,
            Some(left) => info!("program is left running: {}", list_with_sessions(&left)),
            None => info!("program is left running, if it has not ended: that cannot be seen"),
        }
        self.engine.keep();
    }
}
