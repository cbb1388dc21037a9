//! Points in time: waiting for one that may never come, and how one is saved for the new binary in a hand-over (O2).

use std::future::pending;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// Returns at this time; `None`: never.
pub(crate) async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => pending().await,
    }
}

/// An `Instant` as every binary can read it: nanoseconds of CLOCK_MONOTONIC, which goes on over exec(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Moment(u64);

/// One point in time by both clocks, taken once, so that a time that a binary saves and reads again is the same to the
/// nanosecond.
fn anchor() -> (Instant, u64) {
    static ANCHOR: OnceLock<(Instant, u64)> = OnceLock::new();
    *ANCHOR.get_or_init(|| {
        let now = clock_gettime(ClockId::Monotonic);
        let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
        let rest = u64::try_from(now.tv_nsec).unwrap_or_default();
        (Instant::now(), seconds.saturating_mul(1_000_000_000).saturating_add(rest))
    })
}

impl From<Instant> for Moment {
    fn from(instant: Instant) -> Self {
        let (known, nanoseconds) = anchor();
        let count = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let later = count(instant.saturating_duration_since(known));
        let earlier = count(known.saturating_duration_since(instant));
        Self(nanoseconds.saturating_add(later).saturating_sub(earlier))
    }
}

impl From<Moment> for Instant {
    fn from(moment: Moment) -> Self {
        let (known, nanoseconds) = anchor();
        let later = Duration::from_nanos(moment.0.saturating_sub(nanoseconds));
        let earlier = Duration::from_nanos(nanoseconds.saturating_sub(moment.0));
        // A time that an `Instant` cannot hold is taken as the anchor's.
        let moved = known.checked_add(later).and_then(|moved| moved.checked_sub(earlier));
        moved.unwrap_or(known)
    }
}

/// For fields of this type (`#[serde(with = "crate::clock::instant")]`).
pub(crate) mod instant {
    use std::time::Instant;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Moment;

    pub(crate) fn serialize<S: Serializer>(instant: &Instant, to: S) -> Result<S::Ok, S::Error> {
        Moment::from(*instant).serialize(to)
    }

    pub(crate) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<Instant, D::Error> {
        Moment::deserialize(from).map(Instant::from)
    }
}

/// The same for fields that may be `None`; they need `#[serde(default)]`, too.
pub(crate) mod maybe_instant {
    use std::time::Instant;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Moment;

    #[expect(clippy::ref_option, reason = "it is how serde asks")]
    pub(crate) fn serialize<S: Serializer>(
        instant: &Option<Instant>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        instant.map(Moment::from).serialize(to)
    }

    pub(crate) fn deserialize<'a, D: Deserializer<'a>>(
        from: D,
    ) -> Result<Option<Instant>, D::Error> {
        Ok(Option::<Moment>::deserialize(from)?.map(Instant::from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn o2_a_moment_is_the_same_instant_again() {
        let now = Instant::now();
        let before = [0, 1, 999_999_999, 3_600_000_000_000].map(Duration::from_nanos);
        // A time before the machine was started has no `Moment`.
        let has_been = |time: &Duration| u128::from(Moment::from(now).0) >= time.as_nanos();
        for time in before {
            let past = Some(time).filter(has_been).and_then(|time| now.checked_sub(time));
            for instant in [Some(now + time), past].into_iter().flatten() {
                assert_eq!(Instant::from(Moment::from(instant)), instant);
            }
        }
        for far in [0, u64::MAX] {
            let _ = Instant::from(Moment(far));
        }
    }

    #[test]
    fn o2_a_moment_is_what_the_kernel_says() {
        let (before, moment) = (clock_gettime(ClockId::Monotonic), Moment::from(Instant::now()));
        let after = clock_gettime(ClockId::Monotonic);
        let seconds = i64::try_from(moment.0 / 1_000_000_000).expect("a time of now");
        assert!((before.tv_sec - 1..=after.tv_sec + 1).contains(&seconds));
    }
}
