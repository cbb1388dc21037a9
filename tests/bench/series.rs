//! The measurements, in which the peers take turns.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use crate::figure::Figure;
use crate::load::{Batch, Load, Sample};
use crate::peer::{Files, Kind, Peer, Programs};
use crate::target;

/// The timeout of a single run.
const PATIENCE: Duration = Duration::from_secs(120);

/// What is measured of each peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub(crate) enum Work {
    Down,
    Up16k,
    Up64,
    Echo,
    Connect,
    DownTls,
}

/// How a figure is written.
pub(crate) struct Unit {
    /// How many of the measured units are one unit as it is written.
    pub(crate) per: f64,
    /// The unit of CPU time, and the factor by which seconds are multiplied for it.
    pub(crate) cost: (&'static str, f64),
    pub(crate) rate: &'static str,
}

impl Work {
    pub(crate) const ALL: [Self; 6] =
        [Self::Down, Self::Up16k, Self::Up64, Self::Echo, Self::Connect, Self::DownTls];

    /// Its name in the tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Down => "P1 bulk to the client",
            Self::Up16k => "P2 bulk from the client, 16 KiB frames",
            Self::Up64 => "P3 64-byte frames from the client",
            Self::Echo => "P4 64 bytes echoed, 16 sessions",
            Self::Connect => "P5 connect, handshake, one echo, close",
            Self::DownTls => "P7 bulk to the client, TLS",
        }
    }

    /// Its title in the picture.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Down => "To the client",
            Self::Up16k => "From the client",
            Self::Up64 => "From the client, 64-byte frames",
            Self::Echo => "64 bytes and back, 16 sessions",
            Self::Connect => "A session from 101 to close",
            Self::DownTls => "To the client over TLS",
        }
    }

    pub(crate) fn unit(self) -> Unit {
        let (per, cost, rate) = match self {
            Self::Down | Self::Up16k | Self::DownTls => (1e9, ("s/GB", 1.0), "GB/s"),
            Self::Up64 => (1.0, ("µs/frame", 1e6), "frames/s"),
            Self::Echo => (1.0, ("µs/message", 1e6), "messages/s"),
            Self::Connect => (1.0, ("µs/session", 1e6), "sessions/s"),
        };
        Unit { per, cost, rate }
    }

    pub(crate) fn kinds(self) -> &'static [Kind] {
        match self {
            Self::DownTls => &Kind::TLS,
            // Raw TCP has no frames.
            Self::Up64 => &[Kind::Ours, Kind::Websocat, Kind::Python],
            _ => &Kind::PLAIN,
        }
    }

    /// How much work a round is: a good half second's for a fast proxy, some seconds' for a slow one.
    fn amount(self, kind: Kind) -> u64 {
        let is_python = matches!(kind, Kind::Python | Kind::PythonTls);
        match self {
            Self::Down | Self::DownTls if is_python => 500_000_000,
            Self::Down | Self::DownTls => 1_500_000_000,
            Self::Up16k if is_python => 200_000_000,
            Self::Up16k => 1_500_000_000,
            Self::Up64 if is_python => 1 << 20,
            Self::Up64 if kind.is_ours() => 512 << 20,
            Self::Up64 => 64 << 20,
            Self::Echo if is_python => 8_000,
            Self::Echo => 24_000,
            Self::Connect if is_python => 120,
            Self::Connect if kind.forks() => 800,
            Self::Connect => 4000,
        }
    }

    /// How often the work is done in a round. The slowest hundredth of messages depends on what else the machine does
    /// just then: with runs that are short and many, all peers get the same share of that.
    fn repeats(self) -> usize {
        if self == Self::Echo { 3 } else { 1 }
    }

    async fn run(self, load: &Load, peer: &Peer, amount: u64) -> Result<Sample> {
        match self {
            Self::Down | Self::DownTls => load.down(peer, 1, amount).await,
            Self::Up16k => load.up(peer, 16 * 1024, Batch::Frame, amount).await,
            Self::Up64 => {
                let mut sample = load.up(peer, 64, Batch::Bytes(64 * 1024), amount).await?;
                sample.units /= 64;
                Ok(sample)
            }
            Self::Echo => load.echo(peer, 16, amount).await,
            Self::Connect => load.connect(peer, amount).await,
        }
    }
}

/// Load, target and proxies, where the current placement has them.
pub(crate) struct Stage<'a> {
    runtime: Runtime,
    pub(crate) load: Load,
    pub(crate) target: SocketAddr,
    pub(crate) programs: &'a Programs,
    pub(crate) files: &'a Files,
    pub(crate) core: usize,
    /// Is ended when this is dropped.
    _quick: Runtime,
}

impl<'a> Stage<'a> {
    /// Starts the load's threads, which inherit this thread's core; proxies go to `core`.
    pub(crate) fn build(programs: &'a Programs, files: &'a Files, core: usize) -> Result<Self> {
        let thread = || {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(1).enable_all();
            builder
        };
        let quick = thread().on_thread_start(raise_priority).build()?;
        let bulk = thread().build()?;
        let load = Load { quick: quick.handle().clone(), bulk: bulk.handle().clone() };
        let target = target::start(&load.quick, &load.bulk)?;
        Ok(Self { runtime: bulk, load, target, programs, files, core, _quick: quick })
    }

    /// Starts a proxy.
    pub(crate) fn peer(&self, kind: Kind) -> Result<Peer> {
        Peer::start(kind, self.programs, self.files, self.target, self.core)
    }

    /// Waits for one run.
    pub(crate) fn run<T>(&self, run: impl Future<Output = Result<T>>) -> Result<T> {
        self.runtime.block_on(async {
            timeout(PATIENCE, run).await.unwrap_or_else(|late| Err(late.into()))
        })
    }

    /// Starts proxies.
    pub(crate) fn peers(&self, what: &str, kinds: &[Kind]) -> Result<BTreeMap<Kind, Peer>> {
        let mut peers = BTreeMap::new();
        for kind in kinds {
            let peer = forgive(what, *kind, self.peer(*kind))?;
            peers.extend(peer.map(|peer| (*kind, peer)));
        }
        Ok(peers)
    }

    /// Gives the work to all peers.
    pub(crate) fn measure(&self, work: Work, rounds: usize) -> Result<Vec<Figure>> {
        let what = work.name();
        let peers = self.peers(what, &self.programs.present(work.kinds()))?;
        let run = |kind: Kind, amount| self.run(work.run(&self.load, &peers[&kind], amount));
        // Warms up, and shows which peers do the work at all.
        let warm =
            in_turns(what, peers.keys().copied(), 1, |kind| run(kind, work.amount(kind) / 20))?;
        let samples = in_turns(what, warm.into_keys(), rounds * work.repeats(), |kind| {
            run(kind, work.amount(kind))
        })?;
        let figure = |(kind, samples): (Kind, Vec<Sample>)| Figure::new(work, kind, &samples);
        Ok(samples.into_iter().map(figure).collect())
    }
}

/// Measures the peers one after the other, round after round: what disturbs the machine disturbs all of them. A peer
/// that fails is left out, and a line says why; websockify itself must not fail.
pub(crate) fn in_turns<T>(
    what: &str,
    kinds: impl IntoIterator<Item = Kind>,
    rounds: usize,
    mut measure: impl FnMut(Kind) -> Result<T>,
) -> Result<BTreeMap<Kind, Vec<T>>> {
    let mut kinds: Vec<_> = kinds.into_iter().collect();
    let mut all: BTreeMap<_, _> = kinds.iter().map(|kind| (*kind, Vec::new())).collect();
    for round in 0..rounds {
        for kind in kinds.clone() {
            if let Some(measured) = forgive(what, kind, measure(kind))? {
                all.entry(kind).or_default().push(measured);
            } else {
                all.remove(&kind);
                kinds.retain(|other| *other != kind);
            }
        }
        // No peer is always the first, or always behind the same one.
        kinds.reverse();
        if round % 2 == 1 && !kinds.is_empty() {
            kinds.rotate_left(1);
        }
    }
    Ok(all)
}

/// What came of a peer's measurement. A peer that has failed is left out, and a line says so; that websockify itself
/// has failed is an error.
fn forgive<T>(what: &str, kind: Kind, measured: Result<T>) -> Result<Option<T>> {
    match measured {
        Ok(measured) => Ok(Some(measured)),
        Err(error) if kind.is_ours() => {
            Err(error.context(format!("{} failed at {what}", kind.name())))
        }
        Err(error) => {
            eprintln!("left out at {what}: {}: {error:#}", kind.name());
            Ok(None)
        }
    }
}

/// Gives this thread priority over the load's other threads on its core: small messages are to wait for the proxy
/// alone. Without the right to do that, the figures are worse.
fn raise_priority() {
    let thread = nix::unistd::gettid().to_string();
    let chrt = Command::new("chrt").args(["--fifo", "--pid", "1", &thread]).status();
    if !chrt.is_ok_and(|status| status.success()) {
        eprintln!("cannot prefer the thread of small messages: chrt(1) has failed");
    }
}
