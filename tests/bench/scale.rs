//! How costs grow with the number of sessions: of those that carry bytes, that are idle, that begin.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::figure::{Curve, Fairness, Idle, Rush, Spread};
use crate::peer::{Kind, max_sessions};
use crate::series::{Stage, in_turns};

/// Sessions that carry bulk at the same time.
const CARRYING: [u64; 5] = [1, 4, 16, 64, 256];

/// Sessions that are open.
const OPEN: [u64; 6] = [0, 1000, 2500, 5000, 7500, 9900];

/// How much a session carries before its memory is looked at again, bytes.
const EXERCISE: u64 = 200_000;

/// How long idle sessions are watched.
const WATCH: Duration = Duration::from_secs(10);

/// How many sessions are opened to a proxy that forks for each.
const FORKED: u64 = 100;

/// How many connect at once.
const RUSH: usize = 1000;

/// The downloads beside which small messages are echoed.
const DOWNLOADS: u64 = 10;

impl Stage<'_> {
    /// CPU time per GB, by sessions that carry it.
    pub(crate) fn cost_by_sessions(&self, kinds: &[Kind], rounds: usize) -> Result<Vec<Curve>> {
        let what = "cost by sessions";
        let peers = self.peers(what, kinds)?;
        let mut points = Points::new();
        for sessions in CARRYING {
            let costs = in_turns(what, peers.keys().copied(), rounds, |kind| {
                let bytes = if kind.forks() { 300_000_000 } else { 1_000_000_000 };
                let run = self.load.down(&peers[&kind], sessions, bytes);
                Ok(self.run(run)?.cost() * 1e9)
            })?;
            points.add(sessions, costs);
        }
        Ok(points.into_curves())
    }

    /// Memory, in bytes, and CPU time of one more connection, in seconds, by open sessions.
    pub(crate) fn costs_by_open(
        &self,
        kinds: &[Kind],
        rounds: usize,
    ) -> Result<(Vec<Curve>, Vec<Curve>)> {
        let (mut memory, mut connecting) = (Points::new(), Points::new());
        // The new connections need some descriptors, too.
        let most = max_sessions()? - 50;
        for open in OPEN.map(|open| open.min(most)) {
            let costs =
                in_turns("costs by open sessions", kinds.iter().copied(), rounds, |kind| {
                    let peer = self.peer(kind)?;
                    let idle = self.run(self.load.idle(&peer, open))?;
                    let held = peer.tree.memory()? as f64;
                    let cost = self.run(self.load.connect(&peer, 2000))?.cost();
                    self.run(idle.end())?;
                    Ok((held, cost))
                })?;
            let of = |part: fn(&(f64, f64)) -> f64| {
                costs.iter().map(move |(kind, both)| (*kind, both.iter().map(part).collect()))
            };
            memory.add(open, of(|both| both.0));
            connecting.add(open, of(|both| both.1));
        }
        Ok((memory.into_curves(), connecting.into_curves()))
    }

    /// What idle sessions cost, before and after they carried bytes, all of them in turn.
    pub(crate) fn idle(&self, kind: Kind) -> Result<Idle> {
        let peer = self.peer(kind)?;
        let sessions = match kind {
            kind if kind.forks() => FORKED,
            // websocat stops answering somewhere above.
            Kind::Websocat => 2000,
            _ => max_sessions()? - 50,
        };
        // What the proxy sets up for its first sessions does not count.
        self.run(self.load.connect(&peer, 200))?;
        let mut idle = self.run(self.load.idle(&peer, sessions))?;
        let fresh = idle.memory(&peer)?;
        let cpu = self.run(idle.cpu(&peer, WATCH))?.as_secs_f64() / WATCH.as_secs_f64();
        self.run(idle.exercise(EXERCISE))?;
        let used = idle.memory(&peer)?;
        self.run(idle.end())?;
        Ok(Idle { kind, sessions, fresh, used, cpu })
    }

    /// Small messages alone, and beside downloads that take all they can get.
    pub(crate) fn fairness(&self, kinds: &[Kind], rounds: usize) -> Result<Vec<Fairness>> {
        let times = in_turns("echoes beside downloads", kinds.iter().copied(), rounds, |kind| {
            // A new proxy each round: in the old one, the last round's downloads may not have ended yet.
            let peer = self.peer(kind)?;
            let alone = self.run(self.load.echo(&peer, 1, 4000))?;
            let beside = self.run(self.load.echo_beside_bulk(&peer, DOWNLOADS, 1000))?;
            alone.percentile(0.99).zip(beside.percentile(0.99)).context("no message was answered")
        })?;
        let fairness = |(kind, times): (Kind, Vec<(Duration, Duration)>)| {
            let spread = |of: fn(&(Duration, Duration)) -> Duration| {
                Spread::of(times.iter().map(|both| of(both).as_secs_f64()))
            };
            Some(Fairness { kind, alone: spread(|both| both.0)?, beside: spread(|both| both.1)? })
        };
        Ok(times.into_iter().filter_map(fairness).collect())
    }

    /// A thousand clients connect at once.
    pub(crate) fn rush(&self, kind: Kind) -> Result<Rush> {
        let peer = self.peer(kind)?;
        let sample = self.run(self.load.rush(&peer, RUSH))?;
        Ok(Rush { kind, clients: RUSH, wall: sample.wall.as_secs_f64(), cost: sample.cost() })
    }
}

/// Curves that grow point by point.
struct Points(BTreeMap<Kind, Vec<(u64, f64)>>);

impl Points {
    fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Adds the median of each kind's figures at `x`.
    fn add(&mut self, x: u64, figures: impl IntoIterator<Item = (Kind, Vec<f64>)>) {
        for (kind, all) in figures {
            let point = Spread::of(all).map(|all| (x, all.median));
            self.0.entry(kind).or_default().extend(point);
        }
    }

    fn into_curves(self) -> Vec<Curve> {
        self.0.into_iter().map(|(kind, points)| Curve { kind, points }).collect()
    }
}
