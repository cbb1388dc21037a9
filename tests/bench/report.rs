//! All that was measured, for people and for programs.

use std::fmt::{self, Display, Formatter};

use serde::Serialize;

use crate::figure::{Curve, Fairness, Figure, Idle, Rush, Spread};
use crate::lookup::Lookups;
use crate::peer::Kind;
use crate::placement::Placement;
use crate::promise::{self, Promise};
use crate::series::Work;
use crate::startup::Startup;

/// A run of the benchmark.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// System and cores.
    pub(crate) machine: String,
    /// Which peers took part, and in which version.
    pub(crate) versions: Vec<(Kind, String)>,
    pub(crate) rounds: usize,
    pub(crate) placed: Vec<Placed>,
    pub(crate) idle: Vec<Idle>,
    pub(crate) fairness: Vec<Fairness>,
    pub(crate) rush: Vec<Rush>,
    pub(crate) startup: Option<Startup>,
    pub(crate) lookups: Vec<Lookups>,
    /// CPU seconds per GB by sessions that carry it.
    pub(crate) cost_by_sessions: Vec<Curve>,
    /// Bytes of memory by open sessions.
    pub(crate) memory_by_open: Vec<Curve>,
    /// CPU seconds of one more connection by open sessions.
    pub(crate) connect_by_open: Vec<Curve>,
    pub(crate) promises: Vec<Promise>,
}

/// What was measured in one placement.
#[derive(Debug, Serialize)]
pub(crate) struct Placed {
    pub(crate) placement: Placement,
    pub(crate) figures: Vec<Figure>,
}

impl Report {
    /// A report of nothing yet.
    pub(crate) fn new(machine: String, versions: Vec<(Kind, String)>, rounds: usize) -> Self {
        Self {
            machine,
            versions,
            rounds,
            placed: Vec::new(),
            idle: Vec::new(),
            fairness: Vec::new(),
            rush: Vec::new(),
            startup: None,
            lookups: Vec::new(),
            cost_by_sessions: Vec::new(),
            memory_by_open: Vec::new(),
            connect_by_open: Vec::new(),
            promises: Vec::new(),
        }
    }

    /// Says of each promise whether it is kept.
    pub(crate) fn judge(&mut self) {
        self.promises = promise::all(self);
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let versions =
            self.versions.iter().map(|(kind, version)| format!("{} {version}", kind.name()));
        let versions: Vec<_> = versions.collect();
        writeln!(f, "{}; {}; {} rounds\n", self.machine, versions.join(", "), self.rounds)?;
        for placed in &self.placed {
            for work in Work::ALL {
                write_work(f, placed, work)?;
            }
        }
        write_scale(f, self)?;
        write_lookups(f, &self.lookups)?;
        for (title, factor, curves) in [
            ("CPU, s/GB, by sessions that carry it", 1.0, &self.cost_by_sessions),
            ("Memory, MB, by open sessions", 1e-6, &self.memory_by_open),
            ("CPU of one more connection, µs, by open sessions", 1e6, &self.connect_by_open),
        ] {
            write_curves(f, title, factor, curves)?;
        }
        write_promises(f, &self.promises)
    }
}

fn write_work(f: &mut Formatter<'_>, placed: &Placed, work: Work) -> fmt::Result {
    let figures: Vec<_> = placed.figures.iter().filter(|figure| figure.work == work).collect();
    let Some(ours) = figures.iter().find(|figure| figure.kind.is_ours()) else { return Ok(()) };
    let unit = work.unit();
    writeln!(f, "{}; {}\n", work.name(), placed.placement.name())?;
    writeln!(
        f,
        "| | CPU, {} | quartiles | ours / it | {} | p50, p99 µs |",
        unit.cost.0, unit.rate
    )?;
    writeln!(f, "|---|---|---|---|---|---|")?;
    for figure in &figures {
        let cost = &figure.cost;
        let factor = unit.cost.1;
        let ratio = ours.cost.to(cost).map_or(f64::NAN, |ratio| ratio.median);
        let latency = |spread: &Option<Spread>| {
            spread.as_ref().map_or_else(|| "–".to_owned(), |spread| number(spread.median * 1e6))
        };
        writeln!(
            f,
            "| {} | {} | {} – {} | {ratio:.2} | {} | {}, {} |",
            figure.kind.name(),
            number(cost.median * factor),
            number(cost.low * factor),
            number(cost.high * factor),
            number(figure.rate.median),
            latency(&figure.p50),
            latency(&figure.p99),
        )?;
    }
    writeln!(f)
}

fn write_scale(f: &mut Formatter<'_>, report: &Report) -> fmt::Result {
    for idle in &report.idle {
        writeln!(
            f,
            "{}: {} idle sessions: {} bytes each, {} after each carried 200 kB, {:.3} ms of CPU a second",
            idle.kind.name(),
            idle.sessions,
            number(idle.fresh),
            number(idle.used),
            idle.cpu * 1e3
        )?;
    }
    for rush in &report.rush {
        writeln!(
            f,
            "{}: {} connect at once: all served in {:.2} s, {} µs of CPU each",
            rush.kind.name(),
            rush.clients,
            rush.wall,
            number(rush.cost * 1e6)
        )?;
    }
    for fairness in &report.fairness {
        writeln!(
            f,
            "{}: p99 of an echo: {} µs alone, {} µs beside ten downloads",
            fairness.kind.name(),
            number(fairness.alone.median * 1e6),
            number(fairness.beside.median * 1e6)
        )?;
    }
    if let Some(startup) = &report.startup {
        let program = startup.program.as_ref().map_or(f64::NAN, |program| program.median);
        writeln!(
            f,
            "start to accepting: {:.1} ms, {:.1} ms with a program to wrap; binary: {:.1} MB",
            startup.target.median * 1e3,
            program * 1e3,
            startup.size as f64 / 1e6
        )?;
    }
    writeln!(f)
}

fn write_lookups(f: &mut Formatter<'_>, all: &[Lookups]) -> fmt::Result {
    if all.is_empty() {
        return Ok(());
    }
    writeln!(f, "Sessions by a token, one of a thousand\n")?;
    writeln!(f, "| | | sessions/s | quartiles | CPU, µs each |\n|---|---|---|---|---|")?;
    for Lookups { source, kind, rate, cost } in all {
        writeln!(
            f,
            "| {} | {} | {} | {} – {} | {} |",
            source.name(),
            kind.name(),
            number(rate.median),
            number(rate.low),
            number(rate.high),
            number(cost.median * 1e6)
        )?;
    }
    writeln!(f)
}

fn write_curves(f: &mut Formatter<'_>, title: &str, factor: f64, curves: &[Curve]) -> fmt::Result {
    let Some(first) = curves.first() else { return Ok(()) };
    write!(f, "{title}\n\n| |")?;
    for (x, _) in &first.points {
        write!(f, " {x} |")?;
    }
    writeln!(f, "\n|---|{}", "---|".repeat(first.points.len()))?;
    for curve in curves {
        write!(f, "| {} |", curve.kind.name())?;
        for (_, y) in &curve.points {
            write!(f, " {} |", number(y * factor))?;
        }
        writeln!(f)?;
    }
    writeln!(f)
}

fn write_promises(f: &mut Formatter<'_>, promises: &[Promise]) -> fmt::Result {
    writeln!(f, "| | promised | bound | measured | |\n|---|---|---|---|---|")?;
    for promise in promises {
        writeln!(
            f,
            "| {} | {} | {} | {} | {} |",
            promise.row,
            promise.what,
            promise.bound,
            number(promise.measured),
            if promise.kept { "kept" } else { "MISSED" }
        )?;
    }
    Ok(())
}

/// A number with three significant digits: more if it is a thousand or more, and no more than six behind the point.
pub(crate) fn number(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let digits = (2.0 - value.abs().max(1e-9).log10().floor()).clamp(0.0, 6.0);
    format!("{value:.*}", digits as usize)
}
