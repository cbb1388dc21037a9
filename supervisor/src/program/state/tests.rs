//! Every state × event × mode, and the courses of events that the specification tells of.

use super::step::LONGEST_DELAY;
use super::*;

const SECOND: Duration = Duration::from_secs(1);
const FAILED: ExitStatus = ExitStatus::FAILURE;

pub(super) fn policy(mode: WrapMode) -> Policy {
    Policy {
        mode,
        start: Start::Now,
        wrap_timeout: 30 * SECOND,
        stop_timeout: 10 * SECOND,
        drain_timeout: Duration::ZERO,
    }
}

pub(super) struct Life {
    pub(super) state: State,
    pub(super) now: Instant,
    policy: Policy,
}

impl Life {
    fn begin(mode: WrapMode) -> Self {
        let (life, actions) = Self::of(policy(mode));
        assert_eq!(actions, [Action::Spawn]);
        life
    }

    /// A life under this policy, and what is to be done at its beginning.
    pub(super) fn of(policy: Policy) -> (Self, Vec<Action>) {
        let now = Instant::now();
        let (state, actions) = State::begin(now, &policy);
        (Self { state, now, policy }, actions)
    }

    pub(super) fn on(&mut self, event: Event) -> Vec<Action> {
        let (state, actions) = step(self.state, event, self.now, &self.policy);
        self.state = state;
        actions
    }

    pub(super) fn after(&mut self, time: Duration, event: Event) -> Vec<Action> {
        self.now += time;
        self.on(event)
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.state.deadline(&self.policy)
    }

    /// Goes to the deadline that the state has set.
    pub(super) fn deadline(&mut self) -> Vec<Action> {
        self.now = self.due().expect("a deadline");
        self.on(Event::Deadline)
    }
}

fn ended(status: ExitStatus, left: Left) -> Event {
    Event::LeaderEnded { status, left, served: false }
}

fn served(left: Left) -> Event {
    Event::LeaderEnded { status: FAILED, left, served: true }
}

use Action::{
    Daemonized, DrainBridge, FinishBridge, Kill, LeaveDaemon, NameSurvivors, OpenBridge,
    PauseBridge, RefuseSessions, Spawn, StopBridge, Terminate, WarnFast, WarnNeverListened,
    WarnSettled, WarnSilent,
};

/// Every state, in which every event must have a meaning.
pub(super) fn every_state(now: Instant) -> Vec<(&'static str, State)> {
    let run = Run { started: now, first: false, failures: 0, idle_since: None, is_wanted: true };
    let until = now + SECOND;
    let stopping = |killed, tree_empty, bridge_ended| {
        let status = ExitStatus::SUCCESS;
        State::Stopping(Stopping { status, until, killed, tree_empty, bridge_ended })
    };
    let draining = |program| State::Draining { until, status: ExitStatus::SUCCESS, program };
    vec![
        ("starting first", State::Starting { run: Run { first: true, ..run }, warned: false }),
        ("starting", State::Starting { run, warned: false }),
        ("silent", State::Starting { run, warned: true }),
        ("listening", State::Listening { run }),
        ("settling", State::Settling { run, until, warned: true }),
        ("daemonized", State::Daemonized { run }),
        ("backoff", State::Backoff { until, failures: 1, is_wanted: true }),
        ("gone", State::Gone),
        ("finishing", State::Finishing { until, status: FAILED }),
        ("draining leader", draining(Remaining::Leader)),
        ("draining daemon", draining(Remaining::Daemon)),
        ("draining nobody", draining(Remaining::Nobody)),
        ("stopping", stopping(false, false, false)),
        ("bridge ended", stopping(false, false, true)),
        ("killing", stopping(true, false, false)),
        ("tree empty", stopping(true, true, false)),
        ("leaving", State::Leaving),
        ("ended", State::Ended { status: FAILED }),
    ]
}

pub(super) fn every_event() -> Vec<(&'static str, Event)> {
    vec![
        ("spawn failed", Event::SpawnFailed(ExitStatus::NOT_FOUND)),
        ("launcher lost", Event::LauncherLost),
        ("listening", Event::Listening),
        ("listener gone", Event::ListenerGone),
        ("leader ended 0, nobody", ended(ExitStatus::SUCCESS, Left::Nobody)),
        ("leader ended 0, idle", ended(ExitStatus::SUCCESS, Left::Idle)),
        ("leader ended 0, listener", ended(ExitStatus::SUCCESS, Left::Listener)),
        ("leader ended 1, nobody", ended(FAILED, Left::Nobody)),
        ("leader ended 1, idle", ended(FAILED, Left::Idle)),
        ("leader ended 1, listener", ended(FAILED, Left::Listener)),
        ("interrupted", Event::Interrupted(FAILED)),
        ("daemon ended", Event::DaemonEnded { served: false }),
        ("tree empty", Event::TreeEmpty),
        ("bridge ended", Event::BridgeEnded(ExitStatus::SUCCESS)),
        ("deadline", Event::Deadline),
        ("stop", Event::Stop),
        ("drain", Event::Drain),
    ]
}

// The columns: spawn failed, launcher lost, listening, gone, 0/nobody, 0/idle, 0/listener, 1/nobody, 1/idle, 1/listener,
// interrupted, daemon ended, tree empty, bridge ended, deadline, stop, drain.
const EXIT: &str = "
    starting first  | stopping finishing listening . finishing settling finishing finishing finishing finishing stopping . . stopping = stopping stopping
    starting        | backoff finishing listening . finishing settling finishing finishing finishing finishing stopping . . stopping = stopping stopping
    silent          | backoff finishing listening . finishing settling finishing finishing finishing finishing stopping . . stopping . stopping stopping
    listening       | . . = = finishing finishing finishing finishing finishing finishing stopping . . stopping . stopping stopping
    settling        | . . finishing . . . . . . . stopping . finishing stopping finishing stopping stopping
    daemonized      | . . = = . . . . . . stopping finishing . stopping . stopping stopping
    backoff         | . . . . . . . . . . stopping . . stopping starting stopping stopping
    gone            | . . daemonized . . . . . . . stopping . . stopping . stopping stopping
    finishing       | . . . . . . . . . . stopping . . stopping stopping stopping stopping
    draining leader | = = . . = = = = = = stopping = . stopping stopping stopping .
    draining daemon | = = . . = = = = = = stopping = . stopping stopping stopping .
    draining nobody | . . = . . . = . . = stopping . . stopping stopping stopping .
    stopping        | . . . . . . . . . . . . = = = = .
    bridge ended    | . . . . . . . . . . . . ended . = = .
    killing         | . . . . . . . . . . . . = = ended = .
    tree empty      | . . . . . . . . . . . . . ended ended ended .
    leaving         | . . . . . . . . . . . . . ended . ended .
    ended           | . . . . . . . . . . . . . . . . .";
const IGNORE: &str = "
    starting first  | stopping finishing listening . finishing settling daemonized finishing finishing daemonized stopping . . stopping = stopping stopping
    starting        | backoff finishing listening . finishing settling daemonized finishing finishing daemonized stopping . . stopping = stopping stopping
    silent          | backoff finishing listening . finishing settling daemonized finishing finishing daemonized stopping . . stopping . stopping stopping
    listening       | . . = = gone gone daemonized gone gone daemonized stopping . . stopping . stopping stopping
    settling        | . . daemonized . . . . . . . stopping . finishing stopping finishing stopping stopping
    daemonized      | . . = = . . . . . . stopping gone . ended . leaving leaving
    backoff         | . . . . . . . . . . stopping . . stopping starting stopping stopping
    gone            | . . daemonized . . . . . . . stopping . . stopping . stopping stopping
    finishing       | . . . . . . . . . . stopping . . stopping stopping stopping stopping
    draining leader | = = . . = = = = = = stopping = . stopping stopping stopping .
    draining daemon | = = . . = = = = = = stopping = . ended leaving leaving .
    draining nobody | . . = . . . = . . = stopping . . stopping stopping stopping .
    stopping        | . . . . . . . . . . . . = = = = .
    bridge ended    | . . . . . . . . . . . . ended . = = .
    killing         | . . . . . . . . . . . . = = ended = .
    tree empty      | . . . . . . . . . . . . . ended ended ended .
    leaving         | . . . . . . . . . . . . . ended . ended .
    ended           | . . . . . . . . . . . . . . . . .";
const RESPAWN: &str = "
    starting first  | stopping finishing listening . backoff settling daemonized backoff backoff daemonized stopping . . stopping = stopping stopping
    starting        | backoff finishing listening . backoff settling daemonized backoff backoff daemonized stopping . . stopping = stopping stopping
    silent          | backoff finishing listening . backoff settling daemonized backoff backoff daemonized stopping . . stopping . stopping stopping
    listening       | . . = = backoff backoff daemonized backoff backoff daemonized stopping . . stopping . stopping stopping
    settling        | . . daemonized . . . . . . . stopping . backoff stopping backoff stopping stopping
    daemonized      | . . = = . . . . . . stopping backoff . stopping . stopping stopping
    backoff         | . . . . . . . . . . stopping . . stopping starting stopping stopping
    gone            | . . daemonized . . . . . . . stopping . . stopping . stopping stopping
    finishing       | . . . . . . . . . . stopping . . stopping stopping stopping stopping
    draining leader | = = . . = = = = = = stopping = . stopping stopping stopping .
    draining daemon | = = . . = = = = = = stopping = . stopping stopping stopping .
    draining nobody | . . = . . . = . . = stopping . . stopping stopping stopping .
    stopping        | . . . . . . . . . . . . = = = = .
    bridge ended    | . . . . . . . . . . . . ended . = = .
    killing         | . . . . . . . . . . . . = = ended = .
    tree empty      | . . . . . . . . . . . . . ended ended ended .
    leaving         | . . . . . . . . . . . . . ended . ended .
    ended           | . . . . . . . . . . . . . . . . .";

/// What an event leads to, in the words of the tables.
pub(super) fn outcome(state: State, event: Event, now: Instant, policy: &Policy) -> &'static str {
    let (next, actions) = step(state, event, now, policy);
    match (next == state, actions.is_empty()) {
        (true, true) => ".",
        _ if next.name() == state.name() => "=",
        _ => next.name(),
    }
}

/// The whole table, mode by mode: a line for each state, a column for each event. `.` is "nothing changes and nothing
/// is done"; `=` is "the same state, but something is done or noted".
#[test]
fn every_state_and_event() {
    let now = Instant::now();
    for (mode, table) in
        [(WrapMode::Exit, EXIT), (WrapMode::Ignore, IGNORE), (WrapMode::Respawn, RESPAWN)]
    {
        let lines: Vec<_> = table.trim().lines().collect();
        let states = every_state(now);
        assert_eq!(lines.len(), states.len());
        for (line, (name, state)) in lines.iter().zip(states) {
            let (head, cells) = line.split_once('|').expect("a head");
            assert_eq!(head.trim(), name);
            let cells: Vec<_> = cells.split_whitespace().collect();
            let events = every_event();
            assert_eq!(cells.len(), events.len(), "{name}");
            for (expected, (event_name, event)) in cells.into_iter().zip(events) {
                let found = outcome(state, event, now, &policy(mode));
                assert_eq!(found, expected, "{mode:?}: {name} on {event_name}");
            }
        }
    }
}

/// W9: where it changes nothing, as while the program is being stopped, the kernel is not asked who listens.
#[test]
fn w9_nobody_is_asked_who_listens_where_that_changes_nothing() {
    let now = Instant::now();
    for (name, state) in every_state(now) {
        let changes = |mode, event| step(state, event, now, &policy(mode)) != (state, vec![]);
        let modes = [WrapMode::Exit, WrapMode::Ignore, WrapMode::Respawn];
        let tells_apart = |mode| {
            let next = |left| step(state, ended(FAILED, left), now, &policy(mode));
            next(Left::Listener) != next(Left::Nobody)
        };
        let matters = modes.into_iter().any(|mode| {
            changes(mode, Event::Listening)
                || changes(mode, Event::ListenerGone)
                || tells_apart(mode)
        });
        assert_eq!(state.minds_listener(), matters, "{name}");
    }
}

#[test]
fn w3_the_bridge_opens_when_the_program_listens() {
    let mut life = Life::begin(WrapMode::Exit);
    assert_eq!(life.on(Event::Listening), [OpenBridge]);
}

#[test]
fn w4_telnetd_under_respawn_serves_one_session_an_instance() {
    let mut life = Life::begin(WrapMode::Respawn);
    for _ in 0..10 {
        assert_eq!(life.on(Event::Listening), [OpenBridge]);
        // It accepts and closes its listener.
        assert_eq!(life.on(Event::ListenerGone), [PauseBridge]);
        // It ends with 1 after every good session, and may leave a shell.
        assert_eq!(life.on(served(Left::Idle)), [PauseBridge, Spawn]);
    }
}

#[test]
fn f35_w4_clients_are_held_between_two_listeners_while_the_program_lives() {
    for mode in [WrapMode::Exit, WrapMode::Ignore, WrapMode::Respawn] {
        let mut life = Life::begin(mode);
        life.on(Event::Listening);
        assert_eq!(life.on(Event::ListenerGone), [PauseBridge], "{mode:?}");
        assert_eq!(life.on(Event::Listening), [OpenBridge], "{mode:?}");
    }
    // W6: and when it ends they are told at once.
    let mut life = Life::begin(WrapMode::Ignore);
    life.on(Event::Listening);
    life.on(Event::ListenerGone);
    assert_eq!(life.on(ended(FAILED, Left::Nobody)), [RefuseSessions]);
}

#[test]
fn w5_a_leader_that_ends_with_0_has_until_the_wrap_timeout() {
    let mut life = Life::begin(WrapMode::Ignore);
    assert_eq!(life.on(ended(ExitStatus::SUCCESS, Left::Idle)), []);
    assert_eq!(life.deadline(), [WarnSilent]);
    assert_eq!(life.due(), Some(life.now + 20 * SECOND));
    assert_eq!(life.after(19 * SECOND, Event::Listening), [Daemonized, OpenBridge]);
    assert_eq!(life.on(Event::DaemonEnded { served: false }), [RefuseSessions]);

    let mut life = Life::begin(WrapMode::Ignore);
    life.on(ended(ExitStatus::SUCCESS, Left::Idle));
    assert_eq!(life.deadline(), [WarnSilent]);
    assert_eq!(life.deadline(), [WarnSettled, FinishBridge]);
}

#[test]
fn w1_an_interrupted_program_takes_us_with_it() {
    for (mode, status) in [
        (WrapMode::Exit, FAILED),
        (WrapMode::Ignore, FAILED),
        (WrapMode::Respawn, ExitStatus::SUCCESS),
    ] {
        let mut life = Life::begin(mode);
        assert_eq!(life.on(Event::Interrupted(FAILED)), [StopBridge, Terminate]);
        life.on(Event::BridgeEnded(ExitStatus::SUCCESS));
        life.on(Event::TreeEmpty);
        assert_eq!(life.state, State::Ended { status });
    }
}

#[test]
fn w6_exit_stops_a_daemon_and_ends_with_0_after_its_sessions() {
    let mut life = Life::begin(WrapMode::Exit);
    life.on(Event::Listening);
    assert_eq!(life.on(ended(FAILED, Left::Listener)), [Daemonized, FinishBridge]);
    let bridge_ended = Event::BridgeEnded(ExitStatus::SUCCESS);
    assert_eq!(life.on(bridge_ended), [Terminate]);
    assert_eq!(life.on(Event::TreeEmpty), []);
    assert_eq!(life.state, State::Ended { status: ExitStatus::SUCCESS });
}

#[test]
fn w6_exit_drains_no_longer_than_the_stop_timeout() {
    let mut life = Life::begin(WrapMode::Exit);
    life.on(Event::Listening);
    assert_eq!(life.on(ended(FAILED, Left::Nobody)), [FinishBridge]);
    assert_eq!(life.due(), Some(life.now + 10 * SECOND));
    assert_eq!(life.deadline(), [StopBridge, Terminate]);
}

#[test]
fn w6_ignore_ends_with_the_status_of_a_program_that_never_listened() {
    let mut life = Life::begin(WrapMode::Ignore);
    assert_eq!(life.on(ended(FAILED, Left::Idle)), [WarnNeverListened, FinishBridge]);
    life.on(Event::BridgeEnded(ExitStatus::SUCCESS));
    life.on(Event::TreeEmpty);
    assert_eq!(life.state, State::Ended { status: FAILED });
}

#[test]
fn f46_a_program_that_ends_without_having_listened_is_warned_of() {
    for mode in [WrapMode::Exit, WrapMode::Ignore] {
        for status in [ExitStatus::SUCCESS, FAILED] {
            let mut life = Life::begin(mode);
            let actions = life.on(ended(status, Left::Nobody));
            assert_eq!(actions, [WarnNeverListened, FinishBridge], "{mode:?} {status}");
        }
        let mut life = Life::begin(mode);
        life.on(ended(ExitStatus::SUCCESS, Left::Idle));
        assert_eq!(life.on(Event::TreeEmpty), [WarnNeverListened, FinishBridge], "{mode:?}");
    }
}

#[test]
fn f47_silence_is_warned_of_when_the_wrap_timeout_has_passed_if_that_is_earlier() {
    let mut life = Life::begin(WrapMode::Exit);
    let began = life.now;
    assert_eq!(life.due(), Some(began + 10 * SECOND));
    life.policy.wrap_timeout = 3 * SECOND;
    assert_eq!(life.due(), Some(began + 3 * SECOND));
    assert_eq!(life.deadline(), [WarnSilent]);
    life.on(ended(ExitStatus::SUCCESS, Left::Idle));
    assert_eq!(life.due(), Some(began + 3 * SECOND), "it is overdue, and comes once more");
}

#[test]
fn w7_the_delay_doubles_up_to_half_a_minute_and_is_forgotten_after_a_session() {
    let mut life = Life::begin(WrapMode::Respawn);
    for delay in [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000] {
        let delay = Duration::from_millis(delay);
        assert_eq!(life.on(ended(FAILED, Left::Nobody)), [PauseBridge, WarnFast { delay }]);
        assert_eq!(life.due(), Some(life.now + delay));
        assert_eq!(life.deadline(), [PauseBridge, Spawn]);
    }
    assert_eq!(life.on(ended(FAILED, Left::Nobody)), [PauseBridge], "said before");
    assert_eq!(life.due(), Some(life.now + LONGEST_DELAY));
    assert_eq!(life.deadline(), [PauseBridge, Spawn]);
    assert_eq!(life.on(served(Left::Nobody)), [PauseBridge, Spawn]);
    let delay = Duration::from_millis(100);
    assert_eq!(
        life.on(Event::SpawnFailed(ExitStatus::NOT_FOUND)),
        [PauseBridge, WarnFast { delay }]
    );
    life.deadline();
    let actions = life.after(10 * SECOND, ended(FAILED, Left::Nobody));
    assert_eq!(actions, [PauseBridge, Spawn], "a run of ten seconds is no failure");
}

#[test]
fn w16_a_program_that_cannot_be_started_any_more_ends_us() {
    let mut life = Life::begin(WrapMode::Respawn);
    life.on(Event::Listening);
    assert_eq!(life.on(served(Left::Nobody)), [PauseBridge, Spawn]);
    assert_eq!(life.on(Event::LauncherLost), [FinishBridge]);
    assert_eq!(life.on(Event::BridgeEnded(ExitStatus::SUCCESS)), [Terminate]);
    life.on(Event::TreeEmpty);
    assert_eq!(life.state, State::Ended { status: ExitStatus::FAILURE });
}

#[test]
fn w8_a_program_that_cannot_be_started_at_first_ends_us_in_every_mode() {
    for mode in [WrapMode::Exit, WrapMode::Ignore, WrapMode::Respawn] {
        let mut life = Life::begin(mode);
        assert_eq!(life.on(Event::SpawnFailed(ExitStatus::NOT_FOUND)), [StopBridge, Terminate]);
        life.on(Event::BridgeEnded(ExitStatus::SUCCESS));
        life.on(Event::TreeEmpty);
        assert_eq!(life.state, State::Ended { status: ExitStatus::NOT_FOUND });
    }
}

#[test]
fn w9_a_stop_is_gentle_then_deadly_then_given_up() {
    let mut life = Life::begin(WrapMode::Exit);
    assert_eq!(life.on(Event::Stop), [StopBridge, Terminate]);
    assert_eq!(life.due(), Some(life.now + 10 * SECOND));
    assert_eq!(life.deadline(), [Kill]);
    assert_eq!(life.due(), Some(life.now + 5 * SECOND));
    assert_eq!(life.deadline(), [NameSurvivors]);
    assert_eq!(life.state, State::Ended { status: FAILED });
}

#[test]
fn w9_a_second_signal_skips_the_grace() {
    let mut life = Life::begin(WrapMode::Respawn);
    life.on(Event::Listening);
    assert_eq!(life.on(Event::Stop), [StopBridge, Terminate]);
    assert_eq!(life.on(Event::Stop), [Kill]);
    assert_eq!(life.on(Event::TreeEmpty), []);
    assert_eq!(life.state, State::Ended { status: ExitStatus::SUCCESS });

    let mut life = Life::begin(WrapMode::Respawn);
    life.on(Event::Stop);
    life.on(Event::TreeEmpty);
    life.on(Event::Stop);
    assert_eq!(life.state, State::Ended { status: ExitStatus::SUCCESS }, "sessions too");
}

#[test]
fn w9_under_ignore_a_daemon_is_left_running() {
    let mut life = Life::begin(WrapMode::Ignore);
    life.on(ended(ExitStatus::SUCCESS, Left::Listener));
    assert_eq!(life.on(Event::Stop), [StopBridge]);
    let bridge_ended = Event::BridgeEnded(ExitStatus::SUCCESS);
    assert_eq!(life.on(bridge_ended), [LeaveDaemon]);
    assert_eq!(life.state, State::Ended { status: ExitStatus::SUCCESS });
}

#[test]
fn w12_silence_is_warned_of_once() {
    let mut life = Life::begin(WrapMode::Exit);
    assert_eq!(life.deadline(), [WarnSilent]);
    assert_eq!(life.due(), None);
}

fn drains(mode: WrapMode) -> Life {
    let mut life = Life::begin(mode);
    life.policy.drain_timeout = 60 * SECOND;
    life
}

#[test]
fn o1_sessions_go_on_until_the_drain_is_over_and_the_program_with_them() {
    for mode in [WrapMode::Exit, WrapMode::Ignore, WrapMode::Respawn] {
        for asked in [Event::Stop, Event::Drain] {
            let mut life = drains(mode);
            life.on(Event::Listening);
            assert_eq!(life.on(asked), [DrainBridge], "{mode:?}");
            assert_eq!(life.due(), Some(life.now + 60 * SECOND));
            assert_eq!(life.after(20 * SECOND, Event::Drain), [], "asked again");
            assert_eq!(life.due(), Some(life.now + 40 * SECOND));
            // It ends, and is not started again.
            assert_eq!(life.on(served(Left::Idle)), []);
            assert_eq!(life.deadline(), [StopBridge, Terminate]);
        }
    }
}

#[test]
fn o1_a_drain_ends_with_the_last_session_or_a_second_signal() {
    for mode in [WrapMode::Exit, WrapMode::Ignore, WrapMode::Respawn] {
        for (event, actions) in [
            (Event::BridgeEnded(ExitStatus::SUCCESS), &[Terminate][..]),
            (Event::Stop, &[StopBridge, Terminate]),
        ] {
            let mut life = drains(mode);
            life.on(Event::Listening);
            life.on(Event::Stop);
            assert_eq!(life.on(event), actions, "{mode:?}");
            assert_eq!(life.due(), Some(life.now + 10 * SECOND));
            life.on(Event::BridgeEnded(ExitStatus::SUCCESS));
            life.on(Event::TreeEmpty);
            assert_eq!(life.state, State::Ended { status: ExitStatus::SUCCESS }, "{mode:?}");
        }
    }
}

#[test]
fn o1_under_ignore_a_daemon_is_left_running_after_the_drain() {
    for before in [true, false] {
        let mut life = drains(WrapMode::Ignore);
        life.on(Event::Listening);
        if before {
            life.on(ended(ExitStatus::SUCCESS, Left::Listener));
        }
        life.on(Event::Stop);
        if !before {
            assert_eq!(life.on(ended(ExitStatus::SUCCESS, Left::Listener)), [Daemonized]);
        }
        assert_eq!(life.deadline(), [StopBridge]);
        assert_eq!(life.state, State::Leaving);
    }
    let mut life = drains(WrapMode::Ignore);
    life.on(ended(ExitStatus::SUCCESS, Left::Listener));
    life.on(Event::Stop);
    life.on(Event::DaemonEnded { served: true });
    assert_eq!(life.deadline(), [StopBridge, Terminate], "it has ended meanwhile");
}

/// O1, W6: a program that has ended by itself before the drain keeps its status and its deadline.
#[test]
fn o1_a_program_that_has_ended_before_the_drain_keeps_its_status() {
    let mut life = drains(WrapMode::Exit);
    life.on(Event::Listening);
    life.on(ended(ExitStatus::NOT_FOUND, Left::Nobody));
    let due = life.due();
    assert_eq!(life.after(SECOND, Event::Stop), [DrainBridge]);
    assert_eq!(life.due(), due);
    life.on(Event::BridgeEnded(ExitStatus::SUCCESS));
    life.on(Event::TreeEmpty);
    assert_eq!(life.state, State::Ended { status: ExitStatus::NOT_FOUND });
}

#[test]
fn o1_every_state_drains_in_which_there_may_be_sessions() {
    let now = Instant::now();
    for mode in [WrapMode::Exit, WrapMode::Ignore, WrapMode::Respawn] {
        let policy = Policy { drain_timeout: SECOND, ..policy(mode) };
        for (name, state) in every_state(now) {
            let has_begun = matches!(
                state,
                State::Draining { .. } | State::Stopping(_) | State::Leaving | State::Ended { .. }
            );
            for event in [Event::Stop, Event::Drain] {
                let (next, actions) = step(state, event, now, &policy);
                let begins = matches!(next, State::Draining { .. }) && actions == [DrainBridge];
                assert_eq!(begins, !has_begun, "{mode:?}: {name} on {event:?}");
            }
        }
    }
}
