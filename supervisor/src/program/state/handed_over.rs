//! Tests that every state is the same to the new binary after a hand-over (O2), and so is whatever follows from it.

use super::on_demand::Retiring;
use super::tests::{every_event, every_state, policy};
use super::*;

const MODES: [WrapMode; 3] = [WrapMode::Exit, WrapMode::Ignore, WrapMode::Respawn];

/// All states, with those of a program on demand.
fn all(now: Instant) -> Vec<(&'static str, State)> {
    let until = now + Duration::from_secs(1);
    let retiring = |is_killed| {
        State::Retiring(Retiring { until, is_killed, is_wanted: !is_killed, failures: 2 })
    };
    let run = Run {
        started: now,
        first: true,
        failures: 3,
        idle_since: now.checked_sub(Duration::from_millis(1)),
        is_wanted: false,
    };
    let mut states = every_state(now);
    states.extend([
        ("asleep", State::Asleep { failures: 1 }),
        ("retiring", retiring(false)),
        ("retiring, killed", retiring(true)),
        ("idle", State::Listening { run }),
        ("unwanted", State::Backoff { until, failures: u32::MAX, is_wanted: false }),
    ]);
    states
}

fn read_again(state: State) -> State {
    let json = serde_json::to_string(&state).expect("JSON");
    serde_json::from_str(&json).expect(&json)
}

#[test]
fn o2_every_state_is_the_same_in_another_image() {
    for (name, state) in all(Instant::now()) {
        assert_eq!(read_again(state), state, "{name}");
    }
}

#[test]
fn o2_whatever_happens_then_has_the_consequences_that_it_would_have_had() {
    let now = Instant::now();
    let on_demand = Start::OnDemand { stop_idle: Some(Duration::from_secs(5)) };
    for mode in MODES {
        for start in [Start::Now, on_demand] {
            let policy = Policy { start, ..policy(mode) };
            for (name, state) in all(now) {
                let again = read_again(state);
                assert_eq!(again.deadline(&policy), state.deadline(&policy), "{name}");
                for (event_name, event) in every_event() {
                    let later = now + Duration::from_millis(1500);
                    let (expected, actual) =
                        (step(state, event, later, &policy), step(again, event, later, &policy));
                    assert_eq!(actual, expected, "{mode:?}: {name} on {event_name}");
                }
            }
        }
    }
}

#[test]
fn o2_what_a_later_version_adds_is_passed_over_and_garbage_is_an_error() {
    let read = |json: &str| serde_json::from_str::<State>(json);
    let run = r#"{"started":5,"first":true,"failures":0,"is_wanted":true,"new":[1]}"#;
    let state = read(&format!(r#"{{"Starting":{{"run":{run},"warned":false,"newer":"?"}}}}"#));
    let State::Starting { run: Run { idle_since: None, first: true, .. }, warned: false } =
        state.expect("a state")
    else {
        panic!("another state");
    };
    for garbage in [
        "",
        "1",
        "\"Nowhere\"",
        "\"Starting\"",
        r#"{"Asleep":{}}"#,
        r#"{"Asleep":{"failures":-1}}"#,
        r#"{"Ended":{"status":256}}"#,
        r#"{"Finishing":{"until":"soon","status":0}}"#,
        r#"{"Gone":null,"Leaving":null}"#,
    ] {
        read(garbage).expect_err(garbage);
    }
}
