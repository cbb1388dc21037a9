//! A point in time that is valid in the new binary, too: exec(2) does not change CLOCK_MONOTONIC. `Instant` is that
//! clock on Linux, but does not tell its value.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// Nanoseconds of CLOCK_MONOTONIC (clock_gettime(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Moment(u64);

impl Moment {
    /// The present moment.
    pub fn now() -> Self {
        let time = clock_gettime(ClockId::Monotonic);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or(0);
        Self(seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds))
    }

    /// The same moment as an `Instant`; the present, if it is too far away for an `Instant`.
    pub fn instant(self) -> Instant {
        let (now, instant) = (Self::now(), Instant::now());
        let shifted = if self >= now {
            instant.checked_add(Duration::from_nanos(self.0 - now.0))
        } else {
            instant.checked_sub(Duration::from_nanos(now.0 - self.0))
        };
        shifted.unwrap_or(instant)
    }

    /// How long ago this moment was; zero if it is yet to come.
    pub fn elapsed(self) -> Duration {
        Duration::from_nanos(Self::now().0.saturating_sub(self.0))
    }
}

impl From<Instant> for Moment {
    fn from(instant: Instant) -> Self {
        let (now, present) = (Self::now(), Instant::now());
        let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        match instant.checked_duration_since(present) {
            Some(ahead) => Self(now.0.saturating_add(nanoseconds(ahead))),
            None => Self(now.0.saturating_sub(nanoseconds(present - instant))),
        }
    }
}

impl From<tokio::time::Instant> for Moment {
    fn from(instant: tokio::time::Instant) -> Self {
        instant.into_std().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn o2_a_moment_is_the_same_instant_to_a_millisecond() {
        let now = Instant::now();
        let near = |left: Instant, right: Instant| {
            left.max(right) - left.min(right) < Duration::from_secs(1)
        };
        // No earlier than the machine was started.
        let earliest = Moment::now().0 / 1_000_000_000;
        for seconds in [0, earliest / 2, 100_000] {
            let time = Duration::from_secs(seconds);
            let ahead = now + time;
            assert!(near(Moment::from(ahead).instant(), ahead));
            if let Some(before) = now.checked_sub(time).filter(|_| seconds < earliest) {
                assert!(near(Moment::from(before).instant(), before));
            }
        }
        for far in [Moment(0), Moment(u64::MAX)] {
            let _ = far.instant();
        }
    }
}
