//! Every state × event × mode on demand, as far as it differs from what it is without; and what becomes of a program
//! that clients start.

use std::time::Duration;

use super::super::tests::{Life, every_event, every_state, outcome, policy};
use super::super::{Left, WrapMode, ended_without_listening, step};
use super::*;
use crate::exit::ExitStatus;
use Action::{
    AcceptClients, DrainBridge, FailClients, FinishBridge, Kill, NameSurvivors, OpenBridge,
    PauseBridge, Spawn, StopBridge, TellIdle, Terminate, WarnFast, WarnSilent,
};

const WANTED: Event = Event::Demand(Demand::Waiting);
const SERVED: Event = Event::Demand(Demand::Served);
const IDLE: Event = Event::Demand(Demand::Nobody);
const SECOND: Duration = Duration::from_secs(1);
const MODES: [WrapMode; 3] = [WrapMode::Exit, WrapMode::Ignore, WrapMode::Respawn];

/// A policy on demand: the program is stopped after this time without a client, or never.
fn on_demand(mode: WrapMode, stop_idle: Option<Duration>) -> Policy {
    Policy { start: Start::OnDemand { stop_idle }, ..policy(mode) }
}

fn for_a_minute(mode: WrapMode) -> Policy {
    on_demand(mode, Some(60 * SECOND))
}

/// The policy without a drain timeout, and with one.
fn with_a_drain_and_without(mode: WrapMode) -> [(WrapMode, Policy); 2] {
    let drain = Policy { drain_timeout: 600 * SECOND, ..for_a_minute(mode) };
    [(mode, for_a_minute(mode)), (mode, drain)]
}

/// The states that there are on demand only.
fn own_states(now: Instant) -> Vec<(&'static str, State)> {
    let until = now + SECOND;
    let retiring = |is_killed, is_wanted| {
        State::Retiring(Retiring { until, is_killed, is_wanted, failures: 0 })
    };
    vec![
        ("asleep", State::Asleep { failures: 0 }),
        ("unwanted", State::Backoff { until, failures: 1, is_wanted: false }),
        ("retiring", retiring(false, false)),
        ("retiring, wanted", retiring(false, true)),
        ("killed", retiring(true, false)),
        ("killed, wanted", retiring(true, true)),
    ]
}

/// The same instance, without a client since `now`.
fn idle(mut state: State, now: Instant) -> Option<State> {
    let run = state.run_mut()?;
    (run.idle_since, run.is_wanted) = (Some(now), false);
    Some(state)
}

/// A line for each state; an event that it does not name changes nothing. `over` is a stop or a drain: its two outcomes
/// are that without a drain timeout, and that with one.
#[test]
fn o5_o1_every_event_in_the_states_of_its_own() {
    let table = "
        asleep | wanted: starting; interrupted: stopping; bridge ended: stopping; over: stopping, draining
        unwanted | wanted: =; deadline: asleep; interrupted: stopping; bridge ended: stopping; over: stopping, draining
        retiring | wanted: =; tree empty: asleep; deadline: =; interrupted: stopping; bridge ended: stopping; over: stopping, stopping
        retiring, wanted | served: =; idle: =; tree empty: starting; deadline: =; interrupted: stopping; bridge ended: stopping; over: stopping, stopping
        killed | wanted: =; tree empty: asleep; deadline: asleep; interrupted: stopping; bridge ended: stopping; over: stopping, stopping
        killed, wanted | served: =; idle: =; tree empty: starting; deadline: starting; interrupted: stopping; bridge ended: stopping; over: stopping, stopping";
    let now = Instant::now();
    let events =
        [every_event(), vec![("wanted", WANTED), ("served", SERVED), ("idle", IDLE)]].concat();
    for (mode, policy) in MODES.into_iter().flat_map(with_a_drain_and_without) {
        for (line, (name, state)) in table.trim().lines().zip(own_states(now)) {
            let (head, cells) = line.split_once('|').expect("a head");
            assert_eq!(head.trim(), name);
            let cells: Vec<_> = cells.split(';').filter_map(|cell| cell.split_once(':')).collect();
            for (event_name, event) in &events {
                let is_over = matches!(event, Event::Stop | Event::Drain);
                let event_name = if is_over { "over" } else { event_name };
                let cell = cells.iter().find(|(event, _)| event.trim() == event_name);
                let mut outcomes = cell.map_or(".", |(_, outcomes)| outcomes).split(',');
                let expected = match outcomes.next() {
                    _ if is_over && !policy.drain_timeout.is_zero() => outcomes.next(),
                    first => first,
                };
                let found = outcome(state, *event, now, &policy);
                assert_eq!(Some(found), expected.map(str::trim), "{mode:?}: {name} on {event:?}");
            }
        }
    }
}

/// In all other states nothing is different while there is a client. Without one, a program is not started again where
/// it would be at once, and a deadline may be its end.
#[test]
fn o5_every_event_in_the_other_states() {
    let now = Instant::now();
    for (mode, on_demand) in MODES.into_iter().flat_map(with_a_drain_and_without) {
        let at_once = Policy { start: Start::Now, ..on_demand };
        for (name, state) in every_state(now) {
            for (event_name, event) in every_event() {
                let (expected, _) = step(state, event, now, &at_once);
                let (found, _) = step(state, event, now, &on_demand);
                assert_eq!(found, expected, "{mode:?}: {name} on {event_name}");
                let Some(idle) = idle(state, now) else { continue };
                let (found, _) = step(idle, event, now, &on_demand);
                let name = format!("{mode:?}: idle {name} on {event_name}");
                assert_eq!(found.name(), expected.name(), "{name}");
                assert!(!matches!(found, State::Backoff { is_wanted: true, .. }), "{name}");
                let (found, actions) = step(idle, event, now + 60 * SECOND, &on_demand);
                if event == Event::Deadline {
                    assert_eq!(found.name(), "retiring", "{name}");
                    assert_eq!(actions, [PauseBridge, TellIdle, Terminate]);
                    assert!(!ended_without_listening(&idle, event, &found));
                }
            }
            let wanted = outcome(state, WANTED, now, &on_demand);
            let left = outcome(state, IDLE, now, &on_demand);
            match (state, idle(state, now)) {
                (State::Backoff { .. }, _) => assert_eq!((wanted, left), (".", "="), "{name}"),
                (_, None) => assert_eq!((wanted, left), (".", "."), "{name}"),
                (_, Some(idle)) => {
                    assert_eq!(left, "=", "{name}");
                    assert_eq!(outcome(idle, WANTED, now, &on_demand), "=", "{name}");
                    assert_eq!(outcome(idle, IDLE, now, &on_demand), ".", "{name}");
                }
            }
        }
    }
}

#[test]
fn o5_nobody_is_asked_who_listens_where_no_program_is_to_serve() {
    for (name, state) in own_states(Instant::now()) {
        assert!(!state.minds_listener() && !state.awaits_listener(), "{name}");
    }
}

impl Life {
    fn asleep(policy: Policy) -> Self {
        let (life, actions) = Self::of(policy);
        assert_eq!(actions, [AcceptClients]);
        assert!(life.state.is_asleep());
        life
    }

    fn due_in(&self) -> Option<Duration> {
        self.due().map(|due| due - self.now)
    }

    fn ended(&mut self, served: bool) -> Vec<Action> {
        let status = ExitStatus::FAILURE;
        self.on(Event::LeaderEnded { status, left: Left::Nobody, served })
    }
}

#[test]
fn o5_it_is_started_for_the_first_and_ended_after_the_last_in_every_mode() {
    for mode in MODES {
        let mut life = Life::asleep(for_a_minute(mode));
        for _ in 0..3 {
            assert_eq!(life.due_in(), None);
            assert_eq!(life.on(WANTED), [PauseBridge, Spawn]);
            assert_eq!(life.on(Event::Listening), [OpenBridge]);
            assert_eq!(life.due_in(), None);
            life.on(IDLE);
            assert_eq!(life.after(59 * SECOND, WANTED), []);
            assert_eq!(life.due_in(), None);
            life.on(IDLE);
            assert_eq!(life.due_in(), Some(60 * SECOND));
            assert_eq!(life.deadline(), [PauseBridge, TellIdle, Terminate]);
            // If we have ended it ourselves, that is no exit.
            assert_eq!(life.ended(true), []);
            assert_eq!(life.on(Event::TreeEmpty), [PauseBridge]);
            assert!(life.state.is_asleep(), "{mode:?}");
        }
    }
}

#[test]
fn o5_without_a_time_it_is_never_ended() {
    let mut life = Life::asleep(on_demand(WrapMode::Exit, None));
    life.on(WANTED);
    life.on(Event::Listening);
    life.on(IDLE);
    assert_eq!(life.due_in(), None);
}

#[test]
fn o5_who_comes_while_it_is_ended_gets_the_next_instance() {
    let mut life = Life::asleep(for_a_minute(WrapMode::Exit));
    for is_killed in [false, true] {
        life.on(WANTED);
        life.on(Event::Listening);
        life.on(IDLE);
        life.deadline();
        assert_eq!(life.on(WANTED), []);
        if is_killed {
            assert_eq!(life.due_in(), Some(10 * SECOND));
            assert_eq!(life.deadline(), [Kill]);
            assert_eq!(life.due_in(), Some(5 * SECOND));
            assert_eq!(life.deadline(), [NameSurvivors, PauseBridge, Spawn]);
        } else {
            assert_eq!(life.on(Event::TreeEmpty), [PauseBridge, Spawn]);
        }
        // And a client that has left again gets none.
        life.on(IDLE);
        life.deadline();
        life.deadline();
        life.on(WANTED);
        life.on(IDLE);
        life.on(Event::TreeEmpty);
        assert!(life.state.is_asleep());
    }
}

#[test]
fn o5_who_leaves_before_it_listens_leaves_an_idle_program() {
    let mut life = Life::asleep(on_demand(WrapMode::Exit, Some(3 * SECOND)));
    life.on(WANTED);
    life.on(IDLE);
    assert_eq!(life.due_in(), Some(3 * SECOND));
    assert_eq!(life.after(SECOND, Event::Listening), [OpenBridge]);
    assert_eq!(life.due_in(), Some(2 * SECOND));
    life.deadline();
    life.on(Event::TreeEmpty);
    // A program that never listens is ended too, and is warned of before, if there is time.
    life.on(WANTED);
    assert_eq!(life.deadline(), [WarnSilent]);
    life.on(IDLE);
    assert_eq!(life.deadline(), [PauseBridge, TellIdle, Terminate]);
}

#[test]
fn o5_under_respawn_it_is_started_again_only_if_somebody_is_there() {
    let mut life = Life::asleep(for_a_minute(WrapMode::Respawn));
    life.on(WANTED);
    life.on(Event::Listening);
    assert_eq!(life.ended(true), [PauseBridge, Spawn]);
    // A client that has had its connection does not wait for another, though it has not left yet.
    for demand in [SERVED, IDLE] {
        life.on(Event::Listening);
        life.on(demand);
        assert_eq!(life.ended(true), [PauseBridge]);
        assert!(life.state.is_asleep());
        assert_eq!(life.on(SERVED), []);
        assert_eq!(life.on(WANTED), [PauseBridge, Spawn]);
    }
}

#[test]
fn o5_w7_failures_are_counted_while_nobody_is_there() {
    let mut life = Life::asleep(for_a_minute(WrapMode::Respawn));
    for delay in [100, 200, 400] {
        let delay = Duration::from_millis(delay);
        assert_eq!(life.on(WANTED), [PauseBridge, Spawn]);
        life.on(IDLE);
        assert_eq!(life.ended(false), [PauseBridge, WarnFast { delay }]);
        assert_eq!(life.deadline(), [PauseBridge]);
        assert!(life.state.is_asleep());
    }
    life.on(WANTED);
    life.on(IDLE);
    life.ended(false);
    // A client that comes during the delay waits for the end of the delay.
    assert_eq!(life.on(WANTED), []);
    assert_eq!(life.due_in(), Some(Duration::from_millis(800)));
    assert_eq!(life.deadline(), [PauseBridge, Spawn]);
}

#[test]
fn o5_who_waits_for_a_program_that_cannot_be_started_is_told_in_every_mode() {
    for mode in MODES {
        let mut life = Life::asleep(for_a_minute(mode));
        life.on(WANTED);
        let failed = Event::SpawnFailed(ExitStatus::NOT_FOUND);
        let delay = Duration::from_millis(100);
        assert_eq!(life.on(failed), [FailClients, WarnFast { delay }], "{mode:?}");
        life.on(IDLE);
        assert_eq!(life.deadline(), [PauseBridge]);
        assert!(life.state.is_asleep());
    }
}

#[test]
fn o5_w6_an_end_of_its_own_is_what_the_mode_makes_of_it() {
    let life = |mode| {
        let mut life = Life::asleep(for_a_minute(mode));
        life.on(WANTED);
        life
    };
    for mode in [WrapMode::Exit, WrapMode::Ignore] {
        let mut life = life(mode);
        let expected = [Action::WarnNeverListened, FailClients, FinishBridge];
        assert_eq!(life.ended(false), expected, "{mode:?}");
    }
    let mut exit = life(WrapMode::Exit);
    exit.on(Event::Listening);
    exit.on(IDLE);
    assert_eq!(exit.ended(true), [FinishBridge]);
    let mut ignore = life(WrapMode::Ignore);
    ignore.on(Event::Listening);
    assert_eq!(ignore.ended(true), [Action::RefuseSessions]);
}

#[test]
fn o5_w9_a_stop_needs_no_program() {
    let mut life = Life::asleep(for_a_minute(WrapMode::Exit));
    assert_eq!(life.on(Event::Stop), [StopBridge, Terminate]);
    life.on(Event::BridgeEnded(ExitStatus::SUCCESS));
    life.on(Event::TreeEmpty);
    assert_eq!(life.state, State::Ended { status: ExitStatus::SUCCESS });
}

/// O5, O1: in a drain, a program that sleeps, or is being stopped, is not started, and one with sessions keeps them.
#[test]
fn o5_o1_a_drain_starts_nobody_and_takes_nobody_his_program() {
    for mode in MODES {
        let [_, (_, policy)] = with_a_drain_and_without(mode);
        let bridge_ended = Event::BridgeEnded(ExitStatus::SUCCESS);
        // Asleep: there is nothing to drain.
        let mut life = Life::asleep(policy);
        assert_eq!(life.on(Event::Stop), [DrainBridge], "{mode:?}");
        assert_eq!(life.on(WANTED), [], "who came just then");
        assert_eq!(life.on(bridge_ended), [Terminate]);
        life.on(Event::TreeEmpty);
        assert_eq!(life.state, State::Ended { status: ExitStatus::SUCCESS }, "{mode:?}");

        // With sessions, which last longer than it may be idle.
        let mut life = Life::asleep(policy);
        life.on(WANTED);
        life.on(Event::Listening);
        life.on(SERVED);
        assert_eq!(life.on(Event::Drain), [DrainBridge], "{mode:?}");
        assert_eq!(life.due_in(), Some(600 * SECOND));
        assert_eq!(life.on(IDLE), []);
        assert_eq!(life.due_in(), Some(600 * SECOND), "it is not stopped for that it is idle, too");
        assert_eq!(life.on(bridge_ended), [Terminate]);

        // With a session that has ended before.
        let mut life = Life::asleep(policy);
        life.on(WANTED);
        life.on(Event::Listening);
        life.on(IDLE);
        assert_eq!(life.on(Event::Drain), [DrainBridge]);
        assert_eq!(life.due_in(), Some(600 * SECOND));

        // It is being stopped: there is no session, and it is not left running.
        for is_wanted in [false, true] {
            let mut life = Life::asleep(policy);
            life.on(WANTED);
            if mode != WrapMode::Exit {
                let (status, left) = (ExitStatus::SUCCESS, Left::Idle);
                life.on(Event::LeaderEnded { status, left, served: false });
            }
            life.on(Event::Listening);
            life.on(IDLE);
            assert_eq!(life.deadline(), [PauseBridge, TellIdle, Terminate], "{mode:?}");
            if is_wanted {
                life.on(WANTED);
            }
            assert_eq!(life.on(Event::Stop), [DrainBridge, Terminate]);
            assert_eq!(life.due_in(), Some(10 * SECOND), "as without a drain");
            assert_eq!(life.on(Event::TreeEmpty), []);
            life.on(bridge_ended);
            assert_eq!(life.state, State::Ended { status: ExitStatus::SUCCESS });
        }
    }
}

/// O3: whether a start time is shown.
#[test]
fn o5_o3_a_sleeping_program_has_no_instance_and_one_that_is_being_stopped_has() {
    for (name, state) in own_states(Instant::now()) {
        let expected = matches!(state, State::Retiring(_));
        assert_eq!(state.has_instance(), expected, "{name}");
    }
}
