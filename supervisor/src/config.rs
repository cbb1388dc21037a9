//! The configuration: what the command line means. Every rule between options stands here, and after it no impossible
//! combination exists. Opens nothing; that is done in `resources.rs`.

pub(crate) mod access;
pub(crate) mod address;
mod admin;
mod allowed;
mod auth;
mod client_address;
mod clients;
mod helper;
mod listen;
mod log;
mod origin;
mod route;
mod subprotocols;
mod target_tls;
mod tokens;
mod users;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bridge::Upkeep;
use bridge::tls::Authorities;

use crate::cli::{Args, AuthPlugin, RebindEngine, SslVersion, StartArg, WrapModeArg};
use crate::log::Requested;
use crate::log::letters::Legend;
use crate::machine::{memory, search_path};
use crate::program::state::{Policy, Start, WrapMode};
use crate::usage::{UsageError, invalid};
use access::Access;
pub(crate) use admin::{AdminPlace, AdminSpec};
pub(crate) use auth::{AuthBy, AuthKind, AuthSource, AuthSpec, expected as expected_auth};
pub(crate) use client_address::{ClientAddressSpec, Told};
pub(crate) use clients::Clients;
pub(crate) use helper::{Class, HelperSpec};
pub(crate) use listen::Listen;
pub(crate) use tokens::{TokenKind, TokenSource, TokensSpec, kind as token_kind};
pub(crate) use users::{UserSpec, UsersSpec, one_user};

/// Everything that was asked for. Made once, and never changed.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) listen: Listen,
    pub(crate) destination: Destination,
    pub(crate) limits: Limits,
    pub(crate) access: Access,
    /// What targets see of clients.
    pub(crate) client_address: ClientAddressSpec,
    pub(crate) clients: Clients,
    /// Who may have signed a target's certificate, where targets are spoken to in TLS.
    pub(crate) target_tls: Option<Authorities>,
    /// Sub-protocols that are confirmed to clients that offer them, before those that the bridge knows itself.
    pub(crate) subprotocols: Vec<&'static str>,
    /// The directory that web requests are answered from.
    pub(crate) web: Option<PathBuf>,
    /// Where sessions are recorded: this name, a dot and a number.
    pub(crate) record: Option<PathBuf>,
    pub(crate) verbose: bool,
    pub(crate) daemon: bool,
    /// The users that we and the program run as.
    pub(crate) users: UsersSpec,
    pub(crate) pid_file: Option<PathBuf>,
    /// Where the administrator finds us, if anywhere.
    pub(crate) admin: Option<AdminSpec>,
    pub(crate) log: Requested,
    /// Whether the traffic letters are shown, and whether with their legend.
    pub(crate) letters: Option<Legend>,
    /// What the log says when clients can connect: where they connect, and where they are bridged to.
    pub(crate) proxying: String,
    /// Whether directories are listed to web requests.
    pub(crate) lists_directories: bool,
    /// Warnings about the command line, to be logged.
    pub(crate) warnings: Vec<String>,
}

/// What clients are bridged to.
#[derive(Debug)]
pub(crate) enum Destination {
    /// A server that somebody else runs.
    Service(bridge::Endpoint),
    /// The servers that tokens lead to.
    Tokens(TokensSpec),
    /// A program that we run.
    Program(ProgramSpec),
}

/// The program to wrap.
#[derive(Debug)]
pub(crate) struct ProgramSpec {
    /// Its name or path, then its arguments.
    pub(crate) command: Vec<OsString>,
    /// For log records.
    pub(crate) name: String,
    /// The port that it binds, and that the engine moves.
    pub(crate) port: u16,
    pub(crate) rebind_lib: Option<PathBuf>,
    pub(crate) rebind_engine: RebindEngine,
    pub(crate) policy: Policy,
}

/// How many sessions there may be, and for how long.
#[derive(Debug)]
pub(crate) struct Limits {
    pub(crate) run_once: bool,
    /// When `--timeout` runs out: it counts from our start, also while nobody listens yet.
    pub(crate) timeout: Option<Instant>,
    pub(crate) idle_timeout: Option<Duration>,
    /// How long sessions may go on when we are asked to end; zero: not at all.
    pub(crate) drain_timeout: Duration,
    pub(crate) upkeep: Upkeep,
    /// How many client connections may be open at once, if an option says.
    pub(crate) max_connections: Option<usize>,
    /// How much memory may be used for all clients together, MiB, if an option says.
    pub(crate) max_memory: Option<usize>,
}

impl Limits {
    /// How much memory may be used for all clients together, bytes.
    pub(crate) fn memory(&self) -> usize {
        let typed = self.max_memory.map(|mebibytes| mebibytes.saturating_mul(1 << 20));
        typed.unwrap_or_else(memory::for_clients)
    }

    /// How many client connections may be open at once under this limit on open files. A connection needs two file
    /// descriptors; some are kept for ourselves: without them we could not look at the program's processes, and not
    /// keep our promises about the program.
    pub(crate) fn connections(&self, open_files: u64) -> usize {
        let ours = (open_files / 2).min(OUR_FILES);
        let possible = usize::try_from((open_files - ours) / 2).unwrap_or(usize::MAX);
        self.max_connections.unwrap_or(MAX_CONNECTIONS).min(possible.max(1))
    }
}

/// How many client connections may be open at once, by default.
const MAX_CONNECTIONS: usize = 20_000;

/// The greatest number that an option takes: in seconds, more than a century.
const MOST: u32 = u32::MAX;

/// How long a client waits for the program to listen, and how long the program may take to end, by default.
const WRAP_TIMEOUT: Duration = Duration::from_secs(30);
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// How many open files we need besides the sessions', at most.
const OUR_FILES: u64 = 100;

impl Config {
    /// What `args` mean. `--timeout` counts from `start`.
    pub(crate) fn new(mut args: Args, start: Instant) -> Result<Self, UsageError> {
        let listen = listen::read(&mut args)?;
        let unused_target = unused_target(&mut args, &listen);
        let limits = Limits {
            run_once: args.run_once,
            timeout: limit("--timeout", &args.timeout)?.map(|timeout| start + timeout),
            idle_timeout: limit("--idle-timeout", &args.idle_timeout)?,
            drain_timeout: seconds("--drain-timeout", &args.drain_timeout)?,
            upkeep: Upkeep {
                heartbeat: limit("--heartbeat", &args.heartbeat)?,
                timeout: limit("--session-timeout", &args.session_timeout)?,
                idle_timeout: limit("--session-idle-timeout", &args.session_idle_timeout)?,
                expires: args.session_expires,
            },
            max_connections: args
                .max_connections
                .as_deref()
                .map(|typed| number("--max-connections", typed))
                .transpose()?,
            max_memory: args
                .max_memory
                .as_deref()
                .map(|typed| number("--max-memory", typed))
                .transpose()?,
        };
        let record = args.record.as_deref().map(record).transpose()?;
        let access = Access::new(&args)?;
        let client_address = ClientAddressSpec::new(&args)?;
        let clients = Clients::new(&args)?;
        let target_tls = target_tls::authorities(&args)?;
        let subprotocols = args.subprotocol.as_deref().map(subprotocols::named).transpose()?;
        let log = log::requested(&args)?;
        let tokens = tokens::spec(&args)?;
        let plugin = tokens.as_ref().map(|spec| spec.plugin.name());
        let (letters, proxying) = (letters(&args), route::proxying(&args, plugin));
        let lists_directories = !args.file_only;
        let (verbose, daemon, pid_file) = (args.verbose, args.daemon, args.pid_file.clone());
        let users = users::spec(&args)?;
        let admin = AdminSpec::new(&args)?;
        let (web, mut warnings) = (args.web.clone(), warnings(&args));
        warnings.extend(unused_target);
        warnings.extend(admin.as_ref().and_then(AdminSpec::warning));
        let destination = destination(args, tokens, &listen)?;
        Ok(Self {
            listen,
            destination,
            limits,
            access,
            client_address,
            clients,
            target_tls,
            subprotocols: subprotocols.unwrap_or_default(),
            web,
            record,
            verbose,
            daemon,
            users,
            pid_file,
            admin,
            log,
            letters,
            proxying,
            lists_directories,
            warnings,
        })
    }

    /// Whether the value of this option has a password in it; it is one of the options that may (`cli/secrets.rs`).
    /// What a Python class is told may be a password, and so may a value that is not used.
    pub(crate) fn is_secret(&self, option: &str, typed: &[u8]) -> bool {
        match option {
            "auth-source" => self.access.auth.as_ref().is_some_and(|auth| match &auth.plugin {
                AuthBy::Ours(plugin) => *plugin == AuthPlugin::BasicHttpAuth,
                AuthBy::Class(_) => true,
            }),
            "token-source" => match &self.destination {
                Destination::Tokens(TokensSpec { source: TokenSource::Typed(kind), .. }) => {
                    match kind {
                        // config/tokens.rs makes what was typed absolute.
                        TokenKind::Own(kind) => kind.path().is_none_or(|path| {
                            let typed = std::path::absolute(OsStr::from_bytes(typed));
                            typed.ok().as_deref() != Some(path)
                        }),
                        TokenKind::Helper(helper) => matches!(helper, HelperSpec::Class(_)),
                    }
                }
                _ => true,
            },
            _ => true,
        }
    }
}

impl Destination {
    /// The name of the token plugin, if tokens are used.
    pub(crate) fn token_source(&self) -> Option<String> {
        match self {
            Self::Tokens(spec) => Some(spec.plugin.name().to_owned()),
            Self::Service(_) | Self::Program(_) => None,
        }
    }
}

/// A number of things, at least one.
fn number(option: &str, typed: &str) -> Result<usize, UsageError> {
    let number = address::whole(typed).filter(|number| (1..=MOST).contains(number));
    number
        .and_then(|number| number.try_into().ok())
        .ok_or_else(|| invalid(option, typed, &format!("a whole number from 1 to {MOST}")))
}

/// The beginning of the names of recordings. Whether the file system takes such a name is not checked here.
fn record(typed: &Path) -> Result<PathBuf, UsageError> {
    let is_name = typed.file_name().is_some();
    is_name
        .then(|| typed.to_owned())
        .ok_or_else(|| invalid("--record", &typed.to_string_lossy(), "the name of a file"))
}

/// Removes a target beside an option that says where clients go, and gives a warning. The Python websockify took such a
/// target until 0.8.0, without looking at it, but behind a source port only.
fn unused_target(args: &mut Args, listen: &Listen) -> Option<String> {
    let unix_target = args.unix_target.as_ref().map(|_| "--unix-target");
    let option = unix_target.or(tokens::option(args))?;
    if args.program.is_some() || !matches!(listen, Listen::Port(_)) {
        return None;
    }
    let target = args.target.take()?;
    Some(format!("target '{target}' is not used: option '{option}' says where clients go"))
}

fn destination(
    args: Args,
    tokens: Option<TokensSpec>,
    listen: &Listen,
) -> Result<Destination, UsageError> {
    let given = [
        args.target.as_ref().map(|target| format!("target '{target}'")),
        args.unix_target.as_ref().map(|_| "option '--unix-target'".to_owned()),
        tokens::option(&args).map(|option| format!("option '{option}'")),
        args.program.as_ref().map(|_| "a program after '--'".to_owned()),
    ];
    let given: Vec<_> = given.into_iter().flatten().collect();
    if let [one, other, ..] = &*given {
        return Err(UsageError(format!("{one} and {other} exclude each other")));
    }
    if args.program.is_some() {
        return program(args, listen).map(Destination::Program);
    }
    if !given.is_empty() {
        needs_program(&args)?;
    }
    match (&args.target, &args.unix_target, tokens) {
        (Some(target), ..) => {
            let endpoint = address::service(target);
            endpoint.map(Destination::Service).map_err(|error| maybe_program(target, error))
        }
        (None, Some(path), _) => {
            let path = std::path::absolute(path);
            let path = path.map_err(|_| invalid("--unix-target", "", "the path of a socket"))?;
            Ok(Destination::Service(bridge::Endpoint::Unix(path)))
        }
        (None, None, Some(tokens)) => Ok(Destination::Tokens(tokens)),
        (None, None, None) => Err(UsageError(
            "neither a target (HOST:PORT) nor a program (after '--') given; try 'websockify --help'".into(),
        )),
    }
}

/// Refuses options about the program where there is none. `--wrap-mode` is only warned of, in [`warnings`].
fn needs_program(args: &Args) -> Result<(), UsageError> {
    let typed = [
        ("--start", args.start.is_some()),
        ("--stop-idle", args.stop_idle.is_some()),
        ("--program-port", args.program_port.is_some()),
        ("--wrap-timeout", args.wrap_timeout.is_some()),
        ("--stop-timeout", args.stop_timeout.is_some()),
        ("--program-user", args.program_user.is_some()),
        ("--rebind-lib", args.rebind_lib.is_some()),
        ("--rebind-engine", args.rebind_engine.is_some()),
        ("--program-access", args.program_access.is_some()),
    ];
    match typed.into_iter().find(|(_, is_typed)| *is_typed) {
        Some((option, _)) => {
            Err(UsageError(format!("option '{option}' needs a program after '--'")))
        }
        None => Ok(()),
    }
}

/// The error for a wrong target. A lone name may be a program, with the `--` before it forgotten.
fn maybe_program(target: &str, error: UsageError) -> UsageError {
    if target.contains("://") || !search_path::is_program(OsStr::new(target)) {
        return error;
    }
    let UsageError(line) = error;
    UsageError(format!("{line}; a program stands behind '--': websockify ... -- {target}"))
}

/// Whether the traffic letters are shown; `-v` shows their legend, too. A daemon shows none: its standard output is
/// /dev/null.
fn letters(args: &Args) -> Option<Legend> {
    let asked = match (args.verbose, args.traffic) {
        (true, _) => Some(Legend::Shown),
        (false, true) => Some(Legend::Left),
        (false, false) => None,
    };
    asked.filter(|_| !args.daemon)
}

/// Warnings about options that change nothing. They are not refused: the Python websockify takes them in silence, and
/// people have them in their command lines.
fn warnings(args: &Args) -> Vec<String> {
    let vain = [
        (
            args.wrap_mode.is_some() && args.program.is_none(),
            "option '--wrap-mode' changes nothing without a program after '--'",
        ),
        (
            args.rebind_lib.is_some() && args.rebind_engine == Some(RebindEngine::Seccomp),
            "option '--rebind-lib' changes nothing under '--rebind-engine=seccomp'",
        ),
        (args.libserver, "option '--libserver' changes nothing: there is one server"),
        (args.auto_pong, "option '--auto-pong' changes nothing: a ping is always answered"),
        (
            args.traffic && args.daemon,
            "option '--traffic' changes nothing under '--daemon', which has no standard output",
        ),
        (
            args.file_only && args.web.is_none(),
            "option '--file-only' changes nothing without '--web'",
        ),
        (
            args.unix_listen_mode.is_some() && args.unix_listen.is_none(),
            "option '--unix-listen-mode' changes nothing without '--unix-listen'",
        ),
        (
            args.cafile.is_some() && !args.verify_client,
            "option '--cafile' changes nothing without '--verify-client'",
        ),
        (
            args.ssl_version == Some(SslVersion::Tlsv1_1),
            "option '--ssl-version=tlsv1_1' gives TLS 1.2, the oldest version that there is here",
        ),
        (
            args.target_config.is_some() && args.token_plugin.is_some(),
            "option '--token-plugin' changes nothing beside '--target-config'",
        ),
    ];
    vain.into_iter().filter(|(is_vain, _)| *is_vain).map(|(_, line)| line.to_owned()).collect()
}

fn program(args: Args, listen: &Listen) -> Result<ProgramSpec, UsageError> {
    let port = program_port(&args, listen)?;
    let start = start(&args)?;
    let command = args.program.unwrap_or_default();
    let name = match command.first() {
        Some(name) if !name.is_empty() => name.display().to_string(),
        _ => return Err(UsageError("no program after '--'".into())),
    };
    let policy = Policy {
        mode: match args.wrap_mode {
            None | Some(WrapModeArg::Exit) => WrapMode::Exit,
            Some(WrapModeArg::Ignore) => WrapMode::Ignore,
            Some(WrapModeArg::Respawn) => WrapMode::Respawn,
        },
        start,
        wrap_timeout: seconds_or(WRAP_TIMEOUT, "--wrap-timeout", args.wrap_timeout.as_deref())?,
        stop_timeout: seconds_or(STOP_TIMEOUT, "--stop-timeout", args.stop_timeout.as_deref())?,
        drain_timeout: seconds("--drain-timeout", &args.drain_timeout)?,
    };
    let rebind_engine = args.rebind_engine.unwrap_or(RebindEngine::Auto);
    Ok(ProgramSpec { command, name, port, rebind_lib: args.rebind_lib, rebind_engine, policy })
}

fn start(args: &Args) -> Result<Start, UsageError> {
    match (args.start, &args.stop_idle) {
        (Some(StartArg::OnDemand), typed) => {
            let stop_idle = limit("--stop-idle", typed.as_deref().unwrap_or("0"))?;
            Ok(Start::OnDemand { stop_idle })
        }
        (None | Some(StartArg::Now), Some(_)) => {
            Err(UsageError("option '--stop-idle' needs '--start=on-demand'".into()))
        }
        (None | Some(StartArg::Now), None) => Ok(Start::Now),
    }
}

/// The port that the program binds. Where clients connect to no port but to a Unix socket or by inetd, it may stand in
/// the source port's place.
fn program_port(args: &Args, listen: &Listen) -> Result<u16, UsageError> {
    match (&args.program_port, listen, &args.source) {
        (Some(_), Listen::Unix { .. } | Listen::Inetd, Some(source)) => {
            Err(UsageError(format!("port '{source}' and '--program-port' exclude each other")))
        }
        (Some(typed), ..) => address::port(typed)
            .filter(|port| *port != 0)
            .ok_or_else(|| invalid("--program-port", typed, "a port number from 1 to 65535")),
        (None, Listen::Port(source), _) if source.port == 0 => {
            Err(UsageError("source port 0 needs '--program-port' with a program".into()))
        }
        (None, Listen::Port(source), _) => Ok(source.port),
        (None, Listen::Unix { .. } | Listen::Inetd, Some(typed)) => listen::program_port(typed),
        (None, Listen::Unix { .. } | Listen::Inetd, None) => Err(UsageError(
            "the program's port is not given: it stands before '--', or in '--program-port'".into(),
        )),
    }
}

fn seconds_or(
    default: Duration,
    option: &str,
    typed: Option<&str>,
) -> Result<Duration, UsageError> {
    typed.map_or(Ok(default), |typed| seconds(option, typed))
}

fn seconds(option: &str, typed: &str) -> Result<Duration, UsageError> {
    typed
        .parse::<f64>()
        .ok()
        .and_then(|number| Duration::try_from_secs_f64(number).ok())
        .filter(|duration| *duration <= Duration::from_secs(MOST.into()))
        .ok_or_else(|| invalid(option, typed, &format!("a number of seconds from 0 to {MOST}")))
}

/// A limit in seconds. 0 means no limit, as in the Python websockify.
fn limit(option: &str, typed: &str) -> Result<Option<Duration>, UsageError> {
    seconds(option, typed).map(|duration| Some(duration).filter(|duration| !duration.is_zero()))
}

#[cfg(test)]
mod tests;
