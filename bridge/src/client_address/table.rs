//! The rows that tell `rebind.so`, in the wrapped program, who each of our connections is from (A1, A6): the file,
//! and where the connections come from that have a row. Knows the kernel's rules for that; must not know who
//! is shown as whom.
//!
//! A row must never show one client while the program can still meet another's connection under it. So it
//! is written before its connection is made, and next when the kernel knows of no connection from there any
//! more, be it one that waits to be accepted, or one that the program has not closed. Rows are taken in
//! turns, so that the question comes late. What the program has not accepted when its session is over is
//! kept open: the kernel gives an orphan up after a time, resets it, and knows nothing of it from then on,
//! while the program can still accept it and read its bytes.
//!
//! The port is held as that of the program is: our sockets have `SO_REUSEPORT`, and the kernel lets no other
//! user's be bound there, before, during and after a connection (socket(7)). So no user can have what stands in
//! a row said of himself.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::fcntl::posix_fallocate;
use socket2::{Domain, Socket, Type};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::row::{LENGTH, ROWS, Row, Sources};
use crate::net::{CONNECT, tune};
use crate::sock_diag;

/// The second byte of our addresses. Whoever else uses it has another port.
const SECOND: u8 = 83;

/// How many connections are kept that their program has not accepted. Beyond that, the row of one is given up.
const KEPT: usize = 1024;

/// How often the kernel is asked whether a kept connection has been accepted: soon, then ever later.
const SOON: Duration = Duration::from_millis(10);
const LATE: Duration = Duration::from_secs(2);

/// How many rows are tried for one connection that the kernel refuses: those in TIME_WAIT.
const TRIES: usize = 1024;

/// The file, and our end of the connections that have a row.
#[derive(Debug)]
pub struct ClientTable {
    file: File,
    sources: Sources,
    /// Holds the port.
    _held: Socket,
    rows: Mutex<Rows>,
    kept: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Rows {
    /// The one before that which is tried next.
    last: u16,
    /// Of those that have been used.
    used: Vec<Use>,
}

#[derive(Debug, Clone, Copy)]
struct Use {
    is_open: bool,
    /// Where its last connection went.
    to: Option<SocketAddrV4>,
}

/// A row that a connection of ours has: until this is dropped no other gets it.
#[derive(Debug)]
pub(crate) struct Taken {
    table: Arc<ClientTable>,
    row: u16,
}

impl ClientTable {
    /// How long the file is, in bytes.
    pub const LENGTH: u64 = (ROWS * LENGTH) as u64;

    /// In a new file, which programs can read.
    ///
    /// # Errors
    /// There is no room for the file, all of which is taken at once: a program that reads a page for which there
    /// is no room ends by SIGBUS. Or no port is free.
    pub fn new(file: File) -> io::Result<Arc<Self>> {
        posix_fallocate(&file, 0, (ROWS * LENGTH).try_into().expect("two MiB"))?;
        let held = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        held.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)).into())?;
        // After bind(): where it is set before, the kernel lets whoever has it bind unexamined.
        held.set_reuse_port(true)?;
        let port = held.local_addr()?.as_socket().map_or(0, |address| address.port());
        Ok(Arc::new(Self {
            file,
            sources: Sources { second: SECOND, port },
            _held: held,
            rows: Mutex::default(),
            kept: Arc::new(Semaphore::new(KEPT)),
        }))
    }

    /// The second byte of the addresses that its connections come from, and their port.
    pub fn sources(&self) -> (u8, u16) {
        (self.sources.second, self.sources.port)
    }

    /// Connects from a row that says what `shown` says of it.
    pub(crate) async fn connect(
        self: &Arc<Self>,
        to: SocketAddrV4,
        shown: impl Fn(u16) -> Row,
    ) -> io::Result<(TcpStream, Taken)> {
        for _ in 0..TRIES {
            let taken = self.take(to)?;
            let row = taken.row;
            self.write(row, shown(row))?;
            match self.connect_from(row, to).await {
                // Its last connection is still in TIME_WAIT.
                Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {}
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
    fn take(self: &Arc<Self>, to: SocketAddrV4) -> io::Result<Taken> {
        for _ in 0..ROWS {
            let (taken, before) = {
                let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
                let Some((row, before)) = rows.next(to) else { continue };
                (Taken { table: Arc::clone(self), row }, before)
            };
            match before {
                Some(before) if self.is_known(before, taken.row) => {
                    // What it must be asked about is still the one before.
                    self.rows(|rows| rows.used[usize::from(taken.row)].to = Some(before));
                }
                _ => return Ok(taken),
            }
        }
        Err(io::ErrorKind::AddrInUse.into())
    }

    /// Whether the kernel knows the program's end of the last connection of this row. No answer is as good
    /// as yes.
    fn is_known(&self, to: SocketAddrV4, row: u16) -> bool {
        let answer = sock_diag::accepted(to.into(), self.sources.address(row).into());
        !answer.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    }

    fn write(&self, row: u16, shown: Row) -> io::Result<()> {
        let mut bytes = [0; LENGTH];
        for (to, word) in bytes.chunks_exact_mut(4).zip(shown.encode(row)) {
            to.copy_from_slice(&word.to_ne_bytes());
        }
        self.file.write_all_at(&bytes, (usize::from(row) * LENGTH) as u64)
    }

    fn rows<T>(&self, deed: impl FnOnce(&mut Rows) -> T) -> T {
        deed(&mut self.rows.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Rows {
    /// The next one, if it is free here, and where its last connection went. The port that a client is
    /// shown with may be the row's number: so there is no row 0.
    fn next(&mut self, to: SocketAddrV4) -> Option<(u16, Option<SocketAddrV4>)> {
        self.last = self.last.checked_add(1).unwrap_or(1);
        let at = usize::from(self.last);
        if self.used.len() <= at {
            self.used.resize(at + 1, Use { is_open: false, to: None });
        }
        let row = &mut self.used[at];
        if row.is_open {
            return None;
        }
        let before = row.to.replace(to);
        row.is_open = true;
        Some((self.last, before))
    }
}

impl Taken {
    /// Keeps a connection that is over until its program has accepted it, or closed its listener; its row too.
    pub(crate) fn keep(self, connection: impl Send + 'static, to: SocketAddr) {
        let Ok(permit) = Arc::clone(&self.table.kept).try_acquire_owned() else {
            // It is nobody's from now on.
            std::mem::forget(self);
            return;
        };
        tokio::spawn(async move {
            let ours = self.table.sources.address(self.row).into();
            let mut wait = SOON;
            loop {
                match sock_diag::accepted(to, ours) {
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

impl Drop for Taken {
    fn drop(&mut self) {
        self.table.rows(|rows| rows.used[usize::from(self.row)].is_open = false);
    }
}

impl Drop for ClientTable {
    fn drop(&mut self) {
        // Whoever is left running takes nobody else for a client of ours.
        let _ = self.file.write_all_at(&vec![0; ROWS * LENGTH], 0);
    }
}
