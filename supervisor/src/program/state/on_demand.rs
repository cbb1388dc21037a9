//! The part of the program's life that clients decide (O5): it is started for the first client, and ended when there
//! has been no client for long. Pure, as [`step`](super::step()) is, whose part this is.

use std::time::Instant;

use bridge::Demand;
use serde::{Deserialize, Serialize};

use crate::clock::instant;

use super::{Action, Event, KILL_TIMEOUT, Next, Policy, Run, Start, State};

/// What [`State::Retiring`] waits for: that no process of the program is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Retiring {
    /// The deadline of SIGTERM, at which SIGKILL is sent; after that, the deadline of SIGKILL, at which we wait no
    /// more.
    #[serde(with = "instant")]
    pub(super) until: Instant,
    pub(super) is_killed: bool,
    /// A client waits, and gets the next instance.
    pub(super) is_wanted: bool,
    pub(super) failures: u32,
}

impl State {
    /// Whether the program does not run, and is not to be looked at.
    pub(crate) fn is_asleep(&self) -> bool {
        matches!(self, Self::Asleep { .. })
    }

    /// Whether there has been no client for as long as the program may go on without one.
    pub(crate) fn is_idle_too_long(&self, now: Instant, policy: &Policy) -> bool {
        self.idle_until(policy).is_some_and(|until| until <= now)
    }

    /// When the instance is to be ended, if no client comes.
    pub(super) fn idle_until(&self, policy: &Policy) -> Option<Instant> {
        let Start::OnDemand { stop_idle } = policy.start else { return None };
        Some(self.run()?.idle_since? + stop_idle?)
    }

    /// The instance that runs.
    fn run(mut self) -> Option<Run> {
        self.run_mut().copied()
    }

    fn run_mut(&mut self) -> Option<&mut Run> {
        match self {
            Self::Starting { run, .. }
            | Self::Listening { run }
            | Self::Settling { run, .. }
            | Self::Daemonized { run } => Some(run),
            _ => None,
        }
    }
}

/// Whether the program is needed has changed. A program that serves, and that no client waits for, need not be started
/// again if it ends: a session that has had its connection gets none to the next instance.
pub(super) fn attend(mut state: State, demand: Demand, now: Instant) -> Option<Next> {
    let is_waited_for = demand == Demand::Waiting;
    match &mut state {
        State::Asleep { failures } if is_waited_for => return Some(State::start(*failures, now)),
        State::Backoff { is_wanted, .. } | State::Retiring(Retiring { is_wanted, .. }) => {
            *is_wanted = is_waited_for;
        }
        _ => {
            let run = state.run_mut()?;
            run.is_wanted = is_waited_for;
            run.idle_since = match demand {
                Demand::Nobody => Some(run.idle_since.unwrap_or(now)),
                Demand::Served | Demand::Waiting => None,
            };
        }
    }
    Some((state, vec![]))
}

/// There has been no client for long: ends the instance.
pub(super) fn retire(state: State, now: Instant, policy: &Policy) -> Option<Next> {
    let has_listened = matches!(state, State::Listening { .. } | State::Daemonized { .. });
    let failures = if has_listened { 0 } else { state.run()?.failures };
    let until = now + policy.stop_timeout;
    let retiring = Retiring { until, is_killed: false, is_wanted: false, failures };
    Some((
        State::Retiring(retiring),
        vec![Action::PauseBridge, Action::TellIdle, Action::Terminate],
    ))
}

/// The program does not run, and no client wants it.
pub(super) fn nobody_comes(failures: u32) -> Next {
    (State::Asleep { failures }, vec![Action::PauseBridge])
}

impl Retiring {
    pub(super) fn step(mut self, event: Event, now: Instant) -> Next {
        let mut actions = vec![];
        match event {
            Event::TreeEmpty => return self.end(now),
            Event::Deadline if self.is_killed => {
                let (state, next) = self.end(now);
                return (state, [vec![Action::NameSurvivors], next].concat());
            }
            Event::Deadline => {
                self.is_killed = true;
                self.until = now + KILL_TIMEOUT;
                actions.push(Action::Kill);
            }
            _ => {}
        }
        (State::Retiring(self), actions)
    }

    fn end(self, now: Instant) -> Next {
        if self.is_wanted { State::start(self.failures, now) } else { nobody_comes(self.failures) }
    }
}

#[cfg(test)]
mod tests;
