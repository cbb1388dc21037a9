//! The work that proxies are given, every byte of it checked.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use tokio::runtime::Handle;
use tokio::sync::Barrier;
use tokio::task::JoinHandle;

use crate::pattern::{self, Check};
use crate::peer::Peer;
use crate::target::{Command, GOOD};
use crate::wire::{self, Connection, Route};

/// The length of an echoed message, bytes.
const MESSAGE: usize = 64;

/// How many connections are made at the same time.
const CONNECTING: usize = 8;

/// How long a proxy has after the last byte to finish its own work.
const SETTLE: Duration = Duration::from_millis(20);

/// What was measured of one run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sample {
    /// CPU time of the proxy's whole tree.
    pub(crate) cpu: Duration,
    pub(crate) wall: Duration,
    /// Bytes, messages, frames or connections, as the work has it.
    pub(crate) units: u64,
    /// How long each message took, ascending, where messages were answered.
    pub(crate) latencies: Vec<Duration>,
}

impl Sample {
    /// CPU time of a unit.
    pub(crate) fn cost(&self) -> f64 {
        self.cpu.as_secs_f64() / self.units as f64
    }

    /// Units per second.
    pub(crate) fn rate(&self) -> f64 {
        self.units as f64 / self.wall.as_secs_f64()
    }

    /// The latency that this share of all messages stayed below.
    pub(crate) fn percentile(&self, share: f64) -> Option<Duration> {
        let last = self.latencies.len().checked_sub(1)?;
        self.latencies.get((share * last as f64).round() as usize).copied()
    }
}

/// The threads of the load. Small messages have one of their own, so that the load itself does not
/// hold them up behind bulk.
pub(crate) struct Load {
    pub(crate) quick: Handle,
    pub(crate) bulk: Handle,
}

impl Load {
    /// The target sends `bytes` in all to so many sessions.
    pub(crate) async fn down(&self, peer: &Peer, sessions: u64, bytes: u64) -> Result<Sample> {
        let share = bytes / sessions;
        let all = open(&peer.route, sessions).await?;
        let meter = Meter::start(peer)?;
        let tasks = all.into_iter().zip(0..).map(|(connection, number)| {
            let size = (256 * 1024 / sessions).max(64 * 1024);
            self.bulk.spawn(receive(connection, number, share, size as usize))
        });
        let all = join(tasks).await?;
        let sample = meter.stop(share * sessions, vec![]).await?;
        close(all).await?;
        Ok(sample)
    }

    /// A session sends `bytes`, in frames of `frame` bytes, `batch` bytes a write.
    pub(crate) async fn up(
        &self,
        peer: &Peer,
        frame: usize,
        batch: Batch,
        bytes: u64,
    ) -> Result<Sample> {
        let bytes = bytes.next_multiple_of(pattern::PERIOD as u64);
        let stream = Arc::new(wire::stream(peer.route.wire, frame));
        let batch = match batch {
            Batch::Frame => stream.len() / (pattern::PERIOD / frame),
            Batch::Bytes(batch) => batch,
        };
        let connection = Connection::open(&peer.route).await?;
        let meter = Meter::start(peer)?;
        let connection = self.bulk.spawn(send(connection, stream, batch, bytes)).await??;
        let sample = meter.stop(bytes, vec![]).await?;
        connection.close().await?;
        Ok(sample)
    }

    /// So many sessions each have a small message echoed, again and again, all at once.
    pub(crate) async fn echo(&self, peer: &Peer, sessions: u64, messages: u64) -> Result<Sample> {
        let share = messages / sessions;
        let mut all = open(&peer.route, sessions).await?;
        for connection in &mut all {
            connection.send(&Command::Echo.to_bytes()).await?;
        }
        let meter = Meter::start(peer)?;
        let tasks = all.into_iter().zip(0..);
        let tasks =
            tasks.map(|(connection, number)| self.quick.spawn(echo(connection, number, share)));
        let (all, latencies): (Vec<_>, Vec<_>) = join(tasks).await?.into_iter().unzip();
        let sample = meter.stop(share * sessions, latencies.concat()).await?;
        close(all).await?;
        Ok(sample)
    }

    /// Connections from the first byte to the last: handshake, one small message echoed, close.
    pub(crate) async fn connect(&self, peer: &Peer, connections: u64) -> Result<Sample> {
        let meter = Meter::start(peer)?;
        let share = connections / CONNECTING as u64;
        let tasks = (0..CONNECTING).map(|_| {
            let route = peer.route.clone();
            self.quick.spawn(async move {
                let mut latencies = Vec::new();
                for number in 0..share {
                    let began = Instant::now();
                    visit(&route, number).await.with_context(|| format!("connection {number}"))?;
                    latencies.push(began.elapsed());
                }
                Ok(latencies)
            })
        });
        let latencies = join(tasks).await?.concat();
        meter.stop(share * CONNECTING as u64, latencies).await
    }

    /// Small messages beside sessions that take all they can get.
    pub(crate) async fn echo_beside_bulk(
        &self,
        peer: &Peer,
        downloads: u64,
        messages: u64,
    ) -> Result<Sample> {
        let all = open(&peer.route, downloads).await?;
        // More bytes than the downloads will get: a download ends with its connection.
        let endless = 1 << 40;
        let tasks: Vec<_> = (all.into_iter().zip(0..))
            .map(|(connection, number)| {
                self.bulk.spawn(receive(connection, number, endless, 64 * 1024))
            })
            .collect();
        let sample = self.echo(peer, 1, messages).await;
        for task in &tasks {
            ensure!(!task.is_finished(), "a download has ended early");
            task.abort();
        }
        sample
    }

    /// So many sessions that do nothing.
    pub(crate) async fn idle(&self, peer: &Peer, sessions: u64) -> Result<Idle> {
        let mut idle = Idle { all: Vec::new(), before: peer.tree.memory()? };
        idle.grow(peer, sessions).await?;
        Ok(idle)
    }

    /// So many clients connect at the same moment, and every one is served.
    pub(crate) async fn rush(&self, peer: &Peer, clients: usize) -> Result<Sample> {
        let barrier = Arc::new(Barrier::new(clients));
        let meter = Meter::start(peer)?;
        let tasks = (0..clients as u64).map(|number| {
            let (route, barrier) = (peer.route.clone(), Arc::clone(&barrier));
            self.quick.spawn(async move {
                barrier.wait().await;
                let began = Instant::now();
                visit(&route, number).await?;
                Ok(began.elapsed())
            })
        });
        let latencies = join(tasks).await?;
        meter.stop(clients as u64, latencies).await
    }
}

/// How much a client writes at once.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Batch {
    /// A frame, as a browser does.
    Frame,
    /// So many bytes, whatever frames they are.
    Bytes(usize),
}

/// Idle sessions.
pub(crate) struct Idle {
    all: Vec<Connection>,
    before: u64,
}

impl Idle {
    /// Opens sessions until there are so many.
    pub(crate) async fn grow(&mut self, peer: &Peer, sessions: u64) -> Result<()> {
        self.all.extend(open(&peer.route, sessions - self.all.len() as u64).await?);
        tokio::time::sleep(SETTLE).await;
        Ok(())
    }

    /// The proxy's memory for each session, bytes.
    pub(crate) fn memory(&self, peer: &Peer) -> Result<f64> {
        let now = peer.tree.memory()?;
        Ok(now.saturating_sub(self.before) as f64 / self.all.len() as f64)
    }

    /// CPU time of the proxy in `time`.
    pub(crate) async fn cpu(&self, peer: &Peer, time: Duration) -> Result<Duration> {
        let meter = Meter::start(peer)?;
        tokio::time::sleep(time).await;
        Ok(meter.stop(1, vec![]).await?.cpu)
    }

    /// Has every session in turn echo so many bytes.
    pub(crate) async fn exercise(&mut self, bytes: u64) -> Result<()> {
        for (connection, number) in self.all.iter_mut().zip(0..) {
            connection.send(&Command::Echo.to_bytes()).await?;
            let mut check = Check::new(number, bytes);
            let mut position = number;
            let end = number + bytes;
            let mut buffer = [0; 16 * 1024];
            while position < end {
                let length = (end - position).min(10_000);
                connection.send(pattern::slice(position, length as usize)).await?;
                position += length;
                while check.left > end - position {
                    ensure!(
                        connection.receive(&mut buffer, |piece| check.take(piece)).await?,
                        "ended early"
                    );
                }
            }
        }
        tokio::time::sleep(SETTLE).await;
        Ok(())
    }

    pub(crate) async fn end(self) -> Result<()> {
        close(self.all).await
    }
}

/// A measurement of CPU time and of the clock, from one moment to another.
struct Meter<'a> {
    peer: &'a Peer,
    cpu: Duration,
    began: Instant,
}

impl<'a> Meter<'a> {
    fn start(peer: &'a Peer) -> Result<Self> {
        Ok(Self { peer, cpu: peer.tree.cpu()?, began: Instant::now() })
    }

    async fn stop(self, units: u64, mut latencies: Vec<Duration>) -> Result<Sample> {
        let wall = self.began.elapsed();
        tokio::time::sleep(SETTLE).await;
        latencies.sort_unstable();
        let cpu = self.peer.tree.cpu()?.saturating_sub(self.cpu);
        Ok(Sample { cpu, wall, units, latencies })
    }
}

async fn open(route: &Route, sessions: u64) -> Result<Vec<Connection>> {
    let mut all = Vec::new();
    while (all.len() as u64) < sessions {
        let missing = (sessions - all.len() as u64).min(64);
        all.extend(try_join_all((0..missing).map(|_| Connection::open(route))).await?);
    }
    Ok(all)
}

async fn close(mut all: Vec<Connection>) -> Result<()> {
    while !all.is_empty() {
        let some = all.split_off(all.len().saturating_sub(64));
        try_join_all(some.into_iter().map(Connection::close)).await?;
    }
    Ok(())
}

async fn join<T>(tasks: impl Iterator<Item = JoinHandle<Result<T>>>) -> Result<Vec<T>> {
    // The first task that fails ends the wait for the others.
    try_join_all(tasks.map(|task| async { task.await? })).await
}

async fn receive(
    mut connection: Connection,
    number: u64,
    length: u64,
    size: usize,
) -> Result<Connection> {
    let position = number * 4099;
    connection.send(&Command::Send { position, length }.to_bytes()).await?;
    let mut check = Check::new(position, length);
    let mut buffer = vec![0; size];
    while check.left > 0 {
        let goes_on = connection.receive(&mut buffer, |piece| check.take(piece)).await?;
        ensure!(goes_on || check.left == 0, "{} bytes too few", check.left);
    }
    Ok(connection)
}

async fn send(
    mut connection: Connection,
    stream: Arc<Vec<u8>>,
    batch: usize,
    length: u64,
) -> Result<Connection> {
    connection.send(&Command::Take { position: 0, length }.to_bytes()).await?;
    for _ in 0..length / pattern::PERIOD as u64 {
        for piece in stream.chunks(batch) {
            connection.send_stream(piece).await?;
        }
    }
    let mut answer = None;
    while answer.is_none() {
        let note = |piece: &[u8]| {
            answer = piece.first().copied();
            Ok(())
        };
        ensure!(connection.receive(&mut [0; 64], note).await?, "ended without an answer");
    }
    ensure!(answer == Some(GOOD), "the target did not get what was sent");
    Ok(connection)
}

async fn echo(
    mut connection: Connection,
    number: u64,
    messages: u64,
) -> Result<(Connection, Vec<Duration>)> {
    let mut latencies = Vec::with_capacity(messages as usize);
    let mut buffer = [0; 4096];
    for message in 0..messages {
        let position = number * 4099 + message * MESSAGE as u64;
        let began = Instant::now();
        connection.send(pattern::slice(position, MESSAGE)).await?;
        let mut check = Check::new(position, MESSAGE as u64);
        while check.left > 0 {
            ensure!(
                connection.receive(&mut buffer, |piece| check.take(piece)).await?,
                "ended early"
            );
        }
        latencies.push(began.elapsed());
    }
    Ok((connection, latencies))
}

/// A whole short session.
async fn visit(route: &Route, number: u64) -> Result<()> {
    let mut connection = Connection::open(route).await?;
    let payload = pattern::slice(number * 61, MESSAGE);
    let message = [&Command::Echo.to_bytes()[..], payload].concat();
    connection.send(&message).await?;
    let mut check = Check::new(number * 61, MESSAGE as u64);
    let mut buffer = [0; 512];
    while check.left > 0 {
        ensure!(connection.receive(&mut buffer, |piece| check.take(piece)).await?, "ended early");
    }
    connection.close().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target;
    use crate::wire::Wire;
    use std::net::SocketAddr;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::timeout;

    /// What a relay does wrong, once it has passed on [`AFTER`] bytes.
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Fault {
        None,
        Flips,
        Swallows,
        Ends,
    }

    const AFTER: usize = 50_000;

    async fn relay(target: SocketAddr, fault: Fault) -> Route {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (client, _) = listener.accept().await.unwrap();
            let (from_client, to_client) = client.into_split();
            let (from_target, to_target) = TcpStream::connect(target).await.unwrap().into_split();
            tokio::join!(copy(from_client, to_target, fault), copy(from_target, to_client, fault));
        });
        Route { addr, wire: Wire::Raw, path: String::new(), tls: None }
    }

    async fn copy(
        mut from: tokio::net::tcp::OwnedReadHalf,
        mut to: tokio::net::tcp::OwnedWriteHalf,
        fault: Fault,
    ) {
        let mut passed = 0;
        let mut buffer = [0; 1000];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            let is_time = passed <= AFTER && AFTER < passed + length;
            passed += length;
            let bytes = match fault {
                Fault::Flips if is_time => {
                    buffer[0] ^= 4;
                    &buffer[..length]
                }
                Fault::Swallows if is_time => &buffer[1..length],
                Fault::Ends if is_time => return,
                _ => &buffer[..length],
            };
            if to.write_all(bytes).await.is_err() {
                return;
            }
        }
    }

    #[tokio::test]
    async fn a_fast_wrong_proxy_is_no_proxy() {
        let handle = Handle::current();
        let target = target::start(&handle, &handle).unwrap();
        let stream = Arc::new(wire::stream(Wire::Raw, 64));
        for fault in [Fault::None, Fault::Flips, Fault::Swallows, Fault::Ends] {
            let open = async || Connection::open(&relay(target, fault).await).await.unwrap();
            let is_good = |is_ok| assert_eq!(is_ok, fault == Fault::None, "{fault:?}");
            // Where bytes are missing at the end, the reader waits for them in vain.
            let patience = Duration::from_secs(2);
            let down = receive(open().await, 7, 100_000, 4096);
            is_good(timeout(patience, down).await.is_ok_and(|down| down.is_ok()));
            let up = send(open().await, Arc::clone(&stream), 9999, pattern::PERIOD as u64);
            is_good(timeout(patience, up).await.is_ok_and(|up| up.is_ok()));
            let mut connection = open().await;
            connection.send(&Command::Echo.to_bytes()).await.unwrap();
            let echo = echo(connection, 3, 2000);
            is_good(timeout(patience, echo).await.is_ok_and(|echo| echo.is_ok()));
        }
    }
}
