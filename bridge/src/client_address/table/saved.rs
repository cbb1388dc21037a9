//! The table, as saved for the new binary in a hand-over and resumed there (O2). Programs have the file mapped, so it
//! must stay the same file. Must not know which sessions have its rows: these take their rows again.

use std::collections::HashMap;
use std::fs::File;
use std::mem::take;
use std::net::SocketAddrV4;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use socket2::Socket;
use tokio::sync::Semaphore;

use super::{ClientTable, GivenUp, KEPT, Kernel, Last, ROWS, Rows, SECOND, Sources, Use};
use crate::saved::Invalid;

/// What the new binary needs to know of a [`ClientTable`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ClientTableState {
    file: RawFd,
    /// The socket that holds the port.
    held: RawFd,
    #[serde(default)]
    last: u16,
    /// The rows that have been used.
    #[serde(default)]
    used: Vec<UseState>,
}

/// A row.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct UseState {
    row: u16,
    #[serde(default)]
    is_open: bool,
    /// No session of the old binary has it, and the program may still accept its last connection.
    #[serde(default)]
    is_given_up: bool,
    #[serde(default)]
    to: Option<SocketAddrV4>,
}

impl ClientTable {
    /// The state of the table, for the new binary.
    pub fn save(&self) -> ClientTableState {
        let given_up = self.given_up.rows();
        self.rows(|rows| {
            let used = rows.used.iter().zip(0..).map(|(used, row)| UseState {
                row,
                is_open: used.is_open,
                is_given_up: given_up.contains(&row),
                to: used.last.map(|last| last.to),
            });
            let used = used.filter(|used| used.is_open || used.to.is_some()).collect();
            let (file, held) = (self.file.as_raw_fd(), self.held.as_raw_fd());
            ClientTableState { file, held, last: rows.last, used }
        })
    }

    /// The same table, by its [descriptors](ClientTableState::descriptors). When it is dropped before [`Self::go_on`],
    /// its file is not cleared. The rows that sessions have stay taken. Needs a runtime.
    ///
    /// # Errors
    /// A descriptor is not what it should be.
    pub fn resume(
        state: &ClientTableState,
        [file, held]: [OwnedFd; 2],
    ) -> Result<Arc<Self>, Invalid> {
        let invalid = |what: &str| Invalid(format!("the table of clients has {what}"));
        let file = File::from(file);
        let is_whole = file.metadata().is_ok_and(|file| file.len() == Self::LENGTH);
        if !is_whole {
            return Err(invalid("another length"));
        }
        let held = Socket::from(held);
        let address = held.local_addr().ok().and_then(|address| address.as_socket_ipv4());
        let port = address.map_or(0, |address| address.port());
        if port == 0 || !held.reuse_port().unwrap_or(false) {
            return Err(invalid("no port"));
        }
        let table = Arc::new(Self {
            file,
            sources: Sources { second: SECOND, port },
            kernel: Kernel::asked_of(port),
            held,
            rows: Mutex::new(Rows { last: state.last, used: state.rows() }),
            kept: Arc::new(Semaphore::new(KEPT)),
            given_up: GivenUp::default(),
            unclaimed: Mutex::new(state.unclaimed()),
            keep_on_drop: AtomicBool::new(true),
            is_left: AtomicBool::new(false),
        });
        for used in state.used.iter().filter(|used| used.is_given_up) {
            if let Some(to) = used.to {
                table.give_up(used.row, to.into());
            }
        }
        Ok(table)
    }

    /// From now on the file is cleared when this is dropped: the old binary does not need it any more. Rows that no session
    /// has taken again are given up: some connections were kept open by the old binary until the program accepts them, and
    /// exec(2) has closed these; the sessions of others go on in a forked copy of the old process. Needs a runtime.
    pub fn go_on(self: &Arc<Self>) {
        self.keep_on_drop.store(false, Ordering::Relaxed);
        let unclaimed = take(&mut *self.unclaimed());
        for (row, to) in unclaimed {
            self.give_up(row, to.into());
        }
    }
}

impl ClientTableState {
    /// The file descriptors that it names, which must stay open over exec(2).
    pub fn descriptors(&self) -> [RawFd; 2] {
        [self.file, self.held]
    }

    /// The rows that sessions have, or whose connections are kept open, and where these lead.
    fn unclaimed(&self) -> HashMap<u16, SocketAddrV4> {
        let open = self.used.iter().filter(|used| used.is_open && !used.is_given_up);
        let open = open.filter(|used| usize::from(used.row) < ROWS);
        open.filter_map(|used| Some((used.row, used.to?))).collect()
    }

    /// The rows. When their last connections were closed is not saved: they count as closed now, so that the kernel is
    /// asked about them again.
    fn rows(&self) -> Vec<Use> {
        let mut rows = vec![];
        let over = Instant::now();
        for used in self.used.iter().filter(|used| usize::from(used.row) < ROWS) {
            let at = usize::from(used.row);
            if rows.len() <= at {
                rows.resize(at + 1, Use { is_open: false, last: None });
            }
            let last = used.to.map(|to| Last { to, over });
            rows[at] = Use { is_open: used.is_open, last };
        }
        rows
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    fn copies(table: &ClientTable) -> [OwnedFd; 2] {
        let file = table.file.try_clone().expect("a copy");
        [file.into(), table.held.try_clone().expect("a copy").into()]
    }

    #[tokio::test]
    async fn o2_the_table_stays_the_same_file_with_its_port_and_its_rows() {
        let file = tempfile::tempfile().expect("a file");
        let copy = file.try_clone().expect("a copy");
        let old = ClientTable::new(file).expect("room");
        let to = "127.0.0.1:1".parse().expect("an address");
        let taken = [(); 3].map(|()| old.rows(Rows::next).expect("free").0);
        old.rows(|rows| {
            rows.of(taken[0]).last = Some(Last { to, over: Instant::now() });
            rows.of(taken[1]).is_open = false;
        });
        old.file.write_all_at(b"row", 0).expect("written");
        let json = serde_json::to_string(&old.save()).expect("JSON");
        let state: ClientTableState = serde_json::from_str(&json).expect("the same");
        let new = ClientTable::resume(&state, copies(&old)).expect("resumed");
        assert_eq!(new.sources(), old.sources());
        let is_open = |row| new.rows(|rows| rows.of(row).is_open);
        assert_eq!(taken.map(is_open), [true, false, true]);
        assert_eq!(new.rows(Rows::next).expect("free").0, taken[2] + 1);
        drop(new);
        let mut bytes = [0; 3];
        copy.read_exact_at(&mut bytes, 0).expect("read");
        assert_eq!(&bytes, b"row", "who has not gone on clears nothing");
        let new = ClientTable::resume(&state, copies(&old)).expect("resumed");
        new.go_on();
        drop(new);
        copy.read_exact_at(&mut bytes, 0).expect("read");
        assert_eq!(bytes, [0; 3]);
    }

    /// A row whose connection was kept open, or whose session goes on in a forked copy of the old process, is free again when
    /// the program cannot meet that connection any more; one that a session has taken again stays taken.
    #[tokio::test]
    async fn o2_a_row_that_no_session_takes_again_is_not_lost() {
        let old = ClientTable::new(tempfile::tempfile().expect("a file")).expect("room");
        let to = "127.0.0.1:1".parse().expect("an address");
        let rows = [(); 2].map(|()| old.rows(Rows::next).expect("free").0);
        for row in rows {
            old.rows(|rows| rows.of(row).last = Some(Last { to, over: Instant::now() }));
        }
        let new = ClientTable::resume(&old.save(), copies(&old)).expect("resumed");
        let _session = new.take_again(rows[1]).expect("it is there");
        new.go_on();
        assert_eq!(new.given_up.rows(), [rows[0]].into());
        for _ in 0..2 {
            new.take_back().await;
        }
        assert_eq!(rows.map(|row| new.rows(|rows| rows.of(row).is_open)), [false, true]);
    }

    #[tokio::test]
    async fn o2_another_file_or_socket_is_refused() {
        let table = ClientTable::new(tempfile::tempfile().expect("a file")).expect("room");
        let state = table.save();
        let short = OwnedFd::from(tempfile::tempfile().expect("a file"));
        let [file, held] = copies(&table);
        let other = OwnedFd::from(std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket"));
        let refused = |both| ClientTable::resume(&state, both).expect_err("refused").0;
        assert_eq!(refused([short, held]), "the table of clients has another length");
        assert_eq!(refused([file, other]), "the table of clients has no port");
    }
}
