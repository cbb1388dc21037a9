//! Points in time that mean the same in another image of this program: an [`Instant`] is opaque, the clock behind it
//! (CLOCK_MONOTONIC) goes on through exec(2).

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// Nanoseconds of that clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Moment(u64);

impl Moment {
    fn now() -> Self {
        let now = clock_gettime(ClockId::Monotonic);
        let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
        let nanoseconds = u64::try_from(now.tv_nsec).unwrap_or(0);
        Self(seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds))
    }

    /// How long before the present it was.
    pub(crate) fn elapsed(self) -> Duration {
        Duration::from_nanos(Self::now().0.saturating_sub(self.0))
    }
}

impl From<Instant> for Moment {
    fn from(instant: Instant) -> Self {
        let (now, here) = (Self::now().0, Instant::now());
        let ahead = |span: Duration| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        Self(match instant.checked_duration_since(here) {
            Some(later) => now.saturating_add(ahead(later)),
            None => now.saturating_sub(ahead(here.saturating_duration_since(instant))),
        })
    }
}

impl From<Moment> for Instant {
    /// One that no clock reaches is the present.
    fn from(moment: Moment) -> Self {
        let (now, here) = (Moment::now().0, Instant::now());
        let then = match moment.0.checked_sub(now) {
            Some(later) => here.checked_add(Duration::from_nanos(later)),
            None => here.checked_sub(Duration::from_nanos(now - moment.0)),
        };
        then.unwrap_or(here)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn o2_points_in_time_are_the_same_behind_the_change() {
        let here = Instant::now();
        let spans = [0, 1, 3_600, 4_294_967_295].map(Duration::from_secs);
        let past = here.checked_sub(Duration::from_millis(5)).unwrap();
        for instant in spans.into_iter().map(|span| here + span).chain([past]) {
            let again = Instant::from(Moment::from(instant));
            let apart = again.max(instant) - again.min(instant);
            // Each way looks at two clocks, one behind the other.
            assert!(apart < Duration::from_secs(1), "{apart:?}");
        }
        for moment in [Moment(0), Moment(u64::MAX)] {
            let _ = Instant::from(moment);
        }
        assert!(Moment::from(here).elapsed() < Duration::from_secs(60));
    }
}
