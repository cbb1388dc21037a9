//! The rows that are given up: this process does not have the last connection of such a row open any more, and the program may
//! not have accepted it. Its session is over, and too many such connections are kept open already; or the old binary of a
//! hand-over had the connection, and no session has taken the row again. No other connection gets the row while the program may
//! still accept that one.
//!
//! When a connection is reset while it waits to be accepted, the kernel does not know it by its addresses from then on, and
//! still gives it to the program. But the kernel says how many connections wait. So a connection is certainly out of the
//! accept queue if the kernel does not know it, or knows that it was accepted, and no connection waits at that port after
//! that. A program that has just accepted the connection has the time between two looks to read its row. Must not know the
//! table.

use std::collections::HashSet;
use std::mem::{replace, take};
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::kernel::Kernel;

/// How often the kernel is asked.
pub(super) const LOOK: Duration = Duration::from_secs(2);

/// The rows of a table that are given up.
#[derive(Debug, Default)]
pub(super) struct GivenUp(Mutex<List>);

#[derive(Debug, Default)]
struct List {
    rows: Vec<Last>,
    is_looked_after: bool,
}

/// A row, and its last connection: from where, to where, and when it was closed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Last {
    pub(super) row: u16,
    pub(super) ours: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) over: Instant,
    /// Whether it was certainly out of the accept queue at the look before.
    pub(super) was_found_over: bool,
}

impl GivenUp {
    /// Adds a row. True: the caller has to start a task that looks after these rows.
    pub(super) fn add(&self, one: Last) -> bool {
        let mut list = self.list();
        list.rows.push(one);
        !replace(&mut list.is_looked_after, true)
    }

    /// The numbers of these rows.
    pub(super) fn rows(&self) -> HashSet<u16> {
        self.list().rows.iter().map(|last| last.row).collect()
    }

    /// Whether there are no such rows any more, so that no task has to look after them.
    pub(super) fn are_none(&self) -> bool {
        let mut list = self.list();
        list.is_looked_after = !list.rows.is_empty();
        !list.is_looked_after
    }

    /// Takes the rows out whose connections are certainly out of the accept queue, and were so at the look before.
    pub(super) async fn take_over(&self, kernel: &Kernel) -> Vec<Last> {
        let mut rows = take(&mut self.list().rows);
        let mut ports: Vec<u16> = rows.iter().map(|last| last.to.port()).collect();
        ports.sort_unstable();
        ports.dedup();
        let mut over = Vec::new();
        for port in ports {
            let (of_port, others) = rows.into_iter().partition(|last| last.to.port() == port);
            let (those, left) = sort(kernel, port, of_port).await;
            let (again, first): (Vec<_>, Vec<_>) =
                those.into_iter().partition(|last| last.was_found_over);
            let found = |is_over| move |last| Last { was_found_over: is_over, ..last };
            let mut list = self.list();
            list.rows.extend(left.into_iter().map(found(false)));
            list.rows.extend(first.into_iter().map(found(true)));
            drop(list);
            (rows, over) = (others, [over, again].concat());
        }
        over
    }

    #[cfg(test)]
    pub(super) fn number(&self) -> usize {
        self.list().rows.len()
    }

    fn list(&self) -> MutexGuard<'_, List> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The rows whose connections to this port are certainly out of its accept queue, and the others.
async fn sort(kernel: &Kernel, port: u16, rows: Vec<Last>) -> (Vec<Last>, Vec<Last>) {
    // Asked before all else: where the program accepts nothing, a question for each row would be in vain.
    if kernel.is_anybody_waiting(port).await {
        return (Vec::new(), rows);
    }
    let ends = rows.iter().map(|last| (last.ours, last.to)).collect();
    let mut are_over = kernel.are_not_queued(ends).await.into_iter();
    if kernel.is_anybody_waiting(port).await {
        return (Vec::new(), rows);
    }
    rows.into_iter().partition(|_| are_over.next().unwrap_or(false))
}
