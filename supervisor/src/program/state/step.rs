//! What becomes of the program when something happens: [`step`] takes the state, the event and the time,
//! and gives the next state and what is to be done.

use std::time::{Duration, Instant};

use super::on_demand::{attend, nobody_comes, retire};
use super::{
    Action, Event, KILL_TIMEOUT, Left, Next, Policy, Remaining, Run, Start, State, Stopping,
    WrapMode,
};
use crate::exit::ExitStatus;

/// An instance that ran this long has not failed, however it ended (W7).
const LONG_RUN: Duration = Duration::from_secs(10);
/// The first delay before a failing program is started again, and the longest (W7).
const FIRST_DELAY: Duration = Duration::from_millis(100);
pub(super) const LONGEST_DELAY: Duration = Duration::from_secs(30);

/// What becomes of `state` when `event` happens at `now`, and what is to be done.
pub(crate) fn step(state: State, event: Event, now: Instant, policy: &Policy) -> Next {
    let next = match (state, event) {
        (State::Ended { .. }, _) => None,
        (State::Stopping(stopping), _) => Some(stopping.step(event, now)),
        (State::Leaving, _) => leaving(event),
        (State::Draining { until, status, program }, _) => {
            draining(until, status, program, event, now, policy)
        }
        // There is no session; a client that waits for the next instance is told to come again.
        (State::Retiring(_), Event::Stop | Event::Drain) if !policy.drain_timeout.is_zero() => {
            let (state, _) = stop(ExitStatus::SUCCESS, false, now, policy);
            Some((state, vec![Action::DrainBridge, Action::Terminate]))
        }
        (_, Event::Stop | Event::Drain) if !policy.drain_timeout.is_zero() => {
            Some(drain(state, now, policy))
        }
        (State::Finishing { status, .. }, Event::Stop | Event::Drain | Event::Deadline) => {
            Some(stop(status, false, now, policy))
        }
        (State::Finishing { status, .. }, Event::BridgeEnded(_)) => {
            Some(stop(status, true, now, policy))
        }
        (_, Event::Stop | Event::Drain | Event::Interrupted(_) | Event::BridgeEnded(_)) => {
            over(state, event, now, policy)
        }
        (_, Event::Demand(demand)) => attend(state, demand, now),
        (State::Retiring(retiring), _) => Some(retiring.step(event, now)),
        (_, Event::Deadline) if state.is_idle_too_long(now, policy) => retire(state, now, policy),
        (State::Starting { run, warned }, _) => starting(run, warned, event, now, policy),
        (State::Settling { run, until, warned }, _) => {
            settling(run, until, warned, event, now, policy)
        }
        (State::Listening { run } | State::Daemonized { run }, _) => {
            serving(state, run, event, now, policy)
        }
        (State::Backoff { failures, is_wanted: true, .. }, Event::Deadline) => {
            Some(State::start(failures, now))
        }
        (State::Backoff { failures, is_wanted: false, .. }, Event::Deadline) => {
            Some(nobody_comes(failures))
        }
        (State::Gone, Event::Listening) => {
            // Whether there are clients now is not known; the next change of the demand tells.
            let run =
                Run { started: now, first: false, failures: 0, idle_since: None, is_wanted: true };
            Some((State::Daemonized { run }, vec![Action::Daemonized, Action::OpenBridge]))
        }
        (
            State::Asleep { .. } | State::Backoff { .. } | State::Gone | State::Finishing { .. },
            _,
        ) => None,
    };
    next.unwrap_or((state, vec![]))
}

/// Whether, by this step, an instance has ended, or failed, and no process of it ever listened.
pub(crate) fn ended_without_listening(before: &State, event: Event, after: &State) -> bool {
    matches!(before, State::Starting { .. } | State::Settling { .. })
        && matches!(event, Event::LeaderEnded { .. } | Event::TreeEmpty | Event::Deadline)
        && !after.awaits_listener()
        // An instance that is `Retiring` is one that we end ourselves.
        && !matches!(after, State::Retiring(_))
}

/// No process has listened yet, and the leader runs.
fn starting(run: Run, warned: bool, event: Event, now: Instant, policy: &Policy) -> Option<Next> {
    Some(match event {
        Event::SpawnFailed(status) if run.first => stop(status, false, now, policy),
        // Sessions of the instance before have their time, as at an end in order.
        Event::LauncherLost => {
            let mut actions = vec![Action::FinishBridge];
            if policy.start != Start::Now {
                actions.insert(0, Action::FailClients);
            }
            (finish(ExitStatus::FAILURE, now, policy), actions)
        }
        Event::SpawnFailed(_) => {
            let (state, mut actions) = back_off(run, now);
            // On demand, the clients that wait for it are told that it cannot be started.
            if policy.start != Start::Now {
                actions[0] = Action::FailClients;
            }
            (state, actions)
        }
        Event::Listening => (State::Listening { run }, vec![Action::OpenBridge]),
        Event::Deadline if !warned => {
            (State::Starting { run, warned: true }, vec![Action::WarnSilent])
        }
        Event::LeaderEnded { status, left, served } => match left {
            Left::Listener => daemonize(run, now, policy),
            Left::Idle if status.is_success() => {
                (State::Settling { run, until: now + policy.wrap_timeout, warned: false }, vec![])
            }
            Left::Idle | Left::Nobody => end_without_listening(run, status, served, now, policy),
        },
        _ => return None,
    })
}

/// No process has listened yet, and those that the leader left have until `until` to do so.
fn settling(
    run: Run,
    until: Instant,
    warned: bool,
    event: Event,
    now: Instant,
    policy: &Policy,
) -> Option<Next> {
    Some(match event {
        Event::Listening => daemonize(run, now, policy),
        Event::Deadline if !warned && now < until => {
            (State::Settling { run, until, warned: true }, vec![Action::WarnSilent])
        }
        Event::Deadline => {
            let (state, mut actions) =
                end_without_listening(run, ExitStatus::SUCCESS, false, now, policy);
            actions.retain(|action| *action != Action::WarnNeverListened);
            actions.insert(0, Action::WarnSettled);
            (state, actions)
        }
        Event::TreeEmpty => end_without_listening(run, ExitStatus::SUCCESS, false, now, policy),
        _ => return None,
    })
}

/// A process of the instance has listened.
fn serving(state: State, run: Run, event: Event, now: Instant, policy: &Policy) -> Option<Next> {
    Some(match (state, event) {
        (State::Listening { .. }, Event::LeaderEnded { status, left, served }) => match left {
            Left::Listener => daemonize(run, now, policy),
            Left::Idle | Left::Nobody => end(run, status, served, now, policy),
        },
        (State::Daemonized { .. }, Event::DaemonEnded { served }) => {
            end(run, ExitStatus::SUCCESS, served, now, policy)
        }
        (_, Event::Listening) => (state, vec![Action::OpenBridge]),
        // The next instance may listen, or this one again: a program that serves one client at a time (`while nc -l …`)
        // has no listener meanwhile. If the program ends, that is another event.
        (_, Event::ListenerGone) => (state, vec![Action::PauseBridge]),
        _ => return None,
    })
}

/// Whatever the program does: somebody asks us to end, or the bridge has ended.
fn over(state: State, event: Event, now: Instant, policy: &Policy) -> Option<Next> {
    let is_daemon = matches!(state, State::Daemonized { .. });
    let leaves_daemon = is_daemon && policy.mode == WrapMode::Ignore;
    Some(match event {
        Event::Stop | Event::Drain if leaves_daemon => (State::Leaving, vec![Action::StopBridge]),
        Event::Stop | Event::Drain => stop(ExitStatus::SUCCESS, false, now, policy),
        Event::BridgeEnded(status) if leaves_daemon => leave(status),
        Event::BridgeEnded(status) => stop(status, true, now, policy),
        // Somebody who interrupts one instance does not want the next.
        Event::Interrupted(_) if policy.mode == WrapMode::Respawn => {
            stop(ExitStatus::SUCCESS, false, now, policy)
        }
        Event::Interrupted(status) => stop(status, false, now, policy),
        _ => return None,
    })
}

/// A drain begins: sessions are given their time. A program that has ended already keeps its status, and its own
/// deadline if that is earlier.
fn drain(state: State, now: Instant, policy: &Policy) -> Next {
    let mut until = now + policy.drain_timeout;
    let mut status = ExitStatus::SUCCESS;
    let program = match state {
        State::Starting { .. } | State::Listening { .. } => Remaining::Leader,
        State::Daemonized { .. } => Remaining::Daemon,
        State::Finishing { until: before, status: its } => {
            (until, status) = (until.min(before), its);
            Remaining::Nobody
        }
        _ => Remaining::Nobody,
    };
    (State::Draining { until, status, program }, vec![Action::DrainBridge])
}

/// We end with the last session, or when their time is over. The program's end does not end us: what it has written is
/// on its way to clients, and sessions that another process of the program serves go on.
fn draining(
    until: Instant,
    status: ExitStatus,
    program: Remaining,
    event: Event,
    now: Instant,
    policy: &Policy,
) -> Option<Next> {
    let goes_on = |program, actions| Some((State::Draining { until, status, program }, actions));
    let leaves_daemon = program == Remaining::Daemon && policy.mode == WrapMode::Ignore;
    match event {
        Event::Stop | Event::Deadline if leaves_daemon => {
            Some((State::Leaving, vec![Action::StopBridge]))
        }
        Event::Stop | Event::Deadline | Event::Interrupted(_) => {
            Some(stop(status, false, now, policy))
        }
        Event::BridgeEnded(bridge) => {
            let status = if status.is_success() { bridge } else { status };
            Some(if leaves_daemon { leave(status) } else { stop(status, true, now, policy) })
        }
        Event::LeaderEnded { left: Left::Listener, .. } => {
            goes_on(Remaining::Daemon, vec![Action::Daemonized])
        }
        Event::Listening if program == Remaining::Nobody => {
            goes_on(Remaining::Daemon, vec![Action::Daemonized])
        }
        Event::LeaderEnded { .. }
        | Event::DaemonEnded { .. }
        | Event::SpawnFailed(_)
        | Event::LauncherLost => goes_on(Remaining::Nobody, vec![]),
        _ => None,
    }
}

fn leaving(event: Event) -> Option<Next> {
    match event {
        Event::BridgeEnded(status) => Some(leave(status)),
        Event::Stop => Some(leave(ExitStatus::SUCCESS)),
        _ => None,
    }
}

fn leave(status: ExitStatus) -> Next {
    (State::Ended { status }, vec![Action::LeaveDaemon])
}

impl Stopping {
    fn step(mut self, event: Event, now: Instant) -> Next {
        let mut actions = vec![];
        match event {
            Event::TreeEmpty => self.tree_empty = true,
            Event::BridgeEnded(_) => self.bridge_ended = true,
            // No process is left, and the sessions have had their time, too.
            Event::Deadline if self.tree_empty => self.bridge_ended = true,
            Event::Deadline if self.killed => {
                let status = ExitStatus::FAILURE;
                return (State::Ended { status }, vec![Action::NameSurvivors]);
            }
            Event::Deadline => actions = self.kill(now),
            // A second signal: we wait no more, neither for the program nor for the sessions.
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

fn stop(status: ExitStatus, bridge_ended: bool, now: Instant, policy: &Policy) -> Next {
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

fn finish(status: ExitStatus, now: Instant, policy: &Policy) -> State {
    State::Finishing { until: now + policy.stop_timeout, status }
}

fn daemonize(run: Run, now: Instant, policy: &Policy) -> Next {
    match policy.mode {
        WrapMode::Exit => (
            finish(ExitStatus::SUCCESS, now, policy),
            vec![Action::Daemonized, Action::FinishBridge],
        ),
        WrapMode::Ignore | WrapMode::Respawn => {
            (State::Daemonized { run }, vec![Action::Daemonized, Action::OpenBridge])
        }
    }
}

/// An instance has ended, and no process of it ever listened.
fn end_without_listening(
    run: Run,
    status: ExitStatus,
    served: bool,
    now: Instant,
    policy: &Policy,
) -> Next {
    match policy.mode {
        WrapMode::Exit | WrapMode::Ignore => {
            let mut actions = vec![Action::WarnNeverListened, Action::FinishBridge];
            if policy.start != Start::Now {
                actions.insert(1, Action::FailClients);
            }
            (finish(status, now, policy), actions)
        }
        WrapMode::Respawn => start_again(run, served, now),
    }
}

/// An instance has ended that had listened.
fn end(run: Run, status: ExitStatus, served: bool, now: Instant, policy: &Policy) -> Next {
    match policy.mode {
        WrapMode::Exit => (finish(status, now, policy), vec![Action::FinishBridge]),
        WrapMode::Ignore => (State::Gone, vec![Action::RefuseSessions]),
        WrapMode::Respawn => start_again(run, served, now),
    }
}

fn start_again(run: Run, served: bool, now: Instant) -> Next {
    if !served && now - run.started < LONG_RUN {
        return back_off(run, now);
    }
    if !run.is_wanted {
        return nobody_comes(0);
    }
    State::start(0, now)
}

fn back_off(run: Run, now: Instant) -> Next {
    let delay = delay(run.failures);
    let failures = run.failures.saturating_add(1);
    let mut actions = vec![Action::PauseBridge];
    // Only when the delay has grown: at the longest delay it would be said for ever.
    if run.failures == 0 || delay > self::delay(run.failures - 1) {
        actions.push(Action::WarnFast { delay });
    }
    (State::Backoff { until: now + delay, failures, is_wanted: run.is_wanted }, actions)
}

/// How long to wait, after this many failures before the last one.
fn delay(failures: u32) -> Duration {
    FIRST_DELAY.saturating_mul(1 << failures.min(16)).min(LONGEST_DELAY)
}
