//! A process supervisor with an embedded WebSocket bridge. The start order stands on this page:
//! arguments, configuration, reserved ports, log, runtime, and then the program or the target.

#![deny(unsafe_code)]

mod bridging;
mod child;
mod cli;
mod config;
mod exit;
mod log;
#[path = "../../rebind/src/names.rs"]
mod names;
mod notify;
mod ports;
mod preload;
mod signals;

use std::ffi::OsString;
use std::io::{self, Write};

use anyhow::Context;
use bridge::Shutdown;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use bridging::Bridging;
use cli::{Args, Refusal};
use config::{Config, Service, UsageError};
pub use exit::ExitStatus;
use exit::Failure;
use ports::Public;
use signals::{Signal, Signals};

/// Runs websockify with these arguments, its own name first, and returns its exit status.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitStatus {
    let config = Args::parse_from_os(args)
        .and_then(|args| Config::new(args).map_err(|UsageError(line)| Refusal::Usage(line)));
    match config {
        Ok(config) => start(config).unwrap_or_else(|failure| {
            say(&failure.reason);
            failure.status
        }),
        Err(Refusal::Answer(text)) => match io::stdout().write_all(text.as_bytes()) {
            Ok(()) => ExitStatus::SUCCESS,
            Err(error) => {
                say(&format!("cannot write to standard output: {}", exit::words(&error)));
                ExitStatus::FAILURE
            }
        },
        Err(Refusal::Usage(line)) => {
            say(&line);
            ExitStatus::USAGE
        }
    }
}

/// One line for the person who called us. Standard error may be closed; `eprintln!` would panic.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "websockify: {line}");
}

fn start(config: Config) -> Result<ExitStatus, Failure> {
    let public = Public::reserve(&config.source)?;
    let open_files = raise_open_files().context("cannot raise the limit on open files")?;
    if let Service::Program(_) = config.service {
        nix::sys::prctl::set_child_subreaper(true).context("cannot become a child subreaper")?;
    }
    log::start(config.verbose);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    // block_on stays on this thread, the main one, as child/spawn.rs needs it.
    let status = runtime.block_on(async {
        let mut signals = Signals::catch().context("cannot catch signals")?;
        match config.service {
            Service::Target(address) => {
                let target = bridge::Target::Address(address);
                let bridging = Bridging::reserved(public, target, config.sessions);
                bridge_to_target(bridging, &mut signals).await
            }
            Service::Program(spec) => {
                child::supervise(&spec, config.sessions, public, open_files, &mut signals).await
            }
        }
    });
    // A name that is being resolved would hold up our end for as long as its resolver likes.
    runtime.shutdown_background();
    status
}

/// The plain bridge, without a program.
async fn bridge_to_target(
    mut bridging: Bridging,
    signals: &mut Signals,
) -> Result<ExitStatus, Failure> {
    bridging.open()?;
    let mut stopping = false;
    loop {
        tokio::select! {
            status = bridging.ended() => return Ok(status),
            signal = signals.next() => match signal {
                Signal::Stop if stopping => return Ok(ExitStatus::SUCCESS),
                Signal::Stop => {
                    stopping = true;
                    bridging.end(Shutdown::Now);
                }
                Signal::Child => {}
                Signal::Reload => tracing::debug!("SIGHUP: there is nothing to read again"),
            },
        }
    }
}

/// Raises our limit on open files as far as we may: a session needs two. Returns what it was, soft
/// and hard, which is what the program gets (W1).
fn raise_open_files() -> nix::Result<(u64, u64)> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok((soft, hard))
}
