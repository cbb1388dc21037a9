//! Reaching the target: an address, or a program that comes and goes.
//!
//! Knows what it takes until a session has its connection, and nothing of clients but that they
//! must be attended to meanwhile.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::warn;

use crate::client::Client;
use crate::config::{self, Address, Config, Program, Readiness, Shutdown};
use crate::lookup::Lookups;
use crate::order::Orders;
use crate::race;
use crate::sock_diag;
use crate::stream::tune;
use crate::words::words;

/// How long one address may take to be connected to.
const CONNECT: Duration = Duration::from_secs(10);

/// How long a connection may still take when held clients are closed: the program may have accepted it
/// before its end, and we have not heard yet.
const UNDER_WAY: Duration = Duration::from_millis(50);

/// How long a program that refused is left alone if nothing is heard of it.
const RETRY: Duration = Duration::from_millis(100);

/// When the kernel is asked whether a connection has been accepted, counted from the answer
/// before. A program that takes longer than all of them together (it is busy, or just slow) is
/// taken to accept in the end: the clients behind this one must not wait for it.
const LOOKUPS: [Duration; 6] = [
    Duration::ZERO,
    Duration::from_millis(1),
    Duration::from_millis(3),
    Duration::from_millis(9),
    Duration::from_millis(27),
    Duration::from_millis(81),
];

/// A connection to the target.
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    /// To be counted up at the first byte, if the session is not counted already.
    pub(crate) served: Option<Arc<AtomicU64>>,
    /// Whether the client may get another one if this one is reset before it carried a byte.
    pub(crate) may_be_lost: bool,
}

/// Why a client gets no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreachable {
    /// Where to, and why not.
    #[error("cannot connect to {0}: {1}")]
    Connect(String, String),
    #[error("program did not listen within {} s", .0.as_secs_f64())]
    NotListening(Duration),
    #[error("program has ended")]
    Gone,
    #[error("shutting down")]
    Draining,
}

impl Unreachable {
    /// Logs what whoever runs us should look into, and gives what the client hears of it, which is not
    /// where the target is.
    pub(crate) fn tell(&self) -> String {
        match self {
            Self::Connect(_, why) => {
                warn!("{self}");
                format!("target cannot be reached: {why}")
            }
            why => why.to_string(),
        }
    }
}

/// What a client has left of the time that it may be held.
pub(crate) struct Hold {
    left: Duration,
    /// It had a connection to the program, and lost it.
    has_lost: bool,
}

/// How the wait for a connection ended.
pub(crate) enum Reached {
    Target(Connection),
    Nothing(Unreachable),
    /// The client's input ended first, and left nothing to be delivered.
    ClientEnded,
    /// [`Shutdown::Now`] came first.
    Shutdown,
}

/// The target of a bridge.
pub(crate) struct Target {
    config: Arc<Config>,
    /// One client at a time goes to a program that serves one connection and then ends; the others
    /// queue here, first come first served.
    gate: Semaphore,
    /// When the last client was let in. Whoever queues behind it has its time anew: the program is
    /// at work, and `telnetd -debug` alone takes four seconds a session.
    let_in: Mutex<Option<Instant>>,
    lookups: Lookups,
}

impl Target {
    pub(crate) fn new(config: Arc<Config>) -> Self {
        let lookups = Lookups::new();
        Self { config, gate: Semaphore::new(1), let_in: Mutex::new(None), lookups }
    }

    /// How long a client may be held in all.
    pub(crate) fn hold(&self) -> Hold {
        let left = match &self.config.target {
            config::Target::Address(_) => Duration::ZERO,
            config::Target::Program(program) => program.hold,
        };
        Hold { left, has_lost: false }
    }

    /// Says that a connection was lost before it carried a byte.
    pub(crate) fn doubt(&self, hold: &mut Hold) {
        hold.has_lost = true;
        if let config::Target::Program(program) = &self.config.target {
            program.doubt.notify_one();
        }
    }

    /// Connects, and attends to the client meanwhile. `hold` is what the client has left of its
    /// time; it is charged for the time until the target accepts, but not for the turns of others.
    pub(crate) async fn reach(
        &self,
        client: &mut Client,
        orders: &mut Orders,
        hold: &mut Hold,
    ) -> Reached {
        let mut deadline = Instant::now() + hold.left;
        let orders_for_hold = orders.clone();
        let reached = tokio::select! {
            biased;
            () = orders.at_least(Shutdown::Now) => Reached::Shutdown,
            () = poll_fn(|cx| client.poll_hold(cx)) => Reached::ClientEnded,
            reached = self.connect(orders_for_hold, &mut deadline, hold.has_lost) => match reached {
                Ok(connection) => Reached::Target(connection),
                Err(why) => Reached::Nothing(why),
            },
        };
        hold.left = deadline.saturating_duration_since(Instant::now());
        reached
    }

    async fn connect(
        &self,
        mut orders: Orders,
        deadline: &mut Instant,
        has_lost: bool,
    ) -> Result<Connection, Unreachable> {
        match &self.config.target {
            config::Target::Address(address) => self.connect_address(address).await,
            config::Target::Program(program) => {
                let mut connected = pin!(self.connect_program(program, deadline, has_lost));
                tokio::select! {
                    biased;
                    connected = &mut connected => connected,
                    () = orders.at_least(Shutdown::Drain) => {
                        let late = timeout(UNDER_WAY, connected).await;
                        late.unwrap_or(Err(Unreachable::Draining))
                    }
                }
            }
        }
    }

    async fn connect_program(
        &self,
        program: &Program,
        deadline: &mut Instant,
        has_lost: bool,
    ) -> Result<Connection, Unreachable> {
        if program.respawns {
            self.connect_in_turn(program, deadline).await
        } else {
            connect_at_once(program, *deadline, has_lost).await
        }
    }

    async fn connect_address(&self, address: &Address) -> Result<Connection, Unreachable> {
        let failed = |why| Unreachable::Connect(address.to_string(), why);
        let addrs = self.lookups.resolve(&address.host, address.port).await.map_err(failed)?;
        let stream = race::first(&addrs, connect).await.map_err(|error| failed(words(&error)))?;
        Ok(Connection { stream, served: None, may_be_lost: false })
    }

    /// To a program that will be started again: queues, and tries until it is let in.
    async fn connect_in_turn(
        &self,
        program: &Program,
        deadline: &mut Instant,
    ) -> Result<Connection, Unreachable> {
        let _turn = self.turn(program, deadline).await?;
        let deadline = *deadline;
        let mut readiness = program.readiness.clone();
        loop {
            let addr = ready(&mut readiness, program, deadline).await?;
            if let Ok(stream) = connect(addr).await
                && let Some(verdict) = probation(&stream, addr).await
            {
                *self.let_in() = Some(Instant::now());
                return Ok(admitted(stream, program, &verdict));
            }
            rest(&mut readiness, program, deadline).await?;
        }
    }

    /// Queues until it is this client's turn, and puts its deadline off with each turn of others.
    async fn turn(
        &self,
        program: &Program,
        deadline: &mut Instant,
    ) -> Result<SemaphorePermit<'_>, Unreachable> {
        let began = Instant::now();
        // One future for all rounds: a new one would queue at the end.
        let mut turn = pin!(self.gate.acquire());
        loop {
            let turn = timeout_at(*deadline, turn.as_mut()).await;
            let let_in = self.let_in().filter(|let_in| *let_in > began);
            let put_off = let_in.map_or(*deadline, |let_in| let_in + program.hold);
            match turn {
                Ok(turn) => {
                    *deadline = put_off.max(*deadline);
                    return turn.map_err(|_| Unreachable::Gone);
                }
                Err(_) if put_off > *deadline => *deadline = put_off,
                Err(_) => return Err(Unreachable::NotListening(program.hold)),
            }
        }
    }

    fn let_in(&self) -> MutexGuard<'_, Option<Instant>> {
        self.let_in.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that has passed its probation.
fn admitted(stream: TcpStream, program: &Program, verdict: &Verdict) -> Connection {
    let served = match verdict {
        Verdict::Accepted => {
            program.served.fetch_add(1, Ordering::Relaxed);
            None
        }
        Verdict::Queued => Some(Arc::clone(&program.served)),
    };
    Connection { stream, served, may_be_lost: true }
}

/// To a program that will not be started again: whenever it listens. It may do so now and then, one
/// client at a time; as long as it lives, the others wait. Who has lost a connection to it rests first.
async fn connect_at_once(
    program: &Program,
    deadline: Instant,
    mut has_lost: bool,
) -> Result<Connection, Unreachable> {
    let mut readiness = program.readiness.clone();
    loop {
        let addr = ready(&mut readiness, program, deadline).await?;
        if !std::mem::take(&mut has_lost) {
            match connect(addr).await {
                Ok(stream) => {
                    let served = Some(Arc::clone(&program.served));
                    return Ok(Connection { stream, served, may_be_lost: true });
                }
                Err(error) if is_absence(&error) => {}
                Err(error) => {
                    program.doubt.notify_one();
                    return Err(Unreachable::Connect(addr.to_string(), words(&error)));
                }
            }
        }
        rest(&mut readiness, program, deadline).await?;
    }
}

/// Whether nobody listens, or not any more: a connection that waits in the queue is reset when its
/// listener is closed, and may be before we have looked at it. If it was shut down before, EPIPE says so.
fn is_absence(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotConnected};
    matches!(error.kind(), BrokenPipe | ConnectionRefused | ConnectionReset | NotConnected)
}

/// Says that the program may not listen any more, and leaves it alone until something is heard of it,
/// though not for long.
async fn rest(
    readiness: &mut watch::Receiver<Readiness>,
    program: &Program,
    deadline: Instant,
) -> Result<(), Unreachable> {
    program.doubt.notify_one();
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
        // Nobody is left who would tell us of its end.
        Readiness::Ready(_) if readiness.has_changed().is_err() => Err(Unreachable::Gone),
        Readiness::Ready(addr) => Ok(addr),
        Readiness::Waiting => Err(Unreachable::NotListening(program.hold)),
        Readiness::Gone => Err(Unreachable::Gone),
    }
}

/// How a connection passed its probation.
enum Verdict {
    /// The program has it.
    Accepted,
    /// It is still in the accept queue.
    Queued,
}

/// Watches a new connection until it is known to be accepted, or taken to be. `None`: it was
/// reset, as the kernel does with what is left in the queue when a listener is closed.
async fn probation(stream: &TcpStream, target: SocketAddr) -> Option<Verdict> {
    let mut first = [0];
    tokio::select! {
        biased;
        // Bytes, or an orderly end: neither comes from a queue.
        peeked = stream.peek(&mut first) => peeked.ok().map(|_| Verdict::Accepted),
        verdict = ask_kernel(stream, target) => Some(verdict),
    }
}

async fn ask_kernel(stream: &TcpStream, target: SocketAddr) -> Verdict {
    for wait in LOOKUPS {
        if !wait.is_zero() {
            sleep(wait).await;
        }
        // No answer is as good as "not yet": the connection itself will tell.
        let answer = stream.local_addr().and_then(|ours| sock_diag::accepted(target, ours));
        if answer.unwrap_or(false) {
            return Verdict::Accepted;
        }
    }
    Verdict::Queued
}

async fn connect(addr: SocketAddr) -> io::Result<TcpStream> {
    let stream = timeout(CONNECT, TcpStream::connect(addr)).await??;
    // Where nobody listens on a local port of the ephemeral range, the kernel may choose that same
    // port for our end, and TCP connects the socket to itself.
    if stream.local_addr()? == stream.peer_addr()? {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    tune(&stream)?;
    Ok(stream)
}
