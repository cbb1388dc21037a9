//! One budget for what clients make us keep (L5): heads and hellos that are not whole, TLS before there is a session, connections
//! between two requests, sessions whose peer takes nothing, downloads and recordings that wait. Where a quarter of it is used, each
//! of them gets less at a time; where all of it is, nobody else gets any. Counted is what is kept for long, here and in the kernel,
//! when it begins to be: never a frame that passes. Knows bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The budget of one bridge.
#[derive(Debug)]
pub(crate) struct Budget {
    most: usize,
    used: AtomicUsize,
}

/// A part of it, until it is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, used: AtomicUsize::new(0) })
    }

    /// All of it, bytes.
    pub(crate) fn most(&self) -> usize {
        self.most
    }

    /// Whether each should get less at a time. Early: those who were not known to be slow until now have megabytes already.
    pub(crate) fn is_tight(&self) -> bool {
        self.used.load(Ordering::Relaxed) > self.most / 4
    }

    /// Whether there is nothing left.
    pub(crate) fn is_spent(&self) -> bool {
        self.used.load(Ordering::Relaxed) >= self.most
    }

    /// Whether there will be something left when so much of what is used is given back.
    pub(crate) fn has_any_besides(&self, freeing: usize) -> bool {
        self.used.load(Ordering::Relaxed).saturating_sub(freeing) < self.most
    }

    /// So much more is kept, also where there was less left.
    pub(crate) fn add(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn release(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Held {
    /// Nothing yet.
    pub(crate) fn new(budget: &Arc<Budget>) -> Self {
        Self { budget: Arc::clone(budget), bytes: 0 }
    }

    pub(crate) fn is_none(&self) -> bool {
        self.bytes == 0
    }

    /// So much is kept now, also where there was less left: it is kept already.
    pub(crate) fn resize(&mut self, bytes: usize) {
        self.budget.add(bytes);
        self.budget.release(std::mem::replace(&mut self.bytes, bytes));
    }

    pub(crate) fn budget(&self) -> &Budget {
        &self.budget
    }
}

impl Drop for Held {
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
        let mut held = Held::new(&budget);
        assert!(held.is_none());
        held.resize(25);
        assert_eq!(state(), (false, false));
        held.resize(51);
        assert_eq!(state(), (true, false));
        budget.add(49);
        assert_eq!(state(), (true, true));
        let mut other = Held::new(&budget);
        other.resize(7);
        drop((held, other));
        assert_eq!(state(), (true, false));
        budget.release(49);
        assert_eq!(state(), (false, false));
    }
}
