//! The budget for the memory that clients make us keep (L5): request heads and TLS hellos that are not whole, TLS
//! before there is a session, connections between two requests, sessions whose peer takes nothing, downloads and
//! recordings that wait. When a quarter of the budget is used, each of its users gets less at a time; when all of it is
//! used, no new user gets any. Counted is memory that is kept for long, here and in the kernel, from when it begins to
//! be kept, and where a session is looked at, what is on its way just then. Knows numbers of bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The budget of one bridge.
#[derive(Debug)]
pub(crate) struct Budget {
    most: usize,
    used: AtomicUsize,
}

/// A part of the budget that is used until this is dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, used: AtomicUsize::new(0) })
    }

    /// The whole budget, bytes.
    pub(crate) fn most(&self) -> usize {
        self.most
    }

    #[cfg(test)]
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Whether each connection should get less at a time. This is so early, at a quarter: a connection may use
    /// megabytes before it is known to be slow.
    pub(crate) fn is_tight(&self) -> bool {
        self.used.load(Ordering::Relaxed) > self.most / 4
    }

    /// Whether there is nothing left.
    pub(crate) fn is_spent(&self) -> bool {
        self.used.load(Ordering::Relaxed) >= self.most
    }

    /// Whether something will be left when `freeing` bytes of what is used are given back.
    pub(crate) fn has_any_besides(&self, freeing: usize) -> bool {
        self.used.load(Ordering::Relaxed).saturating_sub(freeing) < self.most
    }

    /// Counts so many bytes more as used, also if fewer were left.
    pub(crate) fn add(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn release(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Reservation {
    /// A part of 0 bytes.
    pub(crate) fn new(budget: &Arc<Budget>) -> Self {
        Self { budget: Arc::clone(budget), bytes: 0 }
    }

    pub(crate) fn is_none(&self) -> bool {
        self.bytes == 0
    }

    /// Sets how many bytes are used, also if fewer were left: they are used already.
    pub(crate) fn resize(&mut self, bytes: usize) {
        self.budget.add(bytes);
        self.budget.release(std::mem::replace(&mut self.bytes, bytes));
    }

    pub(crate) fn budget(&self) -> &Budget {
        &self.budget
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.release(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l5_what_is_held_counts_and_is_given_back() {
        let budget = Budget::new(100);
        let state = || (budget.is_tight(), budget.is_spent());
        let mut held = Reservation::new(&budget);
        assert!(held.is_none());
        held.resize(25);
        assert_eq!(state(), (false, false));
        held.resize(51);
        assert_eq!(state(), (true, false));
        budget.add(49);
        assert_eq!(state(), (true, true));
        let mut other = Reservation::new(&budget);
        other.resize(7);
        drop((held, other));
        assert_eq!(state(), (true, false));
        budget.release(49);
        assert_eq!(state(), (false, false));
    }
}
