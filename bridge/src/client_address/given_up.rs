//! Rows whose connections are over, were not accepted, and are too many to be kept: nobody gets such a row until the
//! program cannot meet its last connection any more.
//!
//! A connection that is reset while it waits to be accepted is not known to the kernel by its addresses from then on, and
//! the program is given it yet. But the kernel says how many wait. So it is over for certain if the kernel does not know
//! it, or knows that it was accepted, and nobody waits at that port after that.

use std::mem::take;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::table::ClientTable;

/// How often it is asked.
const LOOK: Duration = Duration::from_secs(2);

/// The rows of a table that are given up.
#[derive(Debug, Default)]
pub(super) struct GivenUp {
    rows: Vec<Last>,
    is_looked_after: bool,
}

/// A row, where its connection went, and when it was given up.
type Last = (u16, SocketAddr, Instant);

/// Keeps a row that is taken, without its connection, which is closed.
pub(super) fn give_up(table: &Arc<ClientTable>, row: u16, to: SocketAddr) {
    let is_first = table.given_up(|all| {
        all.rows.push((row, to, Instant::now()));
        !std::mem::replace(&mut all.is_looked_after, true)
    });
    if is_first {
        tokio::spawn(look_after(Arc::downgrade(table)));
    }
}

async fn look_after(table: Weak<ClientTable>) {
    loop {
        sleep(LOOK).await;
        let Some(table) = table.upgrade() else { return };
        look(&table).await;
        let is_over = table.given_up(|all| {
            all.is_looked_after = !all.rows.is_empty();
            !all.is_looked_after
        });
        if is_over {
            return;
        }
    }
}

/// Gives those back that are over for certain.
pub(super) async fn look(table: &ClientTable) {
    let mut all = table.given_up(|all| take(&mut all.rows));
    let mut ports: Vec<u16> = all.iter().map(|(_, to, _)| to.port()).collect();
    ports.sort_unstable();
    ports.dedup();
    let mut left = Vec::new();
    for port in ports {
        let (of_port, others) = all.into_iter().partition(|(_, to, _)| to.port() == port);
        all = others;
        left.append(&mut look_at(table, port, of_port).await);
    }
    table.given_up(|all| all.rows.append(&mut left));
}

/// The rows that are to be asked about again.
async fn look_at(table: &ClientTable, port: u16, mut rows: Vec<Last>) -> Vec<Last> {
    // A program that accepts nobody is not worth so many questions.
    if table.kernel.is_anybody_waiting(port).await {
        return rows;
    }
    let ends = |(row, to, _): &Last| (table.sources.address(*row).into(), *to);
    let answers = table.kernel.are_not_queued(rows.iter().map(ends).collect()).await;
    if table.kernel.is_anybody_waiting(port).await {
        return rows;
    }
    let mut answers = answers.into_iter();
    rows.retain(|(row, _, over)| {
        let is_over = answers.next().unwrap_or(false);
        if is_over {
            table.free(*row, *over);
        }
        !is_over
    });
    rows
}

#[cfg(test)]
pub(super) fn number(table: &ClientTable) -> usize {
    table.given_up(|all| all.rows.len())
}
