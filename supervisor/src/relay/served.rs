//! Which instance has served a session (W7). Knows no processes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The bridge's count of sessions, and what it was at earlier moments.
#[derive(Debug, Default)]
pub(super) struct Served {
    pub(super) count: Arc<AtomicU64>,
    /// The count when an instance was asked about last.
    pub(super) asked: u64,
    /// The count when the instance before the present one was asked about last.
    pub(super) before: u64,
}

impl Served {
    /// What the bridge counts up.
    pub(super) fn count(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.count)
    }

    /// An instance begins. A session that the bridge has counted since [`has_served`](Self::has_served) was asked last
    /// belonged to the instance before, whose end may be known before that count on a busy machine. It counts for the
    /// new instance, so that short sessions do not look like failures for ever.
    pub(super) fn begin_instance(&mut self) {
        self.before = self.asked;
    }

    /// Whether the present instance has served a session.
    pub(super) fn has_served(&mut self) -> bool {
        self.asked = self.count.load(Ordering::Relaxed);
        self.asked > self.before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn w7_each_session_counts_for_one_instance() {
        let mut served = Served::default();
        let count = served.count();
        let serve = || count.fetch_add(1, Ordering::Relaxed);
        served.begin_instance();
        assert!(!served.has_served());
        served.begin_instance();
        serve();
        // A daemon is asked about twice: when its leader ends, and when it does.
        assert!(served.has_served() && served.has_served());
        served.begin_instance();
        assert!(!served.has_served(), "that was the one before");
        // Counted after its end.
        serve();
        served.begin_instance();
        assert!(served.has_served());
        served.begin_instance();
        assert!(!served.has_served());
    }
}
