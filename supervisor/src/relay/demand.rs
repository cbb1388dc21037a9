//! Who is there for the program (O1, O5). Knows the bridge's count of sessions, and what was told of it.

use std::future::pending;

use bridge::{Attendance, Counter, Demand};
use tokio::sync::watch;

use crate::processes::Aside;

/// What is known of who is there.
#[derive(Debug)]
pub(super) struct Visitors {
    attendance: watch::Receiver<Attendance>,
    told: Demand,
    /// Has the rests of us, whose sessions the bridge does not count (O2).
    aside: Aside,
}

impl Visitors {
    /// And what the bridge counts with.
    pub(super) fn new(aside: Aside) -> (Counter, Self) {
        let (counter, attendance) = Counter::new();
        (counter, Self { attendance, told: Demand::Nobody, aside })
    }

    /// What was told last.
    pub(super) fn told(&self) -> Demand {
        self.told
    }

    /// That was told last, by another image of us.
    pub(super) fn tell(&mut self, told: Demand) {
        self.told = told;
    }

    /// How many wait for a connection to the program.
    pub(super) fn waiting(&self) -> usize {
        self.attendance.borrow().waiting()
    }

    /// Whether the program is needed, if that is not what was told last.
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
