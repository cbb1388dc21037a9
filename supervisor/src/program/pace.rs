//! The pace of the looks: when the supervisor looks at the program again. Without a hint, ever more slowly, as the
//! program may be unable to tell us (seccomp, an overflowing queue). After a hint at a change, but only some time after
//! the last look, as any process may give hints without end. Knows no clock and no process.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::clock::instant;

/// How soon we look without a hint: at first, and at most.
const FIRST: Duration = Duration::from_millis(50);
const SLOWEST: Duration = Duration::from_secs(1);
/// How long hints wait after a look: [`REST_FACTOR`] times as long as the look took, but this long at least, and
/// [`SLOWEST`] at most. So a third of our time at most goes into looking, unless a look takes more than half a second.
const SHORTEST_REST: Duration = Duration::from_millis(20);
const REST_FACTOR: u32 = 2;

/// When looks are due.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PollSchedule {
    #[serde(with = "instant")]
    unasked: Instant,
    interval: Duration,
    is_hinted: bool,
    #[serde(with = "instant")]
    rest_until: Instant,
}

impl PollSchedule {
    pub(super) fn new(now: Instant) -> Self {
        Self { unasked: now, interval: FIRST, is_hinted: false, rest_until: now }
    }

    /// Something may have changed what there is to see.
    pub(super) fn hint(&mut self) {
        self.is_hinted = true;
    }

    /// When to look because of a hint, if there was one since the last look.
    pub(super) fn hinted(&self) -> Option<Instant> {
        self.is_hinted.then_some(self.rest_until)
    }

    /// When the rest after the last look is over: until then nothing is heard that may ask for a look at once.
    pub(super) fn rest_until(&self) -> Instant {
        self.rest_until
    }

    /// When to look without a hint.
    pub(super) fn unasked(&self) -> Instant {
        self.unasked
    }

    /// From now on looks without a hint come soon after each other again.
    pub(super) fn quicken(&mut self, now: Instant) {
        self.interval = FIRST;
        self.unasked = now + FIRST;
    }

    /// The time to look without a hint has come: the next look is later.
    pub(super) fn slow_down(&mut self, now: Instant) {
        self.interval = (self.interval * 2).min(SLOWEST);
        self.unasked = now + self.interval;
    }

    /// Whether looks come as slowly as they ever do.
    pub(super) fn is_slowest(&self) -> bool {
        self.interval == SLOWEST
    }

    /// A look begins: it sees what was hinted at before.
    pub(super) fn begin_look(&mut self) {
        self.is_hinted = false;
    }

    /// A look has taken so long, until now.
    pub(super) fn end_look(&mut self, took: Duration, now: Instant) {
        self.rest_until = now + (REST_FACTOR * took).clamp(SHORTEST_REST, SLOWEST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_come_ever_more_slowly_and_hints_wait_for_a_rest() {
        let now = Instant::now();
        let mut pace = PollSchedule::new(now);
        pace.quicken(now);
        let mut waited = vec![];
        for _ in 0..6 {
            waited.push((pace.unasked() - now).as_millis());
            pace.slow_down(now);
        }
        assert_eq!(waited, [50, 100, 200, 400, 800, 1000]);
        assert_eq!(pace.hinted(), None);
        for (took, rest) in [(0, 20), (10, 20), (100, 200), (5000, 1000)] {
            pace.begin_look();
            pace.hint();
            pace.end_look(Duration::from_millis(took), now);
            assert_eq!(pace.hinted(), Some(now + Duration::from_millis(rest)), "{took}");
        }
        pace.begin_look();
        assert_eq!(pace.hinted(), None);
    }

    #[test]
    fn o2_the_pace_is_the_same_in_another_image() {
        let mut pace = PollSchedule::new(Instant::now());
        pace.slow_down(Instant::now());
        pace.hint();
        let json = serde_json::to_string(&pace).expect("JSON");
        assert_eq!(serde_json::from_str::<PollSchedule>(&json).expect("the same"), pace);
    }
}
