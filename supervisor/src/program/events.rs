//! Finds out what has happened, by looking, and tells it as events. What they mean is for the
//! [state](super::state) to say.

use std::time::Instant;

use nix::unistd::Pid;
use tracing::{debug, info, warn};

use super::monitor::Change;
use super::state::{Event, State};
use super::supervisor::Supervisor;
use crate::admin::ProgramEnd;
use crate::engine::{BindRequest, Notices};
use crate::exit::ExitStatus;
use crate::processes::list_with_sessions;

impl Supervisor<'_, '_> {
    /// The engine has heard something of the program.
    pub(super) fn heed(&mut self, notices: &Notices) {
        if notices.listens {
            self.pace.hint();
        }
        if !notices.requests.is_empty() {
            let began = Instant::now();
            self.look();
            self.bind_for(&notices.requests);
            // Whoever has the token may ask without end: so what this took counts as one look.
            self.pace.end_look(began.elapsed(), Instant::now());
        }
    }

    /// Processes could not bind the relocated port, as they have another user than we. If one belongs to the program,
    /// and the port is not another process's of the program already, we bind its socket for it.
    fn bind_for(&mut self, requests: &[BindRequest]) {
        let ours = self.monitor.of_instance(&requests.iter().map(|request| request.pid).collect());
        let room = self.monitor.room();
        for request in requests {
            let (pid, ip) = (request.pid, request.ip);
            if !ours.contains(&pid) || !room.is_for(pid, ip) {
                debug!("process {pid} wants the relocated port, and is not given it");
            } else if let Err(failure) = self.engine.bind(request) {
                let reason = bridge::error_text(&failure);
                warn!(
                    "cannot give the relocated port to process {pid}, which has another user: {reason}"
                );
            } else {
                self.monitor.note_given();
            }
        }
    }

    /// Some children have ended or were stopped: finds out what that means.
    pub(super) fn children_ended(&mut self) {
        // Where the last look has failed, the pace says when we look again: children may end all the time.
        let may_look = !self.monitor.is_blind();
        if !self.leader_ended(may_look) || !may_look {
            self.pace.hint();
        }
        if self.monitor.has_stopped(self.leader.running()) {
            self.leader.suspend();
        }
        // The child may be a rest (a forked copy of the old process), which had the last session.
        if let Some(demand) = self.relay.news() {
            self.events.push(Event::Demand(demand));
        }
    }

    /// Reaps, and if the leader has ended, reports that, and which processes it left, if we may look for them now. False: it has
    /// not ended.
    fn leader_ended(&mut self, may_look: bool) -> bool {
        let reaped = self.monitor.reap(self.leader.running());
        let pid = reaped.and_then(|status| self.leader.end(status));
        let Some(status) = self.leader.ended() else { return false };
        let minds_listener = self.state.minds_listener();
        let left = (minds_listener && may_look).then(|| self.monitor.left()).flatten();
        if let Some(pid) = pid {
            self.host.admin.standing.program_ended(ProgramEnd::of(status));
            self.tell_end(pid, status, left.is_some());
        }
        if !minds_listener {
            self.leader.forget();
            self.leader.take_terminal_back();
            return true;
        }
        // If we cannot see now which processes are left, the next look shows it.
        let Some(left) = left else { return true };
        self.leader.forget();
        let served = self.relay.has_served();
        let is_interrupted = self.leader.is_interrupted(status);
        self.leader.take_terminal_back();
        self.events.push(if is_interrupted {
            Event::Interrupted(status)
        } else {
            Event::LeaderEnded { status, left, served }
        });
        true
    }

    /// Logs that the leader has ended, and which processes it has left, where that was seen.
    fn tell_end(&self, pid: Pid, status: ExitStatus, has_looked: bool) {
        let left = if has_looked { self.monitor.instance() } else { &[] };
        let left = match left {
            [] => String::new(),
            left => format!("; it has left {}", list_with_sessions(left)),
        };
        info!(
            program = self.spec.name,
            pid = pid.as_raw(),
            %status,
            "program's first process has ended: status {status}{left}"
        );
    }

    /// Looks whether a process of the instance listens, where that matters, and tells what has changed.
    pub(super) fn look(&mut self) {
        self.pace.begin_look();
        self.host.admin.standing.looked();
        if !self.state.minds_listener() {
            return;
        }
        let began = Instant::now();
        let was_blind = self.monitor.is_blind();
        match self.monitor.look() {
            Some(Change::Appeared) => {
                self.leader.take_terminal_back();
                self.events.push(Event::Listening);
            }
            Some(Change::Gone) => {
                self.events.push(Event::ListenerGone);
                self.pace.quicken(Instant::now());
            }
            None => {}
        }
        if self.monitor.is_blind() && !was_blind {
            self.pace.quicken(Instant::now());
        }
        match self.monitor.listener() {
            Some(listener) => self.daemon.narrow(&listener.holders),
            None => self.engine.look(self.monitor.instance()),
        }
        // Looking reaps, and may have reaped the leader.
        self.leader_ended(true);
        self.pace.end_look(began.elapsed(), Instant::now());
    }

    pub(super) fn look_unasked(&mut self) {
        self.pace.slow_down(Instant::now());
        self.look();
        if self.daemon.is_lost() {
            self.follow_daemon();
        } else if self.pace.is_slowest() {
            self.daemon.settle();
        }
    }

    /// Reports that no process is left of those whose end the state waits for.
    pub(super) fn check_empty(&mut self) {
        let empty = match self.state {
            State::Settling { .. } => self.monitor.is_instance_over(),
            // The leader's end is reported before the next instance begins.
            State::Retiring(_) => {
                self.leader.running().is_none() && self.monitor.is_everyone_gone()
            }
            State::Stopping(stopping) => stopping.awaits_tree() && self.monitor.is_everyone_gone(),
            _ => false,
        };
        if empty {
            self.events.push(Event::TreeEmpty);
        }
    }

    /// Watches the processes that hold the listener now, where that matters.
    pub(super) fn watch_daemon(&mut self) {
        if !self.state.minds_listener() {
            return;
        }
        let Some(listener) = self.monitor.listener() else {
            let served = self.relay.has_served();
            self.daemon.settle();
            self.host.admin.standing.program_ended(ProgramEnd::Daemon);
            return self.events.push(Event::DaemonEnded { served });
        };
        self.daemon.watch(&listener.holders);
        self.pace.quicken(Instant::now());
    }

    /// The processes that held the listener have ended. A daemon on its way into the background may have passed the
    /// listener on to others: the daemon has ended only if no process has it now.
    pub(super) fn daemon_ended(&mut self) {
        self.look();
        self.follow_daemon();
    }

    /// Logs which processes have taken the listener over, if there are any, and watches them.
    fn follow_daemon(&mut self) {
        if let Some(listener) = self.monitor.listener().filter(|_| self.state.minds_listener()) {
            let daemon = list_with_sessions(&listener.holders);
            info!(program = self.spec.name, "program goes on as {daemon}");
        }
        self.watch_daemon();
    }
}
