//! Measures websockify beside its peers, in one run; see `tests/bench/run`.
//!
//! `load` gives the work and `target` takes it at the other end, `peer` starts the proxies, `meter`
//! says what they cost, `series`, `scale` and `lookup` run them in turns, `report` says what came of it.

#![expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures are for people"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "nobody else reaps our children, and a peer does not say when it is up"
)]

mod figure;
mod load;
mod lookup;
mod meter;
mod pattern;
mod peer;
mod placement;
mod plot;
mod promise;
mod report;
mod scale;
mod series;
mod startup;
mod target;
mod wire;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use peer::{Files, Kind, Programs};
use placement::{Cores, Placement};
use report::{Placed, Report};
use series::{Stage, Work, in_turns};
use startup::Startup;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// P1 to P5 and P7.
    Work,
    /// P6, a rush, fairness.
    Scale,
    /// How costs grow.
    Curves,
    /// P8.
    Startup,
    /// Sessions by tokens.
    Lookup,
}

/// Measures websockify beside its peers.
#[derive(Debug, Parser)]
struct Args {
    #[command(flatten)]
    programs: Programs,
    /// How often each peer does each work.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// What to measure, if not all of it.
    #[arg(long)]
    part: Vec<Part>,
    /// Which work, if not all of it: P1, P2, P3, P4, P5, P7.
    #[arg(long)]
    work: Vec<String>,
    /// Only with a core each for proxy and load.
    #[arg(long)]
    brief: bool,
    /// Where all of it is kept as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Where it is drawn.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
        .context("cannot raise the limit on open files")?;
    let has_network = placement::own_network();
    if let Err(error) = &has_network {
        eprintln!("in the network of everybody: {error:#}");
    }
    let cores = Cores::find()?;
    let files = Files::create()?;
    let mut report = Report::new(machine(&cores)?, versions(&args.programs)?, args.rounds);
    if args.wants(Part::Startup) {
        report.startup = Some(Startup::measure(&args.programs)?);
    }
    for placement in Placement::ALL {
        let is_first = placement == Placement::TwoCores;
        if placement == Placement::Mtu1500 && has_network.is_err() {
            eprintln!("left out: {}", placement.name());
            continue;
        }
        if !is_first && (args.brief || !args.wants(Part::Work)) {
            continue;
        }
        let core = placement.take(&cores)?;
        let stage = Stage::build(&args.programs, &files, core)?;
        if args.wants(Part::Work) {
            let mut figures = Vec::new();
            for work in Work::ALL.into_iter().filter(|work| args.wants_work(*work)) {
                eprintln!("{}, {}", work.name(), placement.name());
                figures.extend(stage.measure(work, args.rounds)?);
            }
            report.placed.push(Placed { placement, figures });
        }
        if is_first && args.wants(Part::Scale) {
            measure_scale(&stage, &args, &mut report)?;
        }
        if is_first && args.wants(Part::Curves) {
            measure_curves(&stage, &args, &mut report)?;
        }
        if is_first && args.wants(Part::Lookup) {
            report.lookups = stage.lookups(args.rounds.min(5))?;
        }
    }
    report.judge();
    println!("{report}");
    if let Some(file) = &args.json {
        let text = serde_json::to_string_pretty(&report)?;
        std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    if let Some(file) = &args.plot {
        let text = plot::draw(&report)?;
        std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

impl Args {
    fn wants(&self, part: Part) -> bool {
        self.part.is_empty() || self.part.contains(&part)
    }

    fn wants_work(&self, work: Work) -> bool {
        let row = work.name().split(' ').next();
        self.work.is_empty() || self.work.iter().any(|wanted| row == Some(wanted))
    }
}

fn measure_scale(stage: &Stage<'_>, args: &Args, report: &mut Report) -> Result<()> {
    let (all, two) = (args.programs.present(&Kind::PLAIN), args.programs.present(&Kind::EVENTS));
    eprintln!("idle sessions");
    let idle = in_turns("idle sessions", all, 1, |kind| stage.idle(kind))?;
    report.idle = idle.into_values().flatten().collect();
    eprintln!("a rush");
    let rush = in_turns("a rush", two.clone(), 1, |kind| stage.rush(kind))?;
    report.rush = rush.into_values().flatten().collect();
    eprintln!("echoes beside downloads");
    report.fairness = stage.fairness(&two, args.rounds)?;
    Ok(())
}

fn measure_curves(stage: &Stage<'_>, args: &Args, report: &mut Report) -> Result<()> {
    let (all, two) = (args.programs.present(&Kind::PLAIN), args.programs.present(&Kind::EVENTS));
    let rounds = args.rounds.min(3);
    eprintln!("cost by sessions");
    report.cost_by_sessions = stage.cost_by_sessions(&all, rounds)?;
    eprintln!("costs by open sessions");
    (report.memory_by_open, report.connect_by_open) = stage.costs_by_open(&two, rounds)?;
    Ok(())
}

fn versions(programs: &Programs) -> Result<Vec<(Kind, String)>> {
    let mut versions = Vec::new();
    for kind in Kind::PLAIN {
        match programs.version(kind) {
            Some(version) => versions.push((kind, version)),
            None if kind == Kind::Ours => anyhow::bail!("cannot run our own websockify"),
            None => eprintln!("left out: {}: it cannot be run", kind.name()),
        }
    }
    Ok(versions)
}

/// System and number of cores; whoever looks at the picture need not know the processor's name.
fn machine(cores: &Cores) -> Result<String> {
    let system = nix::sys::utsname::uname()?;
    let release = system.release().to_string_lossy().into_owned();
    let release: Vec<_> = release.split('.').take(2).collect();
    Ok(format!("Linux {}, {} cores, loopback", release.join("."), cores.count))
}
