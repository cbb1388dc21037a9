//! What was promised, and whether it is kept.

use serde::Serialize;

use crate::figure::{Figure, Spread};
use crate::peer::Kind;
use crate::report::Report;
use crate::series::Work;

/// A promise and what was measured of it.
#[derive(Debug, Serialize)]
pub(crate) struct Promise {
    pub(crate) row: &'static str,
    pub(crate) what: String,
    pub(crate) measured: f64,
    pub(crate) bound: f64,
    pub(crate) kept: bool,
}

/// All promises that can be judged by what was measured.
pub(crate) fn all(report: &Report) -> Vec<Promise> {
    let mut all = Vec::new();
    for placed in &report.placed {
        let place = placed.placement.name();
        let find = |work: Work, kind: Kind| {
            placed.figures.iter().find(|figure| figure.work == work && figure.kind == kind)
        };
        let mut compare = |row, work, (ours, theirs), what: &str, of: Of, bound: Bound| {
            let pair = find(work, ours).and_then(of).zip(find(work, theirs).and_then(of));
            if let Some(ratio) = pair.and_then(|(ours, theirs)| ours.to(theirs)) {
                all.push(bound.judge(row, format!("{what}, {place}"), ratio.median));
            }
        };
        let haproxy = (Kind::Ours, Kind::Haproxy);
        let cost: Of = |figure| Some(&figure.cost);
        let rate: Of = |figure| Some(&figure.rate);
        let p99: Of = |figure| figure.p99.as_ref();
        compare("P1", Work::Down, haproxy, "CPU / HAProxy's", cost, Bound::AtMost(1.1));
        compare("P1", Work::Down, haproxy, "throughput / HAProxy's", rate, Bound::AtLeast(0.95));
        compare("P2", Work::Up16k, haproxy, "CPU / HAProxy's", cost, Bound::AtMost(1.15));
        let python = (Kind::Python, Kind::Ours);
        compare("P2", Work::Up16k, python, "Python's CPU / ours", cost, Bound::AtLeast(7.0));
        compare("P4", Work::Echo, haproxy, "CPU / HAProxy's", cost, Bound::AtMost(1.15));
        compare("P4", Work::Echo, haproxy, "p99 / HAProxy's", p99, Bound::AtMost(1.1));
        compare("P5", Work::Connect, haproxy, "CPU / HAProxy's", cost, Bound::AtMost(1.6));
        let tls = (Kind::OursTls, Kind::HaproxyTls);
        compare("P7", Work::DownTls, tls, "CPU / HAProxy's", cost, Bound::AtMost(1.0));
        if let Some(figure) = find(Work::Up64, Kind::Ours) {
            let what = format!("µs of CPU a frame, {place}");
            all.push(Bound::AtMost(0.06).judge("P3", what, figure.cost.median * 1e6));
        }
    }
    if let Some(idle) = report.idle.iter().find(|idle| idle.kind == Kind::Ours) {
        let sessions = idle.sessions;
        let bound = Bound::AtMost(3000.0);
        all.push(bound.judge("P6", format!("bytes a session, {sessions} idle"), idle.fresh));
        all.push(bound.judge("P6", "the same after each carried 200 kB".to_owned(), idle.used));
        let what = format!("ms of CPU a second, {sessions} idle");
        all.push(Bound::AtMost(0.1).judge("P6", what, idle.cpu * 1e3));
    }
    if let Some(startup) = &report.startup {
        let bound = Bound::AtMost(20.0);
        let what = "ms from start to accepting".to_owned();
        all.push(bound.judge("P8", what, startup.target.median * 1e3));
        if let Some(program) = &startup.program {
            let what = "the same with a program to wrap".to_owned();
            all.push(bound.judge("P8", what, program.median * 1e3));
        }
        let what = "MB of binary".to_owned();
        all.push(Bound::AtMost(12.0).judge("P8", what, startup.size as f64 / 1e6));
    }
    if let Some(fairness) = report.fairness.iter().find(|fairness| fairness.kind == Kind::Ours) {
        let what = "p99 of an echo beside ten downloads / alone".to_owned();
        let ratio = fairness.beside.median / fairness.alone.median;
        all.push(Bound::AtMost(5.0).judge("–", what, ratio));
    }
    all
}

/// Which part of a figure is compared.
type Of = fn(&Figure) -> Option<&Spread>;

#[derive(Clone, Copy)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Bound {
    fn judge(self, row: &'static str, what: String, measured: f64) -> Promise {
        let (bound, kept) = match self {
            Self::AtMost(bound) => (bound, measured <= bound),
            Self::AtLeast(bound) => (bound, measured >= bound),
        };
        Promise { row, what, measured, bound, kept }
    }
}
