//! The figures of the benchmark, as they are printed, drawn and kept.

use serde::Serialize;

use crate::load::Sample;
use crate::peer::Kind;
use crate::series::Work;

/// A figure that was measured several times.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    /// The quartiles.
    pub(crate) low: f64,
    pub(crate) high: f64,
    /// Round by round.
    pub(crate) all: Vec<f64>,
}

impl Spread {
    /// `None` where there is no figure.
    pub(crate) fn of(all: impl IntoIterator<Item = f64>) -> Option<Self> {
        let all: Vec<f64> = all.into_iter().collect();
        let mut sorted = all.clone();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().checked_sub(1)? as f64;
        let at = |share: f64| sorted[(share * last).round() as usize];
        Some(Self { median: at(0.5), low: at(0.25), high: at(0.75), all })
    }

    /// The ratio to another spread, round by round: what disturbs the machine in a round disturbs both.
    pub(crate) fn to(&self, other: &Self) -> Option<Self> {
        Self::of(self.all.iter().zip(&other.all).map(|(ours, theirs)| ours / theirs))
    }
}

/// The figures of one peer with one work.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Figure {
    pub(crate) work: Work,
    pub(crate) kind: Kind,
    /// CPU time of the proxy, seconds per [`Unit::per`](crate::series::Unit::per) units.
    pub(crate) cost: Spread,
    /// How many times [`Unit::per`](crate::series::Unit::per) units per second of the clock.
    pub(crate) rate: Spread,
    /// Latencies below which 50 and 99 % of the messages stayed, seconds.
    pub(crate) p50: Option<Spread>,
    pub(crate) p99: Option<Spread>,
}

impl Figure {
    pub(crate) fn new(work: Work, kind: Kind, samples: &[Sample]) -> Self {
        let per = work.unit().per;
        let spread =
            |of: &dyn Fn(&Sample) -> Option<f64>| Spread::of(samples.iter().filter_map(of));
        let percentile =
            |share: f64| spread(&|sample| Some(sample.percentile(share)?.as_secs_f64()));
        Self {
            work,
            kind,
            cost: spread(&|sample| Some(sample.cost() * per)).expect("there is a round"),
            rate: spread(&|sample| Some(sample.rate() / per)).expect("there is a round"),
            p50: percentile(0.5),
            p99: percentile(0.99),
        }
    }
}

/// How a figure grows: a point is an x and the figure that was measured there.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Curve {
    pub(crate) kind: Kind,
    pub(crate) points: Vec<(u64, f64)>,
}

/// What an idle session costs.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Idle {
    pub(crate) kind: Kind,
    pub(crate) sessions: u64,
    /// Proportional set size of a session, bytes: fresh, and after it has carried some.
    pub(crate) fresh: f64,
    pub(crate) used: f64,
    /// CPU time of all of them in a second, seconds.
    pub(crate) cpu: f64,
}

/// Small messages alone and beside downloads.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Fairness {
    pub(crate) kind: Kind,
    /// What 99 % of the answers stayed below, seconds.
    pub(crate) alone: Spread,
    pub(crate) beside: Spread,
}

/// Many clients that connect at once.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Rush {
    pub(crate) kind: Kind,
    pub(crate) clients: usize,
    /// How long it took until the last client was served, seconds.
    pub(crate) wall: f64,
    /// CPU time of the proxy for each client, seconds.
    pub(crate) cost: f64,
}
