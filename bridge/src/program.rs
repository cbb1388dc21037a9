//! The gate to the wrapped program: how a session gets its connection to the program, which comes and goes, and may
//! serve one connection at a time. Clients are held while the program does not listen, and are let through one by one
//! if the program is started again after its end.
//!
//! Knows what it takes until a session has its connection, and nothing of clients.

mod saved;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{Notify, Semaphore, SemaphorePermit, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::client_address::{RowGuard, Way};
use crate::demand::Counter;
use crate::error_text::error_text;
use crate::leg::Leg;
use crate::net::Socket;
use crate::pause::Pause;
use crate::shutdown::{Shutdown, ShutdownWatch};
use crate::sock_diag;
use crate::unreachable::Unreachable;
pub(crate) use saved::{SavedHold, SavedTrial};

/// How long a connection attempt may still take when held clients are closed: the program may have accepted the
/// connection before its end, and we have not heard of that yet.
const UNDER_WAY: Duration = Duration::from_millis(50);

/// How long to wait before the next attempt after the program has refused a connection, if its readiness does not
/// change.
const RETRY: Duration = Duration::from_millis(100);

/// How long to wait before each time the kernel is asked whether a connection has been accepted. If the program takes
/// longer than all of them together (it is busy, or just slow), we assume that it will accept in the end: the clients
/// in the queue behind this one must not wait for it.
const ACCEPT_CHECKS: [Duration; 6] = [
    Duration::ZERO,
    Duration::from_millis(1),
    Duration::from_millis(3),
    Duration::from_millis(9),
    Duration::from_millis(27),
    Duration::from_millis(81),
];

/// The wrapped program as its sessions see it.
#[derive(Debug)]
pub struct Program {
    /// Whether the program can be connected to now. If the sender is dropped, that means [`Readiness::Gone`].
    pub readiness: watch::Receiver<Readiness>,
    /// How long a client is held while the program cannot be connected to.
    pub hold: Duration,
    /// Whether another instance will follow this one (respawn): then clients that find the program busy or gone are
    /// held, one is let through at a time, and a connection that the program never accepted is tried again.
    pub respawns: bool,
    /// Notified when a connection was refused, or reset before it carried a byte: the program's listener may be gone.
    pub recheck: Arc<Notify>,
    /// Sessions that the program accepted, since the start.
    pub served: Arc<AtomicU64>,
    /// Counts the sessions that go to the program, and those of them that wait for their connection.
    pub visitors: Counter,
}

/// Whether the wrapped program can be connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// Not now; later. Clients are held.
    Waiting,
    /// It listens here.
    Ready(SocketAddr),
    /// It could not be started; that may be tried again. Clients get 1011 at once.
    Failed,
    /// It has ended and will not come back. Clients get 1011 at once.
    Gone,
}

/// A connection to the program on trial: only when it carries a byte is it certain that the program has accepted it.
pub(crate) struct Trial {
    /// The counter to be raised at the first byte; none if the session is counted already.
    served: Option<Arc<AtomicU64>>,
    /// Whether the program is known to have accepted the connection.
    is_accepted: bool,
    /// The row of the client table that tells the program which client the connection is from.
    row: Option<RowGuard>,
}

impl Trial {
    /// The session is over. If the program may still have to accept the connection, the connection is kept open, and
    /// its row still names this client.
    pub(crate) fn end(mut self, connection: Leg) {
        let Some(row) = self.row.take() else { return };
        let Some(ends) = connection.tcp_ends() else { return };
        if self.may_be_queued() && !self.is_gone(ends) && self.may_be_queued() {
            row.keep(connection, ends.1);
        }
    }

    /// A byte has come from the program, the first one or a later one.
    pub(crate) fn count(&mut self) {
        self.is_accepted = true;
        if let Some(served) = self.served.take() {
            served.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether the connection may still be in the program's accept queue.
    pub(crate) fn may_be_queued(&self) -> bool {
        !self.is_accepted
    }

    /// Whether the program's end of the connection is gone without notice. When a listener is closed, the kernel resets
    /// the connections in its accept queue, each by one packet: that packet may be lost if too many packets wait
    /// (`net.core.netdev_max_backlog`). A TCP handshake that ends at that moment gets no reset at all.
    pub(crate) fn is_gone(&mut self, (ours, program): (SocketAddr, SocketAddr)) -> bool {
        match sock_diag::accepted(program, ours) {
            Ok(is_accepted) => {
                self.is_accepted = is_accepted;
                false
            }
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
    }
}

/// What a client has left of the time that it may be held.
pub(crate) struct Hold {
    left: Duration,
    /// When that time is over; set while the client waits.
    until: Option<Instant>,
    /// Whether the client had a connection to the program, and lost it.
    has_lost: bool,
}

/// The gate to the program, through which all its sessions connect.
#[derive(Debug)]
pub struct Gate {
    program: Program,
    /// One client at a time is let through to a program that serves one connection and then ends; the others queue
    /// here, first come first served.
    queue: Semaphore,
    /// When the program has accepted a client last. A client that is queued then has its whole time anew: the program
    /// is at work, and `telnetd -debug` alone takes four seconds a session.
    last_accept: Mutex<Option<Instant>>,
}

impl From<Program> for Gate {
    fn from(program: Program) -> Self {
        Self { program, queue: Semaphore::new(1), last_accept: Mutex::new(None) }
    }
}

impl Gate {
    /// Where the program listens, if it does now.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        match *self.program.readiness.borrow() {
            Readiness::Ready(address) => Some(address),
            Readiness::Waiting | Readiness::Failed | Readiness::Gone => None,
        }
    }

    /// The counter of the program's sessions.
    pub(crate) fn visitors(&self) -> &Counter {
        &self.program.visitors
    }

    /// The time that a new client may be held.
    pub(crate) fn hold(&self) -> Hold {
        Hold { left: self.program.hold, until: None, has_lost: false }
    }

    /// Notes that a connection was lost before it carried a byte.
    pub(crate) fn lost(&self, hold: &mut Hold) {
        hold.has_lost = true;
        self.program.recheck.notify_one();
    }

    /// Connects as soon as the program can be connected to. The time until the program accepts is taken from `hold`,
    /// but not the time that other clients' turns take.
    pub(crate) async fn connect(
        &self,
        way: &Way<'_>,
        mut shutdown: ShutdownWatch,
        hold: &mut Hold,
    ) -> Result<(Socket, Trial), Unreachable> {
        let _waiting = self.program.visitors.wait();
        let has_lost = hold.has_lost;
        let began = hold.until.unwrap_or_else(|| Instant::now() + hold.left);
        // It is in `hold` during the wait, so that a hand-over that stops the wait can save it (O2).
        let deadline = hold.until.insert(began);
        let pause = Arc::clone(&shutdown.pause);
        let connected = {
            let mut connected = pin!(self.connect_until(way, deadline, has_lost, &pause));
            tokio::select! {
                biased;
                connected = &mut connected => connected,
                () = shutdown.at_least(Shutdown::Drain) => {
                    let late = timeout(UNDER_WAY, connected).await;
                    let is_over = shutdown.has_reached(Shutdown::Finish);
                    let why = if is_over { Unreachable::ShuttingDown } else { Unreachable::Draining };
                    late.unwrap_or(Err(why))
                }
            }
        };
        let until = hold.until.take().unwrap_or(began);
        hold.left = until.saturating_duration_since(Instant::now());
        connected.map(|(stream, trial)| (stream.into(), trial))
    }

    async fn connect_until(
        &self,
        way: &Way<'_>,
        deadline: &mut Instant,
        has_lost: bool,
        pause: &Arc<Pause>,
    ) -> Result<(TcpStream, Trial), Unreachable> {
        if self.program.respawns {
            self.connect_in_turn(way, deadline, pause).await
        } else {
            connect_at_once(&self.program, way, *deadline, has_lost, pause).await
        }
    }

    /// For a program that will be started again: queues, and tries until the program accepts.
    async fn connect_in_turn(
        &self,
        way: &Way<'_>,
        deadline: &mut Instant,
        pause: &Arc<Pause>,
    ) -> Result<(TcpStream, Trial), Unreachable> {
        let program = &self.program;
        let _turn = self.turn(deadline).await?;
        let deadline = *deadline;
        let mut readiness = program.readiness.clone();
        loop {
            let addr = ready(&mut readiness, program, deadline).await?;
            let under_way = pause.set_out();
            if let Ok((stream, row)) = way.to_program(addr).await
                && let Some(acceptance) = acceptance(&stream, addr).await
            {
                *self.last_accept() = Some(Instant::now());
                return Ok((stream, program.trial(acceptance, row)));
            }
            drop(under_way);
            wait_to_retry(&mut readiness, program, deadline).await?;
        }
    }

    /// Queues until it is this client's turn. Each time the program accepts another client, the deadline is put off.
    async fn turn(&self, deadline: &mut Instant) -> Result<SemaphorePermit<'_>, Unreachable> {
        let hold = self.program.hold;
        let began = Instant::now();
        // One future for all rounds: a new one would queue at the end.
        let mut turn = pin!(self.queue.acquire());
        loop {
            let turn = timeout_at(*deadline, turn.as_mut()).await;
            let last_accept = self.last_accept().filter(|accept| *accept > began);
            let put_off = last_accept.map_or(*deadline, |accept| accept + hold);
            match turn {
                Ok(turn) => {
                    *deadline = put_off.max(*deadline);
                    return turn.map_err(|_| Unreachable::Gone);
                }
                Err(_) if put_off > *deadline => *deadline = put_off,
                Err(_) => return Err(Unreachable::NotListening(hold)),
            }
        }
    }

    fn last_accept(&self) -> MutexGuard<'_, Option<Instant>> {
        self.last_accept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Program {
    /// The trial of a connection of which nothing is known yet.
    fn untried(&self, row: Option<RowGuard>) -> Trial {
        Trial { served: Some(Arc::clone(&self.served)), is_accepted: false, row }
    }

    /// The trial of a connection that was accepted, or is assumed to be accepted in the end.
    fn trial(&self, acceptance: Acceptance, row: Option<RowGuard>) -> Trial {
        match acceptance {
            Acceptance::Accepted => {
                self.served.fetch_add(1, Ordering::Relaxed);
                Trial { served: None, is_accepted: true, row }
            }
            Acceptance::Queued => self.untried(row),
        }
    }
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("program")
    }
}

/// For a program that will not be started again: connects whenever it listens. The program may listen now and then, for
/// one client at a time; as long as it lives, the other clients wait. A client that has lost a connection to it waits a
/// little first.
async fn connect_at_once(
    program: &Program,
    way: &Way<'_>,
    deadline: Instant,
    mut has_lost: bool,
    pause: &Arc<Pause>,
) -> Result<(TcpStream, Trial), Unreachable> {
    let mut readiness = program.readiness.clone();
    loop {
        let addr = ready(&mut readiness, program, deadline).await?;
        if !std::mem::take(&mut has_lost) {
            let _under_way = pause.set_out();
            match way.to_program(addr).await {
                Ok((stream, row)) => return Ok((stream, program.untried(row))),
                Err(error) if is_absence(&error) => {}
                Err(error) => {
                    program.recheck.notify_one();
                    return Err(Unreachable::Connect(addr.to_string(), error_text(&error)));
                }
            }
        }
        wait_to_retry(&mut readiness, program, deadline).await?;
    }
}

/// Whether the error means that nothing listens, or not any more: a connection in the accept queue is reset when its
/// listener is closed, perhaps before we have looked at the connection. If the connection was shut down before, the
/// reset is reported as EPIPE.
fn is_absence(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotConnected};
    matches!(error.kind(), BrokenPipe | ConnectionRefused | ConnectionReset | NotConnected)
}

/// Reports that the program may not listen any more, and waits until its readiness changes, but no longer than `RETRY`.
async fn wait_to_retry(
    readiness: &mut watch::Receiver<Readiness>,
    program: &Program,
    deadline: Instant,
) -> Result<(), Unreachable> {
    program.recheck.notify_one();
    let retry = Instant::now() + RETRY;
    if retry > deadline {
        return Err(Unreachable::NotListening(program.hold));
    }
    let _ = timeout_at(retry, readiness.changed()).await;
    Ok(())
}

/// Waits until the program listens and says where.
async fn ready(
    readiness: &mut watch::Receiver<Readiness>,
    program: &Program,
    deadline: Instant,
) -> Result<SocketAddr, Unreachable> {
    let known = readiness.wait_for(|readiness| *readiness != Readiness::Waiting);
    let known = match timeout_at(deadline, known).await {
        Ok(Ok(known)) => known.clone(),
        Ok(Err(_)) => Readiness::Gone,
        Err(_) => Readiness::Waiting,
    };
    match known {
        // The sender is dropped: nothing would tell us of the program's end.
        Readiness::Ready(_) if readiness.has_changed().is_err() => Err(Unreachable::Gone),
        Readiness::Ready(addr) => Ok(addr),
        Readiness::Waiting => Err(Unreachable::NotListening(program.hold)),
        Readiness::Failed => Err(Unreachable::NotStarted),
        Readiness::Gone => Err(Unreachable::Gone),
    }
}

/// What is known of a new connection.
#[derive(Debug, Clone, Copy)]
enum Acceptance {
    /// The program has accepted it.
    Accepted,
    /// It is still in the accept queue.
    Queued,
}

/// Watches a new connection until it is known to be accepted, or assumed to be. `None`: it was reset, as the kernel
/// does with the connections in the accept queue when a listener is closed.
async fn acceptance(stream: &TcpStream, target: SocketAddr) -> Option<Acceptance> {
    let mut first = [0];
    tokio::select! {
        biased;
        // Bytes, or an orderly end: neither comes from a connection that is still in the accept queue.
        peeked = stream.peek(&mut first) => peeked.ok().map(|_| Acceptance::Accepted),
        acceptance = ask_kernel(stream, target) => Some(acceptance),
    }
}

async fn ask_kernel(stream: &TcpStream, target: SocketAddr) -> Acceptance {
    for wait in ACCEPT_CHECKS {
        if !wait.is_zero() {
            sleep(wait).await;
        }
        // If the kernel does not answer, that counts as "not yet": the connection itself will tell.
        let answer = stream.local_addr().and_then(|ours| sock_diag::accepted(target, ours));
        if answer.unwrap_or(false) {
            return Acceptance::Accepted;
        }
    }
    Acceptance::Queued
}
