//! How costs grow: with sessions that carry, that idle, that come.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::figure::{Curve, Fairness, Idle, Rush, Spread};
use crate::peer::{Kind, max_sessions};
use crate::series::Stage;

/// Sessions that carry bulk at the same time.
const CARRYING: [u64; 5] = [1, 4, 16, 64, 256];

/// Sessions that are open.
const OPEN: [u64; 6] = [0, 1000, 2500, 5000, 7500, 9900];

/// How much a session carries before its memory is looked at again, bytes.
const EXERCISE: u64 = 200_000;

/// How long idle sessions are watched.
const WATCH: Duration = Duration::from_secs(10);

/// How many sessions of a proxy that forks for each can be had.
const FORKED: u64 = 100;

/// How many connect at once.
const RUSH: usize = 1000;

/// The downloads beside which small messages are echoed.
const DOWNLOADS: u64 = 10;

impl Stage<'_> {
    /// CPU time per GB, by sessions that carry it.
    pub(crate) fn cost_by_sessions(&self, kind: Kind, rounds: usize) -> Result<Curve> {
        let peer = self.peer(kind)?;
        let bytes = if kind.forks() { 300_000_000 } else { 1_000_000_000 };
        let mut points = Vec::new();
        for sessions in CARRYING {
            let mut costs = Vec::new();
            for _ in 0..rounds {
                costs.push(self.run(self.load.down(&peer, sessions, bytes))?.cost() * 1e9);
            }
            points.extend(Spread::of(costs).map(|cost| (sessions, cost.median)));
        }
        Ok(Curve { kind, points })
    }

    /// Memory, in bytes, and CPU time of one more connection, in seconds, by open sessions.
    pub(crate) fn costs_by_open(&self, kind: Kind) -> Result<(Curve, Curve)> {
        let peer = self.peer(kind)?;
        let (mut memory, mut connecting) = (Vec::new(), Vec::new());
        let mut idle = self.run(self.load.idle(&peer, 0))?;
        for open in OPEN {
            // Those who connect need some descriptors, too.
            let open = open.min(max_sessions()? - 50);
            self.run(idle.grow(&peer, open))?;
            memory.push((open, peer.tree.memory()? as f64));
            connecting.push((open, self.run(self.load.connect(&peer, 2000))?.cost()));
        }
        self.run(idle.end())?;
        Ok((Curve { kind, points: memory }, Curve { kind, points: connecting }))
    }

    /// What idle sessions cost, before and after they carried bytes, all of them in turn.
    pub(crate) fn idle(&self, kind: Kind) -> Result<Idle> {
        let peer = self.peer(kind)?;
        let sessions = match kind {
            kind if kind.forks() => FORKED,
            // It stops answering somewhere above.
            Kind::Websocat => 2000,
            _ => max_sessions()? - 50,
        };
        // What the first sessions set up is not theirs.
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
    pub(crate) fn fairness(&self, kind: Kind, rounds: usize) -> Result<Fairness> {
        let (mut alone, mut beside) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            // The last round's downloads may not have ended yet.
            let peer = self.peer(kind)?;
            let sample = self.run(self.load.echo(&peer, 1, 4000))?;
            alone.extend(sample.percentile(0.99));
            let sample = self.run(self.load.echo_beside_bulk(&peer, DOWNLOADS, 1000))?;
            beside.extend(sample.percentile(0.99));
        }
        let spread =
            |all: Vec<Duration>| Spread::of(all.into_iter().map(|time| time.as_secs_f64()));
        let both = spread(alone).zip(spread(beside)).context("no rounds")?;
        Ok(Fairness { kind, alone: both.0, beside: both.1 })
    }

    /// A thousand at once.
    pub(crate) fn rush(&self, kind: Kind) -> Result<Rush> {
        let peer = self.peer(kind)?;
        let sample = self.run(self.load.rush(&peer, RUSH))?;
        Ok(Rush { kind, clients: RUSH, wall: sample.wall.as_secs_f64(), cost: sample.cost() })
    }
}
