//! A process supervisor with an embedded WebSocket bridge. The start order stands on this page:
//! arguments, configuration, reserved ports, log, runtime, and then the program or the target.

#![deny(unsafe_code)]

mod announce;
mod behind;
mod bridging;
mod child;
mod cli;
mod config;
mod daemon;
mod exit;
mod log;
#[path = "../../rebind/src/names.rs"]
mod names;
mod notify;
mod origin;
mod path;
mod pid_file;
mod ports;
mod preload;
mod private;
mod recording;
mod security;
mod signals;
#[cfg(test)]
#[path = "../../tests/support/skip.rs"]
mod skip;
mod systemd;
mod traffic;
mod trusted;
mod web;

use std::ffi::OsString;
use std::io::{self, Write};
use std::sync::Arc;

use anyhow::Context;
use bridge::{Private, Shutdown};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::SigSet;
use nix::sys::signal::Signal::SIGTTOU;

use announce::Announcer;
use bridging::Bridging;
use cli::{Args, Refusal};
use config::{Config, Service, UsageError};
use daemon::{Caller, Role};
pub use exit::ExitStatus;
use exit::Failure;
use log::{Escaped, Log};
use pid_file::PidFile;
use ports::Public;
use security::Certificates;
use signals::{Signal, Signals};

/// What belongs to us as a process, whatever we bridge to.
struct Host<'a> {
    signals: Signals,
    announcer: &'a mut Announcer,
    log: &'a Log,
    certificates: Certificates,
    /// Our own files, that nobody is served.
    private: Arc<Private>,
    /// The limit on open files that we were started with, soft and hard.
    open_files: (u64, u64),
}

/// The command line's definition, for the manual page and the shell completions.
pub fn command() -> clap::Command {
    <Args as clap::CommandFactory>::command()
}

/// What `--auth-plugin` may name, for a look whether the pages name each.
pub fn auth_plugins() -> impl Iterator<Item = &'static str> {
    cli::AuthPlugin::ALL.into_iter().map(cli::AuthPlugin::name)
}

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
                say(&format!("cannot write to standard output: {}", bridge::words(&error)));
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
    // In the journal it is an error (sd-daemon(3)).
    let level = if log::stderr_is_journal() { "<3>" } else { "" };
    let _ = writeln!(io::stderr(), "{level}websockify: {}", Escaped(line));
}

/// What must be had, or be refused, while standard error is the caller's; then into the background.
fn start(mut config: Config) -> Result<ExitStatus, Failure> {
    let passed = systemd::passed_sockets()?;
    if config.daemon {
        daemon::close_inherited(passed.len());
    }
    config.sessions.web = config.sessions.web.as_deref().map(web::directory).transpose()?;
    config.sessions.record =
        config.sessions.record.as_deref().map(recording::beginning).transpose()?;
    let certificates = Certificates::load(config.security.clone())?;
    let public =
        if passed.is_empty() { Public::reserve(&config.source)? } else { Public::passed(passed) };
    let mut pid_file = config.pid_file.as_deref().map(PidFile::lock).transpose()?;
    let log = log::Destination::choose(&config.log, config.daemon)?;
    let lack = log.lack(&config.log);
    let private = private::files(&config);
    let is_daemon = config.daemon;
    let mut caller = Caller::none();
    if is_daemon {
        match daemon::detach()? {
            Role::Caller(report) => {
                // It is the daemon's now, to be removed by it.
                std::mem::forget(pid_file);
                // A failure is one line.
                lack.filter(|_| report.is_ok()).iter().for_each(|lack| say(lack));
                return report;
            }
            Role::Daemon(waiting) => caller = waiting,
        }
    } else if let Some(lack) = lack {
        say(&lack);
    }
    let mut announcer = Announcer::new(caller);
    let log = match start_log(log, config.verbose) {
        Err(failure) if announcer.failed(&failure) => return Ok(failure.status),
        log => log?,
    };
    let ended = pid_file
        .as_mut()
        .map_or(Ok(()), PidFile::write)
        .map_err(Failure::from)
        .and_then(|()| work(config, public, certificates, private, &log, &mut announcer));
    match ended {
        // The caller's command says it.
        Err(failure) if announcer.failed(&failure) => Ok(failure.status),
        Err(failure) if matches!(log.destination, log::Destination::Stderr) => Err(failure),
        // Who reads the log later learns of it, too; nobody reads it twice.
        Err(failure) => {
            tracing::error!("{}", failure.reason);
            let is_journal = matches!(log.destination, log::Destination::Journal);
            let is_said = is_daemon || (is_journal && log::stderr_is_journal());
            if is_said { Ok(failure.status) } else { Err(failure) }
        }
        ended => ended,
    }
}

fn start_log(log: log::Destination, verbose: bool) -> Result<Log, Failure> {
    // Lines that we log while the terminal is the program's must not stop us (`stty tostop`). Threads
    // take it over.
    let mut unhandled = SigSet::empty();
    unhandled.add(SIGTTOU);
    unhandled.thread_block().context("cannot block SIGTTOU")?;
    Ok(log.start(verbose)?)
}

/// The runtime, and the work itself.
fn work(
    mut config: Config,
    public: Public,
    certificates: Certificates,
    private: Arc<Private>,
    log: &Log,
    announcer: &mut Announcer,
) -> Result<ExitStatus, Failure> {
    announcer.find_systemd().context("cannot start a thread")?;
    let watchdog = announcer.watchdog();
    let open_files = raise_open_files().context("cannot raise the limit on open files")?;
    let is_cut = config.sessions.fit(open_files.1);
    if let Service::Program(_) = config.service {
        nix::sys::prctl::set_child_subreaper(true).context("cannot become a child subreaper")?;
    }
    config.remarks.iter().for_each(|remark| tracing::warn!("{remark}"));
    certificates.report();
    // A daemon's standard output is /dev/null.
    let letters = (config.verbose && !config.daemon)
        .then(traffic::letters)
        .transpose()
        .context("cannot start a thread")?;
    config.sessions.traffic = letters.as_ref().map(|(traffic, _)| traffic.clone());
    let limit = open_files.1;
    if is_cut && config.sessions.max_is_asked {
        let most = config.sessions.max_connections;
        tracing::warn!("the limit on open files is {limit}, which allows {most} connections");
    }
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    // Sessions in the order in which they became ready; see .cargo/config.toml.
    #[cfg(tokio_unstable)]
    runtime.disable_lifo_slot();
    let runtime = runtime.enable_all().build().context("cannot start the runtime")?;
    // block_on stays on this thread, the main one, as child/spawn.rs needs it.
    let status = runtime.block_on(async {
        let signals = Signals::catch().context("cannot catch signals")?;
        let mut host = Host { signals, announcer, log, certificates, private, open_files };
        let serve = async {
            match config.service {
                Service::Target(address) => {
                    host.announcer.status(&format!("Bridging to {address}"));
                    let target = bridge::Target::Address(address);
                    let bridging = Bridging::reserved(
                        public,
                        target,
                        config.sessions,
                        host.certificates.for_bridge(&host.private),
                    );
                    bridge_to_target(bridging, &mut host).await
                }
                Service::Program(spec) => {
                    child::supervise(&spec, config.sessions, public, &mut host).await
                }
            }
        };
        tokio::select! {
            status = serve => status,
            never = watchdog => match never {},
            never = log.count_repeats() => match never {},
        }
    });
    // A name that is being resolved would hold up our end for as long as its resolver likes.
    runtime.shutdown_background();
    status
}

/// The plain bridge, without a program.
async fn bridge_to_target(
    mut bridging: Bridging,
    host: &mut Host<'_>,
) -> Result<ExitStatus, Failure> {
    bridging.open()?;
    host.certificates.report_off();
    host.announcer.up(host.log);
    host.announcer.accepting();
    let mut stopping = false;
    loop {
        tokio::select! {
            status = bridging.ended() => return Ok(status),
            signal = host.signals.next() => match signal {
                Signal::Stop if stopping => return Ok(ExitStatus::SUCCESS),
                Signal::Stop => {
                    stopping = true;
                    host.announcer.stopping();
                    bridging.end(Shutdown::Now);
                }
                Signal::Child => {}
                Signal::Reload => host.reload(),
            },
        }
    }
}

impl Host<'_> {
    /// SIGHUP: opens anew what may have been replaced.
    fn reload(&mut self) {
        self.certificates.reload();
        if let log::Destination::File(file) = &self.log.destination
            && let Err(failure) = file.reopen()
        {
            tracing::warn!("{}", Failure::from(failure).reason);
        }
        // What was opened just now goes on being ours when it is moved away.
        self.private.look();
    }
}

/// Raises our limit on open files as far as we may: a session needs two. Returns what it was, soft
/// and hard, which is what the program gets (W1).
fn raise_open_files() -> nix::Result<(u64, u64)> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok((soft, hard))
}
