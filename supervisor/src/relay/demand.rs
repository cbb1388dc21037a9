//! The demand for the program: whether there are sessions that are bound for it (O1, O5). Knows the bridge's count of
//! sessions, and what was reported of it.

use std::future::pending;

use bridge::{Attendance, Counter, Demand};
use tokio::sync::watch;

use crate::processes::Aside;

/// The sessions that are bound for the program.
#[derive(Debug)]
pub(super) struct Visitors {
    attendance: watch::Receiver<Attendance>,
    told: Demand,
    /// Has the rests (forked copies of the old process), whose sessions the bridge does not count (O2).
    aside: Aside,
}

impl Visitors {
    /// Makes it, and what the bridge counts with.
    pub(super) fn new(aside: Aside) -> (Counter, Self) {
        let (counter, attendance) = Counter::new();
        (counter, Self { attendance, told: Demand::Nobody, aside })
    }

    /// The demand that was reported last.
    pub(super) fn told(&self) -> Demand {
        self.told
    }

    /// Sets the demand that the old binary has reported last.
    pub(super) fn tell(&mut self, told: Demand) {
        self.told = told;
    }

    /// How many sessions wait for a connection to the program.
    pub(super) fn waiting(&self) -> usize {
        self.attendance.borrow().waiting()
    }

    /// Whether the program is needed, if that is not what was reported last.
    pub(super) fn news(&mut self) -> Option<Demand> {
        let mut demand = self.attendance.borrow_and_update().demand();
        if demand == Demand::Nobody && !self.aside.rests().is_empty() {
            demand = Demand::Served;
        }
        let told = std::mem::replace(&mut self.told, demand);
        (demand != told).then_some(demand)
    }

    /// The same, waited for. Cancel-safe.
    pub(super) async fn changed(&mut self) -> Demand {
        loop {
            if let Some(demand) = self.news() {
                return demand;
            }
            if self.attendance.changed().await.is_err() {
                pending::<()>().await;
            }
        }
    }
}
