//! The program's life as a pure function: no system call, no clock. [`step`] takes the state, what
//! happened and the time, and gives the next state and what is to be done.
//!
//! An *instance* is one run of the program: its leader (the process that we started) and whatever
//! that forked. What an instance left behind without listening is a *leftover*.

use std::time::{Duration, Instant};

use crate::exit::ExitStatus;

/// A run this long was no failure, whatever it did (W7).
const LONG_RUN: Duration = Duration::from_secs(10);
/// A program that has not listened after this long is warned of, if it has not to have listened before
/// (W12).
const SILENCE: Duration = Duration::from_secs(10);
/// The first delay before a failing program is started again, and the longest (W7).
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(30);
/// How long SIGKILL may take before those who survived it are named (W9).
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// What to do when the program exits or daemonizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WrapMode {
    Exit,
    Ignore,
    Respawn,
}

/// What the caller of websockify decided about the program's life.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Policy {
    pub(crate) mode: WrapMode,
    /// How long a program whose leader has ended may take to listen.
    pub(crate) wrap_timeout: Duration,
    /// How long open sessions, and then the program, may take to end.
    pub(crate) stop_timeout: Duration,
}

impl Policy {
    /// How long a program may say nothing without a warning.
    fn silence(&self) -> Duration {
        SILENCE.min(self.wrap_timeout)
    }
}

/// Where the program is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// The leader runs; nobody has listened yet.
    Starting { run: Run, warned: bool },
    /// The leader runs and somebody of the instance has listened.
    Listening { run: Run },
    /// The leader has ended well before anybody listened, and left somebody.
    Settling { run: Run, until: Instant, warned: bool },
    /// The leader is gone; a process of the instance listens.
    Daemonized { run: Run },
    /// It failed; the next instance starts at `until`.
    Backoff { until: Instant, failures: u32 },
    /// Under `ignore`: it has ended, after it had listened. The bridge says so to its clients.
    Gone,
    /// Under `exit`, and where it never listened: open sessions come to their end.
    Draining { until: Instant, status: ExitStatus },
    /// Everything is being ended.
    Stopping(Stopping),
    /// Under `ignore`: sessions are being closed, the daemon is left running.
    Leaving,
    /// Over. Nothing happens any more.
    Ended { status: ExitStatus },
}

/// One instance, as far as its life matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    started: Instant,
    /// Whether it is the first instance.
    first: bool,
    /// How many instances before it failed in a row.
    failures: u32,
}

/// What [`State::Stopping`] waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stopping {
    status: ExitStatus,
    /// When patience ends: with SIGKILL, and after that with giving up.
    until: Instant,
    killed: bool,
    tree_empty: bool,
    bridge_ended: bool,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// The program could not be started; the status is the shell's for it.
    SpawnFailed(ExitStatus),
    /// A process of the instance listens on the relocated port.
    Listening,
    /// No process of the instance listens there any more.
    ListenerGone,
    /// The leader has ended.
    LeaderEnded { status: ExitStatus, left: Left, served: bool },
    /// The leader was ended from the terminal while that was the program's.
    Interrupted(ExitStatus),
    /// The last of those that held the listener when the instance daemonized has ended.
    DaemonEnded { served: bool },
    /// No process of any instance is left.
    TreeEmpty,
    /// The bridge has ended: it was told to, or for a reason of its own, with this status.
    BridgeEnded(ExitStatus),
    /// [`State::deadline`] has come.
    Deadline,
    /// A signal asks us to stop.
    Stop,
}

/// Whom the leader left when it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    Nobody,
    /// Somebody, but nobody who listens.
    Idle,
    /// Somebody who listens on the relocated port.
    Listener,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Spawn,
    /// Say that the program has not listened yet, and why that may be.
    WarnSilent,
    /// Say that what the leader left has had its time to listen.
    WarnSettled,
    /// Say that the program has ended, and nobody has listened.
    WarnUnheard,
    /// Say that the program comes and goes too fast, and when it is tried next.
    WarnFast {
        delay: Duration,
    },
    /// Say that the program has daemonized, and watch those that listen.
    Daemonized,
    /// Let clients through: to begin with, or again.
    OpenBridge,
    /// Hold the clients that come.
    PauseBridge,
    /// Tell clients that the program is gone for good.
    BarBridge,
    /// Accept nobody, let sessions come to their end.
    DrainBridge,
    /// Accept nobody, close every session.
    StopBridge,
    /// SIGTERM to every process of every instance.
    Terminate,
    /// SIGKILL to every process of every instance.
    Kill,
    /// Say that the daemon goes on without us.
    LeaveDaemon,
    /// Name the processes that cannot be ended.
    NameSurvivors,
}

impl State {
    /// The beginning: the first instance is to be started.
    pub(crate) fn begin(now: Instant) -> (Self, Vec<Action>) {
        let run = Run { started: now, first: true, failures: 0 };
        (Self::Starting { run, warned: false }, vec![Action::Spawn])
    }

    /// When [`Event::Deadline`] is due.
    pub(crate) fn deadline(&self, policy: &Policy) -> Option<Instant> {
        match self {
            Self::Starting { run, warned: false } => Some(run.started + policy.silence()),
            Self::Settling { run, until, warned: false } => {
                Some((run.started + policy.silence()).min(*until))
            }
            Self::Settling { until, .. }
            | Self::Backoff { until, .. }
            | Self::Draining { until, .. }
            | Self::Stopping(Stopping { until, .. }) => Some(*until),
            _ => None,
        }
    }

    /// For the log.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Starting { .. } => "starting",
            Self::Listening { .. } => "listening",
            Self::Settling { .. } => "settling",
            Self::Daemonized { .. } => "daemonized",
            Self::Backoff { .. } => "backoff",
            Self::Gone => "gone",
            Self::Draining { .. } => "draining",
            Self::Stopping(_) => "stopping",
            Self::Leaving => "leaving",
            Self::Ended { .. } => "ended",
        }
    }

    /// For `systemctl status`.
    pub(crate) fn description(&self) -> &'static str {
        match self {
            Self::Starting { .. } => "Waiting for the program to listen",
            Self::Settling { .. } => "Waiting for what the program has left to listen",
            Self::Listening { .. } => "Bridging to the program",
            Self::Daemonized { .. } => "Bridging to the daemonized program",
            Self::Backoff { .. } => "Waiting to start the program again: it fails too fast",
            Self::Gone => "The program has ended; refusing sessions",
            Self::Draining { .. } => "The program has ended; finishing its sessions",
            Self::Stopping(_) | Self::Leaving | Self::Ended { .. } => "Stopping",
        }
    }

    /// Whether somebody may listen whom we have not seen yet, where nobody is seen to.
    pub(crate) fn awaits_listener(&self) -> bool {
        matches!(
            self,
            Self::Starting { .. }
                | Self::Settling { .. }
                | Self::Listening { .. }
                | Self::Daemonized { .. }
        )
    }
}

/// What becomes of `state` when `event` happens at `now`, and what is to be done.
pub(crate) fn step(
    state: State,
    event: Event,
    now: Instant,
    policy: &Policy,
) -> (State, Vec<Action>) {
    match (state, event) {
        (State::Ended { .. }, _) => (state, vec![]),
        (State::Stopping(stopping), event) => stopping.step(event, now),
        (State::Leaving, Event::BridgeEnded(status)) => {
            (State::Ended { status }, vec![Action::LeaveDaemon])
        }
        (State::Leaving, Event::Stop) => {
            (State::Ended { status: ExitStatus::SUCCESS }, vec![Action::LeaveDaemon])
        }
        (State::Leaving, _) => (state, vec![]),

        (State::Daemonized { .. }, Event::Stop) if policy.mode == WrapMode::Ignore => {
            (State::Leaving, vec![Action::StopBridge])
        }
        (State::Daemonized { .. }, Event::BridgeEnded(status))
            if policy.mode == WrapMode::Ignore =>
        {
            (State::Ended { status }, vec![Action::LeaveDaemon])
        }
        (State::Draining { status, .. }, Event::Stop | Event::Deadline) => {
            stop(status, false, now, policy)
        }
        (State::Draining { status, .. }, Event::BridgeEnded(_)) => stop(status, true, now, policy),
        (_, Event::Stop) => stop(ExitStatus::SUCCESS, false, now, policy),
        (_, Event::Interrupted(status)) => {
            // Who interrupts one instance does not want the next.
            let respawns = policy.mode == WrapMode::Respawn;
            stop(if respawns { ExitStatus::SUCCESS } else { status }, false, now, policy)
        }
        (_, Event::BridgeEnded(status)) => stop(status, true, now, policy),

        (State::Starting { run, .. }, Event::SpawnFailed(status)) if run.first => {
            stop(status, false, now, policy)
        }
        (State::Starting { run, .. }, Event::SpawnFailed(_)) => back_off(run, now),
        (State::Starting { run, .. }, Event::Listening) => {
            (State::Listening { run }, vec![Action::OpenBridge])
        }
        (State::Starting { run, warned: false }, Event::Deadline) => {
            (State::Starting { run, warned: true }, vec![Action::WarnSilent])
        }
        (State::Starting { run, .. }, Event::LeaderEnded { status, left, served }) => match left {
            Left::Listener => daemonize(run, now, policy),
            Left::Idle if status.is_success() => {
                (State::Settling { run, until: now + policy.wrap_timeout, warned: false }, vec![])
            }
            Left::Idle | Left::Nobody => end(run, Heard::Never, status, served, now, policy),
        },

        (State::Settling { run, .. }, Event::Listening) => daemonize(run, now, policy),
        (State::Settling { run, until, warned: false }, Event::Deadline) if now < until => {
            (State::Settling { run, until, warned: true }, vec![Action::WarnSilent])
        }
        (State::Settling { run, .. }, Event::Deadline) => {
            let (state, mut actions) =
                end(run, Heard::Never, ExitStatus::SUCCESS, false, now, policy);
            actions.retain(|action| *action != Action::WarnUnheard);
            actions.insert(0, Action::WarnSettled);
            (state, actions)
        }
        (State::Settling { run, .. }, Event::TreeEmpty) => {
            end(run, Heard::Never, ExitStatus::SUCCESS, false, now, policy)
        }

        (State::Listening { run }, Event::LeaderEnded { status, left, served }) => match left {
            Left::Listener => daemonize(run, now, policy),
            Left::Idle | Left::Nobody => end(run, Heard::Once, status, served, now, policy),
        },
        (State::Daemonized { run }, Event::DaemonEnded { served }) => {
            end(run, Heard::Once, ExitStatus::SUCCESS, served, now, policy)
        }
        (State::Listening { .. } | State::Daemonized { .. }, Event::Listening) => {
            (state, vec![Action::OpenBridge])
        }
        // A next instance may listen, or this one again: one that serves a client at a time
        // (`while nc -l …`) has no listener meanwhile. When it ends, that is another event.
        (State::Listening { .. } | State::Daemonized { .. }, Event::ListenerGone) => {
            (state, vec![Action::PauseBridge])
        }

        (State::Backoff { failures, .. }, Event::Deadline) => start(failures, now),
        (State::Gone, Event::Listening) => {
            let run = Run { started: now, first: false, failures: 0 };
            (State::Daemonized { run }, vec![Action::Daemonized, Action::OpenBridge])
        }
        (state, _) => (state, vec![]),
    }
}

impl Stopping {
    /// Whether processes were still left when we last heard of them.
    pub(crate) fn awaits_tree(&self) -> bool {
        !self.tree_empty
    }

    fn step(mut self, event: Event, now: Instant) -> (State, Vec<Action>) {
        let mut actions = vec![];
        match event {
            Event::TreeEmpty => self.tree_empty = true,
            Event::BridgeEnded(_) => self.bridge_ended = true,
            // Its sessions have had their time too.
            Event::Deadline if self.tree_empty => self.bridge_ended = true,
            Event::Deadline if self.killed => {
                let status = ExitStatus::FAILURE;
                return (State::Ended { status }, vec![Action::NameSurvivors]);
            }
            Event::Deadline => actions = self.kill(now),
            // Nobody waits any more: for the program, or for the sessions.
            Event::Stop => {
                self.bridge_ended = true;
                actions = self.kill(now);
            }
            _ => {}
        }
        if self.tree_empty && self.bridge_ended {
            return (State::Ended { status: self.status }, vec![]);
        }
        (State::Stopping(self), actions)
    }

    fn kill(&mut self, now: Instant) -> Vec<Action> {
        if std::mem::replace(&mut self.killed, true) {
            return vec![];
        }
        self.until = now + KILL_TIMEOUT;
        vec![Action::Kill]
    }
}

/// Whether an instance ever listened.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Heard {
    Never,
    Once,
}

fn stop(
    status: ExitStatus,
    bridge_ended: bool,
    now: Instant,
    policy: &Policy,
) -> (State, Vec<Action>) {
    let stopping = Stopping {
        status,
        until: now + policy.stop_timeout,
        killed: false,
        tree_empty: false,
        bridge_ended,
    };
    let mut actions = vec![Action::StopBridge, Action::Terminate];
    if bridge_ended {
        actions.remove(0);
    }
    (State::Stopping(stopping), actions)
}

fn start(failures: u32, now: Instant) -> (State, Vec<Action>) {
    let run = Run { started: now, first: false, failures };
    (State::Starting { run, warned: false }, vec![Action::Spawn])
}

fn drain(status: ExitStatus, now: Instant, policy: &Policy) -> State {
    State::Draining { until: now + policy.stop_timeout, status }
}

fn daemonize(run: Run, now: Instant, policy: &Policy) -> (State, Vec<Action>) {
    match policy.mode {
        WrapMode::Exit => {
            (drain(ExitStatus::SUCCESS, now, policy), vec![Action::Daemonized, Action::DrainBridge])
        }
        WrapMode::Ignore | WrapMode::Respawn => {
            (State::Daemonized { run }, vec![Action::Daemonized, Action::OpenBridge])
        }
    }
}

fn end(
    run: Run,
    heard: Heard,
    status: ExitStatus,
    served: bool,
    now: Instant,
    policy: &Policy,
) -> (State, Vec<Action>) {
    match policy.mode {
        WrapMode::Exit | WrapMode::Ignore if heard == Heard::Never => {
            (drain(status, now, policy), vec![Action::WarnUnheard, Action::DrainBridge])
        }
        WrapMode::Exit => (drain(status, now, policy), vec![Action::DrainBridge]),
        WrapMode::Ignore => (State::Gone, vec![Action::BarBridge]),
        WrapMode::Respawn if served || now - run.started >= LONG_RUN => {
            let (state, mut actions) = start(0, now);
            actions.insert(0, Action::PauseBridge);
            (state, actions)
        }
        WrapMode::Respawn => back_off(run, now),
    }
}

fn back_off(run: Run, now: Instant) -> (State, Vec<Action>) {
    let delay = delay(run.failures);
    let failures = run.failures.saturating_add(1);
    let mut actions = vec![Action::PauseBridge];
    // Once a step: at the longest delay it would be said for ever.
    if run.failures == 0 || delay > self::delay(run.failures - 1) {
        actions.push(Action::WarnFast { delay });
    }
    (State::Backoff { until: now + delay, failures }, actions)
}

/// How long to wait after so many failures before the last one.
fn delay(failures: u32) -> Duration {
    FIRST_DELAY.saturating_mul(1 << failures.min(16)).min(LONGEST_DELAY)
}

#[cfg(test)]
mod tests;
