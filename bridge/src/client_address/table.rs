//! The table of rows that tells `rebind.so`, in the wrapped program, which client each of our connections is from (A1,
//! A6): the file, and the addresses that connections with a row come from. Knows the kernel's rules for these; must not
//! know who is shown as whom.
//!
//! A row must never show one client while the program can still meet another client's connection from the row's
//! address, that is, can still accept that connection or has it open. So a row is written before its connection is
//! made, and written again only when the kernel knows of no connection from there any more, be it one that waits to be
//! accepted, or one that the program has not closed. Rows are taken in turns, so that this is asked late. A connection
//! that the program has not accepted when its session is over is kept open: otherwise the kernel gives it up after a
//! time as an orphan, resets it, and knows nothing of it from then on, while the program can still accept it and read
//! its bytes. `given_up` has the rows of the connections that are too many for that.
//!
//! The port is held as the program's port is: our sockets have `SO_REUSEPORT`, and the kernel lets no other user's socket be
//! bound there, before, during and after a connection (socket(7)). So no other user can be taken for the client that a row shows.

mod saved;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use nix::fcntl::posix_fallocate;
use socket2::{Domain, Socket, Type};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::given_up::{self, GivenUp, LOOK};
use super::kernel::{Answers, Kernel};
use super::row::{LENGTH, ROWS, Row, Sources};
use crate::net::{CONNECT, tune};
use crate::saved::Invalid;
pub use saved::ClientTableState;

/// The second byte of the addresses that we connect from. Other processes that use such an address have another port.
const SECOND: u8 = 83;

/// How many connections are kept open that the program has not accepted. Beyond that, a connection is closed, and its
/// row is given up for a time.
const KEPT: usize = 1024;

/// How often the kernel is asked whether a kept connection has been accepted: soon, then ever later.
const SOON: Duration = Duration::from_millis(10);
const LATE: Duration = Duration::from_secs(2);

/// How many rows are tried for one connection: the program may still have the last connection of a row, or that is in
/// TIME_WAIT on our side.
const TRIES: usize = 1024;

/// The file of rows, and the addresses of our connections that have one.
#[derive(Debug)]
pub struct ClientTable {
    file: File,
    sources: Sources,
    kernel: Kernel,
    /// A socket that holds the port.
    held: Socket,
    rows: Mutex<Rows>,
    kept: Arc<Semaphore>,
    given_up: GivenUp,
    /// The rows that were taken in the old binary, and that no session of this one has taken again; each with where its
    /// connection leads.
    unclaimed: Mutex<HashMap<u16, SocketAddrV4>>,
    /// Whether the old binary may still need the file: then it is not cleared when this is dropped.
    keep_on_drop: AtomicBool,
    /// Whether the file and the port belong to another process: then no connection is made here any more.
    is_left: AtomicBool,
}

#[derive(Debug, Default)]
struct Rows {
    /// The row that was tried last.
    last: u16,
    /// The rows that have been used.
    used: Vec<Use>,
}

#[derive(Debug, Clone, Copy)]
struct Use {
    is_open: bool,
    last: Option<Last>,
}

/// A row's last connection.
#[derive(Debug, Clone, Copy)]
struct Last {
    to: SocketAddrV4,
    /// When our end of it was closed.
    over: Instant,
}

/// A row that a connection of ours has: until this is dropped no other gets it.
#[derive(Debug)]
pub(crate) struct RowGuard {
    /// None: it stays taken when this is dropped.
    table: Option<Arc<ClientTable>>,
    row: u16,
}

impl ClientTable {
    /// How long the file is, in bytes.
    pub const LENGTH: u64 = (ROWS * LENGTH) as u64;

    /// A table in a new file, which programs can read.
    ///
    /// # Errors
    /// There is no room for the file, all of which is taken at once: a program that reads a page for which there
    /// is no room ends by SIGBUS. Or no port is free.
    pub fn new(file: File) -> io::Result<Arc<Self>> {
        Self::made(file, Kernel::asked_of)
    }

    fn made(file: File, kernel: impl FnOnce(u16) -> Kernel) -> io::Result<Arc<Self>> {
        let length = Self::LENGTH.try_into().map_err(io::Error::other)?;
        posix_fallocate(&file, 0, length)?;
        let held = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        held.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)).into())?;
        // After bind(2): if it is set before, the kernel lets other sockets that have it be bound there unexamined.
        held.set_reuse_port(true)?;
        let port = held.local_addr()?.as_socket().map_or(0, |address| address.port());
        Ok(Arc::new(Self {
            file,
            sources: Sources { second: SECOND, port },
            kernel: kernel(port),
            held,
            rows: Mutex::default(),
            kept: Arc::new(Semaphore::new(KEPT)),
            given_up: GivenUp::default(),
            unclaimed: Mutex::default(),
            keep_on_drop: AtomicBool::new(false),
            is_left: AtomicBool::new(false),
        }))
    }

    /// The second byte of the addresses that its connections come from, and their port.
    pub fn sources(&self) -> (u8, u16) {
        (self.sources.second, self.sources.port)
    }

    /// Clears all rows when we end: then a program that is left running takes nobody for a client of ours, though other
    /// processes can have the port.
    pub fn clear(&self) {
        let _ = self.file.write_all_at(&vec![0; ROWS * LENGTH], 0);
    }

    /// From now on no connection is made by this table, in the forked copy of a process that another one replaces: the
    /// file may be closed here, and the rows are the other's.
    pub(crate) fn leave(&self) {
        self.is_left.store(true, Ordering::Relaxed);
    }

    /// The row of a connection that the old binary has made.
    pub(crate) fn take_again(self: &Arc<Self>, row: u16) -> Result<RowGuard, Invalid> {
        self.look(row)?;
        self.unclaimed().remove(&row);
        Ok(RowGuard { table: Some(Arc::clone(self)), row })
    }

    /// Whether this row is taken.
    pub(crate) fn look(&self, row: u16) -> Result<(), Invalid> {
        let is_taken =
            self.rows(|rows| rows.used.get(usize::from(row)).is_some_and(|row| row.is_open));
        let missing = || Invalid(format!("row {row} of its clients is not there"));
        is_taken.then_some(()).ok_or_else(missing)
    }

    /// Takes a row, writes what `shown` says into it, and connects from its address.
    pub(crate) async fn connect(
        self: &Arc<Self>,
        to: SocketAddrV4,
        shown: impl Fn(u16) -> Row,
    ) -> io::Result<(TcpStream, RowGuard)> {
        if self.is_left.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::NotConnected.into());
        }
        for _ in 0..TRIES {
            let taken = self.take(to).await?;
            let row = taken.row;
            self.write(row, shown(row))?;
            match self.connect_from(row, to).await {
                // The row's last connection is still in TIME_WAIT, or another socket has its address.
                Err(error) if is_taken(&error) => {}
                connected => return Ok((connected?, taken)),
            }
        }
        Err(io::ErrorKind::AddrNotAvailable.into())
    }

    async fn connect_from(&self, row: u16, to: SocketAddrV4) -> io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseport(true)?;
        socket.bind(self.sources.address(row).into())?;
        let stream = timeout(CONNECT, socket.connect(to.into())).await??;
        tune(&stream)?;
        Ok(stream)
    }

    /// The next row that no connection has.
    async fn take(self: &Arc<Self>, to: SocketAddrV4) -> io::Result<RowGuard> {
        let began = Instant::now();
        let mut answers = self.kernel.answers();
        loop {
            if let Some(row) = self.search(&answers, to) {
                return Ok(RowGuard { table: Some(Arc::clone(self)), row });
            }
            if answers.are_after(began) {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            answers = self.kernel.answers_after(began).await?;
        }
    }

    /// Takes the next row that is known to be free, for a connection to `to`, if there is one among the first [`TRIES`]
    /// that are asked about.
    fn search(&self, answers: &Answers, to: SocketAddrV4) -> Option<u16> {
        let mut asked = 0;
        for _ in 0..ROWS {
            let Some((row, last)) = self.rows(Rows::next) else { continue };
            let can_be_met = last.is_some_and(|last| {
                answers.can_be_met(last.to.into(), self.sources.address(row).into(), last.over)
            });
            if !can_be_met {
                self.rows(|rows| rows.of(row).last = Some(Last { to, over: Instant::now() }));
                return Some(row);
            }
            self.rows(|rows| rows.of(row).is_open = false);
            asked += 1;
            if asked == TRIES {
                break;
            }
        }
        None
    }

    fn write(&self, row: u16, shown: Row) -> io::Result<()> {
        let mut bytes = [0; LENGTH];
        for (to, word) in bytes.chunks_exact_mut(4).zip(shown.encode(row)) {
            to.copy_from_slice(&word.to_ne_bytes());
        }
        self.file.write_all_at(&bytes, (usize::from(row) * LENGTH) as u64)
    }

    /// Gives a row back whose connection was closed at `over`. Another connection gets it when the program cannot meet
    /// that one any more.
    fn free(&self, row: u16, over: Instant) {
        self.rows(|rows| {
            let row = rows.of(row);
            row.is_open = false;
            row.last.iter_mut().for_each(|last| last.over = over);
        });
    }

    /// Keeps a row from other connections until its last connection, which led to `to`, is certainly out of the program's
    /// accept queue. This process does not have that connection open.
    fn give_up(self: &Arc<Self>, row: u16, to: SocketAddr) {
        let (ours, over) = (self.sources.address(row).into(), Instant::now());
        if self.given_up.add(given_up::Last { row, ours, to, over, was_found_over: false }) {
            tokio::spawn(Self::look_after(Arc::downgrade(self)));
        }
    }

    fn unclaimed(&self) -> MutexGuard<'_, HashMap<u16, SocketAddrV4>> {
        self.unclaimed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks about the rows that are given up for as long as there are any.
    async fn look_after(table: Weak<Self>) {
        loop {
            sleep(LOOK).await;
            let Some(table) = table.upgrade() else { return };
            table.take_back().await;
            if table.given_up.are_none() {
                return;
            }
        }
    }

    async fn take_back(&self) {
        for last in self.given_up.take_over(&self.kernel).await {
            self.free(last.row, last.over);
        }
    }

    fn rows<T>(&self, deed: impl FnOnce(&mut Rows) -> T) -> T {
        deed(&mut self.rows.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn is_taken(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::AddrInUse)
}

impl Rows {
    /// Takes the next row, if no connection of ours has it; gives its last connection, too. There is no row 0, as a
    /// client may be shown with the row's number as its port.
    fn next(&mut self) -> Option<(u16, Option<Last>)> {
        self.last = self.last.checked_add(1).unwrap_or(1);
        let at = usize::from(self.last);
        if self.used.len() <= at {
            self.used.resize(at + 1, Use { is_open: false, last: None });
        }
        let row = &mut self.used[at];
        if row.is_open {
            return None;
        }
        row.is_open = true;
        Some((self.last, row.last))
    }

    /// A row that has been used.
    fn of(&mut self, row: u16) -> &mut Use {
        &mut self.used[usize::from(row)]
    }
}

impl RowGuard {
    /// Which row it is.
    pub(crate) fn number(&self) -> u16 {
        self.row
    }

    /// Keeps a connection open, and its row taken, when its session is over: until the program has accepted it, or
    /// closed its listener. If too many are kept already, closes it, and gives its row up.
    pub(crate) fn keep(mut self, connection: impl Send + 'static, to: SocketAddr) {
        let Some(table) = self.table.clone() else { return };
        let Ok(permit) = Arc::clone(&table.kept).try_acquire_owned() else {
            drop(connection);
            self.table = None;
            return table.give_up(self.row, to);
        };
        tokio::spawn(async move {
            let ours = table.sources.address(self.row).into();
            let mut wait = SOON;
            loop {
                match table.kernel.accepted(to, ours).await {
                    Ok(true) => break,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                    Ok(false) | Err(_) => {}
                }
                sleep(wait).await;
                wait = LATE.min(2 * wait);
            }
            drop((connection, permit));
        });
    }
}

impl Drop for RowGuard {
    fn drop(&mut self) {
        if let Some(table) = &self.table {
            table.free(self.row, Instant::now());
        }
    }
}

impl Drop for ClientTable {
    fn drop(&mut self) {
        if !self.keep_on_drop.load(Ordering::Relaxed) {
            self.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream as Connection};
    use std::os::unix::fs::MetadataExt;

    use nix::unistd::{Uid, fchown, geteuid};

    use super::*;
    use crate::skip::skip_even_in_ci;
    use crate::sock_diag;

    fn table() -> (Arc<ClientTable>, File) {
        table_by(Kernel::asked_of)
    }

    fn table_by(kernel: fn(u16) -> Kernel) -> (Arc<ClientTable>, File) {
        let file = tempfile::tempfile().expect("a file");
        let table = ClientTable::made(file.try_clone().expect("a descriptor"), kernel);
        (table.expect("room"), file)
    }

    /// The two ways in which the kernel is asked.
    const WAYS: [fn(u16) -> Kernel; 2] = [Kernel::asked_of, Kernel::read_of];

    fn program() -> (TcpListener, SocketAddrV4) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        match listener.local_addr().expect("an address") {
            SocketAddr::V4(address) => (listener, address),
            SocketAddr::V6(address) => panic!("{address}"),
        }
    }

    fn shown(row: u16) -> Row {
        Row { v6: [0; 16], scope: 0, v4: [192, 0, 2, 7], port: row }
    }

    /// Connects by the row that comes after this one, if it is free.
    async fn connect(
        table: &Arc<ClientTable>,
        after: u16,
        to: SocketAddrV4,
    ) -> (TcpStream, RowGuard) {
        table.rows(|rows| rows.last = after);
        table.connect(to, shown).await.expect("connected")
    }

    /// The row of a connection, as the program finds it.
    fn row_of(table: &ClientTable, accepted: &Connection) -> Option<u16> {
        match accepted.peer_addr() {
            Ok(SocketAddr::V4(address)) => table.sources.row(address),
            _ => None,
        }
    }

    #[tokio::test]
    async fn a1_a_row_is_nobody_elses_while_the_program_can_meet_its_connection() {
        for kernel in WAYS {
            let ((table, _file), (listener, to)) = (table_by(kernel), program());
            let (stream, first) = connect(&table, 0, to).await;
            assert_eq!(first.row, 1);
            let (_, second) = connect(&table, 0, to).await;
            assert_eq!(second.row, 2, "the first is open");
            drop(second);
            // Closed at our end, and still in the accept queue.
            drop((stream, first));
            let (_kept, third) = connect(&table, 0, to).await;
            assert_eq!(third.row, 3, "the first two are queued");
            let (first, _) = listener.accept().expect("the first");
            assert_eq!(row_of(&table, &first), Some(1));
            let (second, _) = listener.accept().expect("the second");
            let (_, fourth) = connect(&table, 0, to).await;
            assert_eq!(fourth.row, 4, "the program has them open");
            drop((first, second));
            let deadline = std::time::Instant::now() + Duration::from_secs(20);
            // The kernel is asked anew here, as the table itself does not ask while other rows are free.
            while table.kernel.answers_after(Instant::now()).await.is_err()
                || connect(&table, 0, to).await.1.row != 1
            {
                assert!(std::time::Instant::now() < deadline, "the first is free again");
            }
        }
    }

    /// At a thousand connections a second most rows are in TIME_WAIT, where the kernel alone has the connection.
    #[tokio::test]
    async fn a1_a_row_is_free_as_soon_as_both_have_closed() {
        let ((table, _file), (listener, to)) = (table(), program());
        let (stream, taken) = connect(&table, 0, to).await;
        drop(listener.accept().expect("accepted"));
        stream.readable().await.expect("the end");
        drop((stream, taken));
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while connect(&table, 0, to).await.1.row != 1 {
            assert!(std::time::Instant::now() < deadline, "the first is free again");
        }
    }

    /// A session that is over, and whose program has neither accepted it nor has room for all that it carries.
    #[tokio::test]
    async fn a1_what_is_not_accepted_is_kept_until_it_is() {
        let ((table, _file), (listener, to)) = (table(), program());
        let (stream, taken) = connect(&table, 0, to).await;
        while stream.try_write(&[7; 8192]).is_ok() {}
        taken.keep(stream, to.into());
        assert_eq!(table.kept.available_permits(), KEPT - 1);
        let ask = || sock_diag::accepted(to.into(), table.sources.address(1).into());
        assert!(!ask().expect("it is there"));
        let (accepted, _) = listener.accept().expect("accepted");
        assert_eq!(row_of(&table, &accepted), Some(1));
        let is_free = async {
            while table.kept.available_permits() < KEPT {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(Duration::from_secs(20), is_free).await.expect("let go");
        // A listener that is gone will accept nothing.
        let (stream, taken) = connect(&table, 10, to).await;
        taken.keep(stream, to.into());
        drop(listener);
        let is_free = async {
            while table.kept.available_permits() < KEPT {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(Duration::from_secs(20), is_free).await.expect("let go");
    }

    /// Beyond [`KEPT`] connections a row is given up: no other client is shown there before the program has accepted
    /// the connection that waits, though the kernel does not know that any more.
    #[tokio::test]
    async fn a1_who_is_not_kept_has_its_row_until_the_program_cannot_meet_it() {
        for kernel in WAYS {
            let ((table, _file), (listener, to)) = (table_by(kernel), program());
            let all = table.kept.try_acquire_many(KEPT.try_into().expect("a number"));
            let _all = all.expect("all");
            for reset in [false, true] {
                let (stream, taken) = connect(&table, 0, to).await;
                let (row, ours) = (taken.row, table.sources.address(taken.row));
                if reset {
                    stream.set_zero_linger().expect("an option");
                }
                taken.keep(stream, to.into());
                assert_eq!(table.given_up.number(), 1);
                let is_known = sock_diag::can_be_met(to.into(), ours.into()).expect("an answer");
                assert_eq!(is_known, !reset);
                table.take_back().await;
                assert_eq!(table.given_up.number(), 1, "it waits");
                assert_ne!(connect(&table, row - 1, to).await.1.row, row);
                // That connection, and the one that was made after it.
                let [(accepted, from), _other] =
                    [(); 2].map(|()| listener.accept().expect("accepted"));
                assert_eq!(from, ours.into());
                table.take_back().await;
                assert_eq!(table.given_up.number(), 1, "its program may not have read its row yet");
                table.take_back().await;
                assert_eq!(table.given_up.number(), 0, "it was accepted");
                let next = connect(&table, row - 1, to).await;
                assert_eq!(
                    next.1.row == row,
                    reset,
                    "the program has it open, if it is no more than that"
                );
                drop((accepted, listener.accept().expect("the last")));
            }
        }
    }

    /// The program ends, and with it the connections that wait.
    #[tokio::test]
    async fn a1_who_is_given_up_is_free_when_nobody_listens() {
        let ((table, _file), (listener, to)) = (table(), program());
        let all = table.kept.try_acquire_many(KEPT.try_into().expect("a number"));
        let _all = all.expect("all");
        let (stream, taken) = connect(&table, 0, to).await;
        taken.keep(stream, to.into());
        drop(listener);
        let is_free = async {
            while table.rows(|rows| rows.of(1).is_open) {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(Duration::from_secs(20), is_free).await.expect("it comes back by itself");
    }

    /// In the rest of the old process the file is closed, and its number may be another file's.
    #[tokio::test]
    async fn o2_a_table_that_was_left_writes_no_row() {
        let ((table, file), (_listener, to)) = (table(), program());
        table.leave();
        let error = table.connect(to, shown).await.expect_err("no connection");
        assert_eq!(error.kind(), io::ErrorKind::NotConnected);
        let mut bytes = vec![1; ROWS * LENGTH];
        file.read_exact_at(&mut bytes, 0).expect("read");
        assert!(bytes.iter().all(|byte| *byte == 0));
    }

    #[tokio::test]
    async fn a1_the_row_is_there_before_its_connection() {
        let ((table, file), (listener, to)) = (table(), program());
        let (_stream, taken) = connect(&table, 4, to).await;
        let (accepted, _) = listener.accept().expect("accepted");
        let row = row_of(&table, &accepted).expect("one of ours");
        let mut bytes = [0; LENGTH];
        file.read_exact_at(&mut bytes, (usize::from(row) * LENGTH) as u64).expect("read");
        let mut words = [0; LENGTH / 4];
        for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(4)) {
            *word = u32::from_ne_bytes(bytes.try_into().expect("four"));
        }
        assert_eq!((row, Row::decode(&words, row)), (taken.row, Some(shown(row))));
    }

    /// A program that reads a hole of the file while the disk is full is killed by SIGBUS. A program that outlives us
    /// finds no client in the file.
    #[tokio::test]
    async fn a1_the_file_is_whole_from_the_beginning_and_empty_in_the_end() {
        let ((table, file), (_listener, to)) = (table(), program());
        let metadata = file.metadata().expect("a file");
        assert_eq!(metadata.len(), ClientTable::LENGTH);
        assert!(metadata.blocks() * 512 >= ClientTable::LENGTH, "{} blocks", metadata.blocks());
        drop(connect(&table, 0, to).await);
        drop(table);
        let mut bytes = vec![1; ROWS * LENGTH];
        file.read_exact_at(&mut bytes, 0).expect("read");
        assert!(bytes.iter().all(|byte| *byte == 0));
    }

    /// Before, during and after a connection, whatever options the other user sets. Only root can run this, as it needs
    /// a socket of another user.
    #[tokio::test]
    async fn a1_no_other_user_can_come_from_there() {
        if !geteuid().is_root() {
            return skip_even_in_ci("only root has sockets of another user");
        }
        let ((table, _file), (listener, to)) = (table(), program());
        let sources = table.sources;
        let steal = |row| {
            for (reuse_address, reuse_port) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
                fchown(&socket, Some(Uid::from_raw(65534)), None).expect("his");
                socket.set_reuse_address(reuse_address == 1).expect("an option");
                socket.set_reuse_port(reuse_port == 1).expect("an option");
                let stolen = socket.bind(&SocketAddr::from(sources.address(row)).into());
                let error = stolen.expect_err("it is ours");
                assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "{reuse_address} {reuse_port}");
            }
        };
        steal(1);
        let (stream, taken) = connect(&table, 0, to).await;
        steal(1);
        let (accepted, _) = listener.accept().expect("accepted");
        drop((stream, taken));
        steal(1);
        drop(accepted);
        steal(1);
    }
}
