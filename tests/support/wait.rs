//! Waiting: for a condition, with a deadline, and never for a fixed time.

use std::time::{Duration, Instant};

/// How long anything may take that should come at once. Generous: the machine may be busy.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// How often a condition is looked at.
const INTERVAL: Duration = Duration::from_millis(5);

/// Waits until `look` finds something.
pub(crate) fn wait_for<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    wait_for_within(DEADLINE, what, look)
}

/// [`wait_for`] with a deadline of its own.
pub(crate) fn wait_for_within<T>(
    deadline: Duration,
    what: &str,
    mut look: impl FnMut() -> Option<T>,
) -> T {
    let began = Instant::now();
    loop {
        // Looks once more after the deadline: the machine may have kept this thread from running.
        let late = began.elapsed() > deadline;
        if let Some(found) = look() {
            return found;
        }
        assert!(!late, "within {deadline:?} not seen: {what}");
        std::thread::sleep(INTERVAL);
    }
}

/// Waits until `condition` holds.
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    wait_for(what, || condition().then_some(()));
}

/// Fails if `condition` does not hold all through `window`: for what must *not* happen, where there
/// is nothing else to wait for.
pub(crate) fn stays(window: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while began.elapsed() < window {
        assert!(condition(), "no longer so after {:?}: {what}", began.elapsed());
        std::thread::sleep(INTERVAL);
    }
}
