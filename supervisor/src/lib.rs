//! A process supervisor with an embedded WebSocket bridge. This file has the start order: arguments, configuration,
//! resources, background, log, runtime, and then the program or the service. How each step is done is in other files.

#![deny(unsafe_code)]

mod admin;
mod authentication;
mod certificates;
mod cli;
mod clock;
mod config;
mod drain;
mod engine;
mod exit;
mod hand_over;
mod handed;
mod helper;
mod host;
mod launcher;
mod log;
mod machine;
#[cfg(test)]
#[path = "../../bridge/src/fuzzing/neighbours.rs"]
mod neighbours;
mod octets;
mod private;
mod processes;
mod program;
mod relay;
mod reopening;
mod reread;
mod resources;
#[cfg(test)]
#[path = "../../tests/support/skip.rs"]
mod skip;
mod target_tls;
mod tokens;
mod usage;
mod value_file;
mod writer;

use std::ffi::OsString;
use std::io::{self, Write};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use bridge::{HandOver, Shutdown};
use futures_util::future::OptionFuture;
use nix::sys::signal::SigSet;
use nix::sys::signal::Signal::SIGTTOU;

use admin::{AdminHandle, MainLoopRequest, Server, Standing};
use authentication::Authentication;
use cli::{Args, Refusal};
use clock::until;
use config::{Config, Destination, Listen, ProgramSpec};
use drain::{Drain, EndRequest, Ending};
use engine::ClientTableFile;
pub use exit::ExitStatus;
use exit::Failure;
use hand_over::{Arrival, Arrived, Estate, Launch, Left, Parts, Succession, or_back};
use helper::{Helpers, Surroundings};
use host::Host;
use log::letters::Legend;
use log::{Escaped, Log, Requested, Stderr};
use machine::daemon::{self, Caller, Role};
use machine::pid_file::PidFile;
use machine::progress::Progress;
use machine::public::PublicEndpoint;
use machine::signals::{self, Signal, Signals};
use machine::{command_line, inetd, runtime, systemd};
use processes::Aside;
use program::saved::{Begin, Resumption};
use relay::{Announcement, Around, ProgramRelay, Relay, Rests};
use reopening::Reopening;
use resources::Resources;
use target_tls::TargetTls;
use tokens::Tokens;
use usage::UsageError;

/// What `tests/fuzz` tries. Properties of parsers that can be compiled by themselves are included there by path.
#[cfg(fuzzing)]
pub mod fuzzing {
    /// The state that is handed over to a new binary.
    pub fn handed_over(bytes: &[u8]) {
        crate::hand_over::fuzzing::state(bytes);
    }
}

/// The command line's definition, for the manual page and the shell completions.
pub fn command() -> clap::Command {
    <Args as clap::CommandFactory>::command()
}

/// The names that `--auth-plugin` takes. A test looks whether the documentation has each.
pub fn auth_plugins() -> impl Iterator<Item = &'static str> {
    cli::AuthPlugin::ALL.into_iter().map(cli::AuthPlugin::name)
}

/// The same for `--token-plugin`.
pub fn token_plugins() -> impl Iterator<Item = &'static str> {
    cli::TokenPlugin::ALL.into_iter().map(cli::TokenPlugin::name)
}

/// The long options of the Python websockify, 0.3.0 to 0.13.0. A test looks whether the documentation explains each.
pub fn python_options() -> impl Iterator<Item = &'static str> {
    cli::shortened::UPSTREAM.iter().copied()
}

/// Runs websockify with these arguments, its own name first, and returns its exit status.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitStatus {
    let args: Vec<_> = args.into_iter().collect();
    hand_over::close_memory(&args);
    signals::hold_back_hand_over();
    if hand_over::is_tried(&args) {
        return hand_over::answer_trial();
    }
    let ended = match Arrival::find() {
        Ok(None) => return begin(args),
        Ok(Some(arrival)) => resume(arrival),
        Err(failure) => Err(failure),
    };
    ended.unwrap_or_else(|failure| {
        say(&failure.reason);
        failure.status
    })
}

/// Begins in the ordinary way, not in a hand-over.
fn begin(args: Vec<OsString>) -> ExitStatus {
    let now = Instant::now();
    let is_inetd = cli::names_inetd(&args);
    let config = Args::parse_from_os(args.clone())
        .and_then(|args| Config::new(args, now).map_err(Refusal::Usage));
    match config {
        Ok(mut config) => {
            hide_secrets(&args, &mut config);
            start(&config, Launch::new(args, now)).unwrap_or_else(|failure| {
                say(&failure.reason);
                failure.status
            })
        }
        Err(Refusal::Answer(text)) => match io::stdout().write_all(text.as_bytes()) {
            Ok(()) => ExitStatus::SUCCESS,
            Err(error) => {
                say(&format!("cannot write to standard output: {}", bridge::error_text(&error)));
                ExitStatus::FAILURE
            }
        },
        Err(Refusal::Usage(UsageError(line))) => {
            say_unless_to_client(&line, is_inetd);
            ExitStatus::USAGE
        }
    }
}

/// Overwrites secrets in our command line, which every user can see in the list of processes. To be called before there
/// is a second thread or process.
fn hide_secrets(args: &[OsString], config: &mut Config) {
    let values = cli::secrets::values(args).into_iter();
    let is_secret = |value: &cli::secrets::Value| {
        let typed = &args[value.word].as_encoded_bytes()[value.bytes.clone()];
        value.is_overridden || config.is_secret(&value.option, typed)
    };
    let secret: Vec<_> = values.filter(is_secret).collect();
    let Some(first) = secret.first().map(|value| value.option.clone()) else { return };
    let places = secret.into_iter().map(|value| (value.word, value.bytes));
    if let Err(error) = command_line::overwrite(args, places) {
        let why = bridge::error_text(&error);
        config.warnings.push(format!("whoever lists processes sees the value of --{first}: {why}"));
    }
}

/// One line for the person who called us. Standard error may be closed; `eprintln!` would panic.
fn say(line: &str) {
    // In the journal it is an error (sd-daemon(3)).
    let level = if log::stderr_is_journal() { "<3>" } else { "" };
    let _ = writeln!(io::stderr(), "{level}websockify: {}", Escaped(line));
}

/// The same where standard error may be a client's connection (inetd): the client gets nothing of it.
fn say_unless_to_client(line: &str, is_inetd: bool) {
    match is_inetd.then(inetd::keep_quiet) {
        None | Some(Ok(Stderr::Callers)) => say(line),
        Some(Ok(Stderr::Clients | Stderr::Daemons) | Err(_)) => {
            log::write_one(&Requested::default(), line);
        }
    }
}

/// Takes all that may be refused while the caller still reads standard error; then goes into the background.
fn start(config: &Config, mut launch: Launch) -> Result<ExitStatus, Failure> {
    let is_inetd = matches!(config.listen, Listen::Inetd);
    let stderr = match config.daemon {
        true => Stderr::Daemons,
        false if is_inetd => inetd::keep_quiet()?,
        false => Stderr::Callers,
    };
    let passed = if is_inetd { Vec::new() } else { systemd::passed_sockets()? };
    if config.daemon {
        daemon::close_inherited(passed.len());
    }
    let mut resources = Resources::acquire(config, passed, stderr).inspect_err(|failure| {
        if stderr == Stderr::Clients {
            log::write_one(&config.log, &failure.reason);
        }
    })?;
    launch.stderr = stderr;
    let warnings = resources.log.warnings(&config.log);
    let mut caller = Caller::none();
    if config.daemon {
        match daemon::detach()? {
            Role::Caller(report) => {
                // The pid file belongs to the daemon now, which removes it.
                std::mem::forget(resources);
                // If the daemon has failed, its failure is the only line, without the warnings.
                let of_daemon = report?;
                warnings.iter().chain(&of_daemon).for_each(|warning| say(warning));
                return Ok(ExitStatus::SUCCESS);
            }
            Role::Daemon(waiting) => caller = waiting,
        }
    } else {
        for warning in &warnings {
            say(warning);
        }
    }
    let mut progress = Progress::new(caller);
    let changed = resources.change_user(config);
    let log = changed.and_then(|()| start_log(resources.log.clone(), config.verbose));
    let log = match log {
        Err(failure) if progress.failed(&failure) => return Ok(failure.status),
        log => log?,
    };
    let ended = work(config, resources, (launch, None), &log, &mut progress);
    conclude(config, ended, &log, &mut progress)
}

/// Goes on in a hand-over, as the new binary, with what the old binary has left (O2).
fn resume(mut arrival: Arrival) -> Result<ExitStatus, Failure> {
    let config = or_back(arrival.config())?;
    let resources = Resources::resume(&config, &mut arrival)?;
    let mut progress = Progress::new(Caller::none());
    let log = or_back(start_log(resources.log.clone(), config.verbose))?;
    let (launch, arrived, estate) = arrival.taken();
    let left = Some((arrived, estate));
    let ended = work(&config, resources, (launch, left), &log, &mut progress);
    conclude(&config, ended, &log, &mut progress)
}

/// Says why we end, where it can be read.
fn conclude(
    config: &Config,
    ended: Result<ExitStatus, Failure>,
    log: &Log,
    progress: &mut Progress,
) -> Result<ExitStatus, Failure> {
    match ended {
        // The caller of `-D`, which still waits, says it.
        Err(failure) if progress.failed(&failure) => Ok(failure.status),
        Err(failure) if log.is_on_stderr_alone() => Err(failure),
        // The log has it for those who read it later. Standard error gets it too, unless the log is there already or
        // standard error is /dev/null (`-D`).
        Err(failure) => {
            tracing::error!("{}", failure.reason);
            let is_said = config.daemon || log.is_on_stderr();
            if is_said { Ok(failure.status) } else { Err(failure) }
        }
        ended => ended,
    }
}

fn start_log(log: log::Sinks, verbose: bool) -> Result<Log, Failure> {
    signals::hold_back().context("cannot block signals")?;
    // Lines that we log while the program has the terminal must not stop us (`stty tostop`). Threads inherit the mask.
    let mut unhandled = SigSet::empty();
    unhandled.add(SIGTTOU);
    unhandled.thread_block().context("cannot block SIGTTOU")?;
    Ok(log.start(verbose)?)
}

/// Starts the runtime, and does the work in it.
fn work(
    config: &Config,
    mut resources: Resources,
    (launch, left): (Launch, Option<(Arrived, Estate)>),
    log: &Log,
    progress: &mut Progress,
) -> Result<ExitStatus, Failure> {
    let (arrived, mut estate) = left.unzip();
    let is_first = arrived.is_none();
    if is_first {
        resources.pid_file.as_mut().map_or(Ok(()), PidFile::write)?;
    }
    or_back(progress.find_systemd().context("cannot start a thread").map_err(Failure::from))?;
    let watchdog = progress.watchdog();
    if let Destination::Program(_) = config.destination {
        let subreaper = nix::sys::prctl::set_child_subreaper(true);
        let subreaper = subreaper.context("cannot become a child subreaper");
        or_back(subreaper.map_err(Failure::from))?;
    }
    if is_first {
        report(config, &resources);
    }
    let held = resources.held();
    // What the traffic letters mean is shown once, not again after a hand-over.
    let letters = config.letters.map(|legend| if is_first { legend } else { Legend::Left });
    let letters = letters.map(log::letters::start).transpose().context("cannot start a thread");
    let letters = or_back(letters.map_err(Failure::from))?;
    let runtime = or_back(runtime::start().map_err(Failure::from))?;
    // block_on stays on this thread, the main one, as program/spawn.rs needs it.
    let status = runtime.block_on(async {
        let Resources {
            public,
            mut admin,
            mut certificates,
            mut authentication,
            mut target_tls,
            mut tokens,
            private,
            directories,
            open_files,
            users,
            apart,
            ..
        } = resources;
        let mut left = estate.as_mut().map(Estate::open);
        let told = config.client_address.told;
        let clients = match &mut left {
            Some(left) => or_back(left.clients(told).map_err(Failure::from))?,
            None => told.map(ClientTableFile::make).transpose()?,
        };
        let clients = clients.map(Arc::new);
        let traffic = letters.as_ref().map(|(traffic, _)| traffic.clone());
        let signals = Signals::catch().context("cannot catch signals");
        let mut signals = or_back(signals.map_err(Failure::from))?;
        // After a hand-over, the old binary is to get them if it must go on.
        if is_first {
            signals.release();
        }
        let aside = Aside::default();
        if let Some(arrived) = &arrived {
            arrived.note_rests(&aside);
            if arrived.has_reported_tls() {
                certificates.was_reported();
            }
        }
        let user = users.ours().cloned();
        let surroundings = Surroundings { open_files, aside: aside.clone(), user };
        let knows_tokens = tokens.as_mut().and_then(Tokens::take_helper);
        let lets_in = authentication.as_mut().and_then(Authentication::take_helper);
        let standing = arrived.as_ref().map_or_else(Standing::default, Arrived::standing);
        let begun = admin.as_mut().map(|admin| admin.begin(config, standing.clone())).transpose();
        let (server, admin) = match or_back(begun.map_err(Failure::from))? {
            Some((server, handle)) => (Some(server), handle),
            None => (None, AdminHandle::without(standing)),
        };
        let mut administration = pin!(OptionFuture::from(server.map(Server::serve)));
        let starting = async {
            if is_first {
                return Helpers::start(knows_tokens, lets_in, &surroundings).await;
            }
            Ok(Helpers::resume(knows_tokens, lets_in, &surroundings))
        };
        let helpers = tokio::select! {
            // After a hand-over this branch, which is first, is ready at once: a stop or a drain is left to the main
            // loop.
            biased;
            helpers = starting => helpers?,
            // Starting a plugin may take long.
            () = signals.stop() => return Ok(ExitStatus::SUCCESS),
            () = admin.requests.drain() => return Ok(ExitStatus::SUCCESS),
            Some(never) = &mut administration => match never {},
        };
        let renewal = certificates.renew(Arc::clone(&private));
        let of_targets = target_tls.as_mut().map(TargetTls::renew);
        let host = Host {
            signals,
            progress,
            log,
            certificates,
            authentication,
            target_tls,
            tokens,
            aside,
            private,
            reopening: Reopening::default(),
            directories,
            open_files,
            users,
            apart,
            clients,
            traffic,
            letters: letters.as_ref().map(|(_, writer)| writer),
            drain: Drain::new(config.limits.drain_timeout),
            admin,
            hand_over: HandOver::default(),
            succession: Succession::new(launch, held, arrived),
        };
        tokio::select! {
            status = serve(config, (public, left), host) => status,
            never = watchdog => match never {},
            Some(never) = &mut administration => match never {},
            never = renewal => match never {},
            Some(never) = OptionFuture::from(of_targets) => match never {},
            never = helpers.serve() => match never {},
            never = log.count_repeats() => match never {},
        }
    });
    // Otherwise a thread that is resolving a name would hold up our end for as long as its resolver likes.
    runtime.shutdown_background();
    status
}

/// Logs the warnings about the configuration and about the resources that we have taken.
fn report(config: &Config, resources: &Resources) {
    config.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    resources.losses(config).iter().for_each(|loss| tracing::warn!("{loss}"));
    resources.certificates.report();
    resources.target_tls.iter().for_each(TargetTls::report);
    resources.warning(config).iter().for_each(|warning| tracing::warn!("{warning}"));
}

/// Bridges until the end: with a public endpoint that is to be opened, or with what the old binary has left.
async fn serve(
    config: &Config,
    (public, left): (Option<PublicEndpoint>, Option<Left<'_>>),
    mut host: Host<'_>,
) -> Result<ExitStatus, Failure> {
    let open_files = host.open_files.hard;
    let announcement = Announcement { proxying: config.proxying.clone(), open_files };
    let (rests, hand_over) = (Rests::new(host.aside.clone()), host.hand_over.clone());
    let around = Around { announcement, rests, hand_over };
    let directory = match &config.destination {
        Destination::Service(endpoint) => {
            host.progress.status(&format!("Bridging to {endpoint}"));
            endpoint.clone().into()
        }
        Destination::Tokens(spec) => {
            host.progress.status(&format!("Bridging to targets of {}", spec.plugin.name()));
            let tokens = host.tokens.as_ref().expect("they are opened where they are asked for");
            tokens.prepare();
            tokens.directory()
        }
        Destination::Program(spec) => {
            return wrap(config, spec, (public, left), around, host).await;
        }
    };
    let bridge = host.for_bridge(config, directory);
    let relay = match (public, left) {
        (Some(public), _) => Relay::hold(public, bridge, around),
        (None, Some(left)) => {
            let Left { relay, frozen, handed, .. } = left;
            let state =
                or_back(relay.context("it says nothing of the bridge").map_err(Failure::from))?;
            let taken = Relay::take_over((state, frozen, handed), bridge, around);
            let (relay, originals) = or_back(taken.map_err(Failure::from))?;
            host.succession.keep(originals);
            relay
        }
        (None, None) => unreachable!("either was acquired"),
    };
    bridge_to_service(relay, host).await
}

/// The bridge to a program, which is supervised.
async fn wrap(
    config: &Config,
    spec: &ProgramSpec,
    (public, left): (Option<PublicEndpoint>, Option<Left<'_>>),
    around: Around,
    mut host: Host<'_>,
) -> Result<ExitStatus, Failure> {
    let bridge = |target: bridge::Destination| host.for_bridge(config, target.into());
    let (relay, begin) = match (public, left) {
        (Some(public), _) => {
            (ProgramRelay::hold(public, &spec.policy, bridge, around), Begin::Fresh)
        }
        (None, Some(left)) => {
            let Left { program, frozen, handed, .. } = left;
            let state =
                or_back(program.context("it says nothing of the program").map_err(Failure::from))?;
            let resumed = Resumption::of((state, frozen, handed), spec, bridge, around);
            or_back(resumed.map_err(Failure::from))?
        }
        (None, None) => unreachable!("either was acquired"),
    };
    host.admin.standing.watch(relay.view());
    program::supervise(spec, relay, &mut host, begin).await
}

/// The plain bridge, without a program.
async fn bridge_to_service(mut relay: Relay, mut host: Host<'_>) -> Result<ExitStatus, Failure> {
    host.admin.standing.watch(relay.view());
    if host.succession.is_arriving() {
        host.settle().await;
        relay.settle();
    } else {
        relay.open()?;
        host.certificates.report_off();
        host.progress.up(host.log);
        host.progress.accepting();
    }
    // Those that have ended while helpers were started.
    host.collect_children();
    let mut ending = Ending::No;
    loop {
        let asked = tokio::select! {
            status = relay.ended() => {
                host.drain.end(Duration::ZERO, host.progress);
                return Ok(status);
            }
            signal = host.signals.next() => match signal {
                Signal::Stop => Some(EndRequest::Stop),
                Signal::Child => {
                    host.collect_children();
                    None
                }
                Signal::Reload => {
                    host.reload();
                    None
                }
                Signal::HandOver => {
                    host.begin_hand_over(can_hand_over(&relay, ending));
                    None
                }
            },
            verdict = host.succession.tried() => {
                let can = verdict.and_then(|()| can_hand_over(&relay, ending));
                if let Some(departure) = host.stand_still(can, relay.is_open()).await {
                    let parts = Parts { relay: Some(relay.save()), program: None };
                    host.leave(departure, parts).await;
                }
                None
            }
            request = host.admin.requests.next() => match request {
                MainLoopRequest::Drain => Some(EndRequest::Drain),
                // There is no program.
                MainLoopRequest::Look => None,
            },
            () = until(host.drain.until()) => Some(EndRequest::Deadline),
            () = host.drain.news() => {
                host.drain.tell(host.progress);
                None
            }
        };
        let next = asked.map_or(ending, |asked| ending.step(asked, host.drain.time()));
        if next != ending {
            end_service(&mut relay, &mut host, next);
        }
        ending = next;
        if ending == Ending::Over {
            return Ok(ExitStatus::SUCCESS);
        }
    }
}

/// Whether a hand-over to a new binary can begin now.
fn can_hand_over(relay: &Relay, ending: Ending) -> Result<(), String> {
    match ending {
        Ending::No => relay.can_hand_over(),
        Ending::Draining => Err("websockify is draining".into()),
        Ending::Stopping | Ending::Over => Err("websockify is ending".into()),
    }
}

fn end_service(relay: &mut Relay, host: &mut Host<'_>, ending: Ending) {
    match ending {
        Ending::Draining => {
            host.progress.stopping();
            relay.end(Shutdown::Drain);
            let until = Instant::now() + host.drain.time();
            host.drain.begin(until, 0, host.progress);
        }
        Ending::Stopping => {
            host.drain.end(Duration::ZERO, host.progress);
            host.progress.stopping();
            relay.end(Shutdown::Now);
        }
        Ending::No | Ending::Over => {}
    }
}
