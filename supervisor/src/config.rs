//! From what was typed to what the program needs: every rule between options stands here, and after
//! it no impossible combination exists. Opens nothing; what takes that is `resources.rs`'s.

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
    /// Sub-protocols that are confirmed before ours.
    pub(crate) subprotocols: Vec<&'static str>,
    /// The directory that web requests are answered from.
    pub(crate) web: Option<PathBuf>,
    /// Where sessions are recorded: this name, a dot and a number.
    pub(crate) record: Option<PathBuf>,
    pub(crate) verbose: bool,
    pub(crate) daemon: bool,
    /// As whom we and the program run.
    pub(crate) users: UsersSpec,
    pub(crate) pid_file: Option<PathBuf>,
    /// Where the administrator finds us, if anywhere.
    pub(crate) admin: Option<AdminSpec>,
    pub(crate) log: Requested,
    /// Whether letters are shown, and how.
    pub(crate) letters: Option<Legend>,
    /// What the log says when clients can come: from where to where they are brought.
    pub(crate) proxying: String,
    /// Whether directories are listed to web requests.
    pub(crate) lists_directories: bool,
    /// What was asked for in vain, to be logged.
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
    /// How many client connections may be open at once, if somebody says.
    pub(crate) max_connections: Option<usize>,
    /// How much memory clients may have us keep in all, MiB, if somebody says.
    pub(crate) max_memory: Option<usize>,
}

impl Limits {
    /// How much memory clients may have us keep in all, bytes.
    pub(crate) fn memory(&self) -> usize {
        let typed = self.max_memory.map(|mebibytes| mebibytes.saturating_mul(1 << 20));
        typed.unwrap_or_else(memory::for_clients)
    }

    /// How many client connections may be open at once under this limit on open files. A connection
    /// needs two; some are left to ourselves: who cannot look at the program's processes cannot keep
    /// its word about them.
    pub(crate) fn connections(&self, open_files: u64) -> usize {
        let ours = (open_files / 2).min(OUR_FILES);
        let possible = usize::try_from((open_files - ours) / 2).unwrap_or(usize::MAX);
        self.max_connections.unwrap_or(MAX_CONNECTIONS).min(possible.max(1))
    }
}

/// How many client connections may be open at once, if nobody says.
const MAX_CONNECTIONS: usize = 20_000;

/// The greatest number that an option takes: in seconds, more than a century.
const MOST: u32 = u32::MAX;

/// How long a client waits for the program to listen, and the program may take to end, if nobody says.
const WRAP_TIMEOUT: Duration = Duration::from_secs(30);
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// How many open files we need besides the sessions', at most.
const OUR_FILES: u64 = 100;

impl Config {
    /// What `args` mean, typed at the time of `start`.
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

    /// Whether the value of this option, of those that may, has a password in it. What a class of somebody's is told may
    /// be one.
    pub(crate) fn is_secret(&self, option: &str) -> bool {
        match option {
            "auth-source" => self.access.auth.as_ref().is_some_and(|auth| match &auth.plugin {
                AuthBy::Ours(plugin) => *plugin == AuthPlugin::BasicHttpAuth,
                AuthBy::Class(_) => true,
            }),
            "token-source" => match &self.destination {
                Destination::Tokens(TokensSpec { source: TokenSource::Typed(kind), .. }) => {
                    match kind {
                        TokenKind::Own(kind) => kind.path().is_none(),
                        TokenKind::Helper(helper) => matches!(helper, HelperSpec::Class(_)),
                    }
                }
                _ => false,
            },
            _ => true,
        }
    }
}

impl Destination {
    /// What knows the tokens, by the name under which it was asked for.
    pub(crate) fn token_source(&self) -> Option<String> {
        match self {
            Self::Tokens(spec) => Some(spec.plugin.name().to_owned()),
            Self::Service(_) | Self::Program(_) => None,
        }
    }
}

/// How many there may be of something; none is not enough.
fn number(option: &str, typed: &str) -> Result<usize, UsageError> {
    let number = address::whole(typed).filter(|number| (1..=MOST).contains(number));
    number
        .and_then(|number| number.try_into().ok())
        .ok_or_else(|| invalid(option, typed, &format!("a whole number from 1 to {MOST}")))
}

/// The beginning of a file's name. What the disk says to it is no matter of the command line.
fn record(typed: &Path) -> Result<PathBuf, UsageError> {
    let is_name = typed.file_name().is_some();
    is_name
        .then(|| typed.to_owned())
        .ok_or_else(|| invalid("--record", &typed.to_string_lossy(), "the name of a file"))
}

/// Takes away a target beside an option that says where to go, and says so. Upstream took that until 0.8.0, without a
/// look at the target, but behind a source port only.
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

/// The options that say how to wrap mean nothing beside a target, but for the one of [`warnings`].
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

/// A lone name in the target's place may be a program that somebody forgot the dashes before.
fn maybe_program(target: &str, error: UsageError) -> UsageError {
    if target.contains("://") || !search_path::is_program(OsStr::new(target)) {
        return error;
    }
    let UsageError(line) = error;
    UsageError(format!("{line}; a program stands behind '--': websockify ... -- {target}"))
}

/// `-v` shows what they mean, too. A daemon's standard output is /dev/null.
fn letters(args: &Args) -> Option<Legend> {
    let asked = match (args.verbose, args.traffic) {
        (true, _) => Some(Legend::Shown),
        (false, true) => Some(Legend::Left),
        (false, false) => None,
    };
    asked.filter(|_| !args.daemon)
}

/// What upstream takes in silence, as people have it in their command lines.
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

/// The port that the program binds. Where clients come to no port, it may stand in the source's place.
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

/// A number of seconds, of which 0 means none as it does in upstream.
fn limit(option: &str, typed: &str) -> Result<Option<Duration>, UsageError> {
    seconds(option, typed).map(|duration| Some(duration).filter(|duration| !duration.is_zero()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Refusal;

    fn config(line: &str) -> Result<Config, String> {
        let args = line.split_whitespace().map(OsString::from);
        match Args::parse_from_os(std::iter::once("websockify".into()).chain(args)) {
            Ok(args) => Config::new(args, Instant::now()).map_err(|UsageError(line)| line),
            Err(Refusal::Answer(text) | Refusal::Usage(UsageError(text))) => {
                panic!("{line}: {text}")
            }
        }
    }

    /// W4, W9: how long clients are held, and how long a program may take to end.
    #[test]
    fn w4_w9_the_times_of_a_program_where_nobody_says_otherwise() {
        let Destination::Program(program) = config("80 -- true").unwrap().destination else {
            panic!("a program")
        };
        let Policy { wrap_timeout, stop_timeout, drain_timeout, .. } = program.policy;
        let times = [wrap_timeout, stop_timeout, drain_timeout].map(|time| time.as_millis());
        assert_eq!(times, [30_000, 10_000, 0]);
    }

    #[test]
    fn c4_rules_between_options() {
        for (line, part) in [
            ("80", "neither a target"),
            ("80 a:1 -- true", "exclude each other"),
            ("80 --", "neither a target"),
            ("0 -- true", "--program-port"),
            ("80 --program-port=0 -- true", "'0' for '--program-port'"),
            ("80 --program-port=5 a:1", "'--program-port' needs a program"),
            ("80 --wrap-timeout=x -- true", "'x' for '--wrap-timeout'"),
            ("80 --timeout -5 a:1", "'-5' for '--timeout'"),
            ("80 --stop-timeout=-1 -- true", "'-1' for '--stop-timeout'"),
            ("80 --timeout=inf a:1", "'inf' for '--timeout'"),
            ("80 --drain-timeout=soon a:1", "'soon' for '--drain-timeout'"),
            ("80 --drain-timeout=inf a:1", "'inf' for '--drain-timeout'"),
            ("80 --drain-timeout=-1 a:1", "a number of seconds from 0 to 4294967295"),
            ("80 --drain-timeout=1e20 -- true", "'1e20' for '--drain-timeout'"),
            ("80 --max-connections=0 a:1", "'0' for '--max-connections'"),
            ("80 --proxy-protocol a:1", "'--proxy-protocol' needs '--trusted-proxy'"),
            ("80 --trusted-proxy=a.example a:1", "'a.example' for '--trusted-proxy'"),
            ("80 --trusted-proxy= a:1", "no address in the value of '--trusted-proxy'"),
            ("80 --allow-from=10.0.0.0/40 a:1", "'10.0.0.0/40' for '--allow-from'"),
            ("80 --key-password=x --key-password-file=y a:1", "exclude each other"),
            ("80 --session-expires a:1", "'--session-expires' needs '--token-plugin=JWTTokenApi'"),
            (
                "80 --session-expires --target-config=x",
                "'--session-expires' needs '--token-plugin=JWTTokenApi'",
            ),
            ("80 --target-cafile=x a:1", "'--target-cafile' needs '--ssl-target'"),
            ("80 --web-auth a:1", "'--web-auth' needs '--auth-plugin'"),
            ("80 --auth-source=x a:1", "'--auth-source' needs '--auth-plugin'"),
            ("80 --auth-plugin=ExpectOrigin a:1", "'--auth-plugin' needs '--auth-source'"),
            (
                "80 --auth-plugin=ExpectOrigin --auth-source= a:1",
                "'--auth-plugin' needs '--auth-source'",
            ),
            ("80 --auth-plugin=BasicHTTPAuth --auth-source=x a:1", "user:password"),
            (
                "80 --auth-plugin=ClientCertCNAuth --auth-source=x a:1",
                "'--auth-plugin=ClientCertCNAuth' needs '--verify-client'",
            ),
            (
                "80 --auth-plugin=Magic --auth-source=x a:1",
                "'Magic' for '--auth-plugin': expected BasicHTTPAuth, ClientCertCNAuth, ",
            ),
            ("80 --legacy-syslog a:1", "'--legacy-syslog' needs '--syslog'"),
            ("80 --syslog=a:x a:1", "'a:x' for '--syslog'"),
            ("80 --subprotocol=mqtt, a:1", "'mqtt,' for '--subprotocol'"),
            ("80 --record=/ a:1", "'/' for '--record'"),
            ("80 --record=x/.. a:1", "'x/..' for '--record'"),
            ("80 --wrap-timeout=5 a:1", "'--wrap-timeout' needs a program"),
            ("80 --stop-timeout=5 a:1", "'--stop-timeout' needs a program"),
            ("80 --start=on-demand a:1", "'--start' needs a program"),
            ("80 --stop-idle=5 -- true", "'--stop-idle' needs '--start=on-demand'"),
            ("80 --start=now --stop-idle=5 -- true", "needs '--start=on-demand'"),
            ("80 --start=on-demand --stop-idle=x -- true", "'x' for '--stop-idle'"),
            ("80 --rebind-lib=x a:1", "'--rebind-lib' needs a program"),
            ("80 --program-user=x a:1", "'--program-user' needs a program"),
            ("80 --user= a:1", "'' for '--user': expected a user, or USER:GROUP"),
            ("80 --user=a: a:1", "'a:' for '--user'"),
            ("80 --program-user=:b -- true", "':b' for '--program-user'"),
            ("80 --token-source=x a:1", "'--token-source' needs '--token-plugin'"),
            ("80 --token-source-file=x a:1", "'--token-source-file' needs '--token-plugin'"),
            ("80 --token-source=x --target-config=y", "'--token-source' needs '--token-plugin'"),
            ("80 --host-token a:1", "'--host-token' needs '--token-plugin'"),
            ("80 --target-allow=a a:1", "'--target-allow' needs '--token-plugin'"),
            ("80 --token-plugin=TokenFile", "'--token-plugin' needs '--token-source'"),
            (
                "80 --token-plugin=TokenFile --token-source=",
                "'--token-plugin' needs '--token-source'",
            ),
            (
                "80 --token-plugin=BaseTokenAPI --token-source=http://u:secret@h/",
                "invalid value for '--token-source': BaseTokenAPI expects a URL with %s where the token goes: it has \
                 no %s",
            ),
            (
                "80 --token-plugin=JSONTokenApi --token-source=/tokens/%s",
                "'--token-source': JSONTokenApi expects a URL with %s where the token goes: it has no http",
            ),
            (
                "80 --token-plugin=TokenRedis --token-source=h:1:db:secret",
                "for '--token-source': TokenRedis expects host[:port[:db[:password[:namespace]]]]: its database is \
                 no number",
            ),
            (
                "80 --token-plugin=Magic --token-source=x",
                "'Magic' for '--token-plugin': expected TokenFile, ",
            ),
            ("80 --target-config=x --target-allow=a:x", "'a:x' for '--target-allow'"),
            (
                "80 a:1 --target-config=x -- true",
                "target 'a:1' and option '--target-config' exclude",
            ),
            (
                "80 a:1 --target-config=x --unix-target=y",
                "option '--unix-target' and option '--target-config' exclude",
            ),
            ("80 --target-config=x -- true", "'--target-config' and a program after '--' exclude"),
            (
                "80 --target-config=x --unix-target=y",
                "'--unix-target' and option '--target-config'",
            ),
            ("80 a:1 --unix-target=y -- true", "target 'a:1' and option '--unix-target' exclude"),
            ("80 --unix-target=y -- true", "'--unix-target' and a program after '--' exclude"),
            ("--unix-listen=x", "neither a target"),
            ("--unix-listen=x 80 a:1", "unexpected argument 'a:1': with '--unix-listen'"),
            ("--unix-listen=x 80", "'80' for 'TARGET_ADDR:TARGET_PORT'"),
            ("--unix-listen=/ a:1", "'/' for '--unix-listen'"),
            ("--unix-listen=x --unix-listen-mode=8 a:1", "'8' for '--unix-listen-mode'"),
            ("--unix-listen=x --unix-listen-mode -1 a:1", "'-1' for '--unix-listen-mode'"),
            ("--unix-listen=x --unix-target=y a:1", "target 'a:1' and option '--unix-target'"),
            ("--unix-listen=x --target-config=y 80", "target '80' and option '--target-config'"),
            ("--inetd --unix-listen=x a:1", "'--unix-listen' and '--inetd' exclude each other"),
            ("--inetd -D a:1", "'--daemon' and '--inetd' exclude each other"),
            ("--inetd 80 a:1", "unexpected argument 'a:1': with '--inetd'"),
            ("--inetd", "neither a target"),
            ("--unix-listen=x -- true", "the program's port is not given"),
            ("--unix-listen=x 0 -- true", "'0' for 'PROGRAM_PORT'"),
            ("--unix-listen=x a:80 -- true", "'a:80' for 'PROGRAM_PORT'"),
            ("--unix-listen=x 80 --program-port=81 -- true", "exclude each other"),
            ("80 --client-address=socket a:1", "'--client-address=socket' needs a program"),
            ("80 --client-address=socket --target-config=x", "needs a program after '--'"),
            ("80 --program-access=bridge a:1", "'--program-access=bridge' needs a program"),
            ("80 --program-access=anyone a:1", "'--program-access' needs a program"),
            (
                "80 --client-address=socket --rebind-engine=seccomp -- true",
                "'--client-address=socket' and '--rebind-engine=seccomp' exclude each other",
            ),
            (
                "80 --program-access=bridge --rebind-engine=seccomp -- true",
                "'--program-access=bridge' and '--rebind-engine=seccomp' exclude each other",
            ),
            ("80 --admin=9000 a:1", "'9000' for '--admin'"),
            ("80 --admin=0.0.0.0:9000 a:1", "needs '--admin-auth-source-file': other machines"),
            ("80 --admin-auth-source-file=x a:1", "needs '--admin'"),
            ("80 --target-config=x --wrap-timeout=5", "'--wrap-timeout' needs a program"),
        ] {
            let error = config(line).expect_err(line);
            assert!(error.contains(part), "{line}: {error}");
        }
    }

    #[test]
    fn f32_a_number_that_cannot_be_is_answered_with_the_limits() {
        let seconds = [
            "--timeout",
            "--idle-timeout",
            "--heartbeat",
            "--session-timeout",
            "--session-idle-timeout",
            "--wrap-timeout",
            "--stop-timeout",
        ]
        .map(|option| (option, "a number of seconds from 0 to 4294967295"));
        let whole = [
            ("--max-connections", "a whole number from 1 to 4294967295"),
            ("--max-connections-per-client", "a whole number from 1 to 4294967295"),
            ("--max-memory", "a whole number from 1 to 4294967295"),
            ("--program-port", "a port number from 1 to 65535"),
        ];
        for (option, expected) in seconds.into_iter().chain(whole) {
            let mut values = vec!["", "-1", "x", "5000000000", "99999999999999999999999999"];
            if whole.iter().any(|(whole, _)| *whole == option) {
                values.extend(["1.5", "0", "+1"]);
            }
            for value in values {
                let error = config(&format!("80 {option}={value} -- true")).expect_err(value);
                let expected = format!("'{value}' for '{option}': expected {expected}");
                assert!(error.ends_with(&expected), "{error}");
            }
        }
        let limit = |line: &str| config(line).expect(line).limits.idle_timeout;
        let most = Some(Duration::from_secs(MOST.into()));
        assert_eq!(limit("80 a:1 --idle-timeout=4294967295"), most);
        assert_eq!(limit("80 a:1 --idle-timeout=0.5"), Some(Duration::from_millis(500)));
        assert_eq!(limit("80 a:1 --idle-timeout=0"), None);
        let end = |line: &str| config(line).expect(line).limits.timeout;
        let left = end("80 a:1 --timeout=4294967295").expect("an end") - Instant::now();
        assert!(left.as_secs().abs_diff(MOST.into()) <= 60, "{left:?}");
        assert_eq!(end("80 a:1 --timeout=0"), None);
    }

    /// Upstream's are Python classes; `--target-config` has the last word there, too.
    #[test]
    fn k1_a_plugin_may_be_named_with_its_module() {
        for (line, expected) in [
            ("80 --token-plugin=TokenFile --token-source=x", "TokenFile"),
            (
                "80 --token-plugin token_plugins.ReadOnlyTokenFile --token-source x",
                "ReadOnlyTokenFile",
            ),
            (
                "80 --token-plugin=websockify.token_plugins.TokenFileName --token-source=x",
                "TokenFileName",
            ),
            ("80 --token-plugin=TokenFileName --token-source=x --target-config=y", "TokenFile"),
            ("80 --target-config=x --host-token", "TokenFile"),
        ] {
            match config(line).expect(line).destination {
                Destination::Tokens(tokens) => assert_eq!(tokens.plugin.name(), expected, "{line}"),
                other => panic!("{line}: {other:?}"),
            }
        }
    }

    fn is_tokens(destination: &Destination) -> bool {
        matches!(destination, Destination::Tokens(_))
    }

    #[test]
    fn u1_a_target_beside_an_option_that_says_where_to_go_is_not_used() {
        for (option, is_meant) in [
            ("--target-config=x", is_tokens as fn(&Destination) -> bool),
            ("--token-plugin=TokenFile --token-source=x", is_tokens),
            ("--unix-target=/x", |destination| {
                matches!(destination, Destination::Service(bridge::Endpoint::Unix(_)))
            }),
        ] {
            for target in ["a:1", "anything"] {
                let config = config(&format!("80 {target} {option}")).expect(option);
                assert!(is_meant(&config.destination), "{option}");
                assert!(!config.proxying.contains(target), "{}", config.proxying);
                let name = option.split('=').next().unwrap();
                let said = [format!(
                    "target '{target}' is not used: option '{name}' says where clients go"
                )];
                assert_eq!(config.warnings, said, "{option}");
            }
        }
    }

    #[test]
    fn u1_what_changes_nothing_is_warned_of() {
        for (option, said) in [
            ("--auto-pong", "option '--auto-pong' changes nothing: a ping is always answered"),
            ("--cafile=x", "option '--cafile' changes nothing without '--verify-client'"),
        ] {
            assert_eq!(config(&format!("80 {option} a:1")).expect(option).warnings, [said]);
        }
        let config = config("80 --cafile=x --verify-client a:1").expect("a good command line");
        assert_eq!(config.warnings, [""; 0]);
        assert!(config.access.files.clients.is_some());
    }

    #[test]
    fn l1_some_open_files_are_left_to_ourselves() {
        for (open_files, connections) in [(1, 1), (64, 16), (1024, 462), (1 << 20, 20_000)] {
            let limits = config("80 a:1").expect("a good command line").limits;
            assert_eq!(limits.connections(open_files), connections, "{open_files}");
        }
    }

    #[test]
    fn c6_the_program_port_defaults_to_the_source_port() {
        let port = |line: &str| match config(line).expect(line).destination {
            Destination::Program(program) => program.port,
            Destination::Service(_) | Destination::Tokens(_) => panic!("not a program"),
        };
        assert_eq!(port("2023 -- telnetd"), 2023);
        assert_eq!(port("443 --program-port=5901 -- vncserver"), 5901);
        assert_eq!(port("--unix-listen=x 5901 -- vncserver"), 5901);
        assert_eq!(port("--inetd 5901 -- vncserver"), 5901);
        assert_eq!(port("--unix-listen=x --program-port=5901 -- vncserver"), 5901);
    }
}
