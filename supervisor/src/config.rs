//! From what was typed to what the program needs: every rule between options stands here, and after
//! it no impossible combination exists.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::child::state::Policy;
use crate::cli::{Args, WrapModeArg};
use crate::log;
use crate::security::Security;

/// Everything that was asked for.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) source: Source,
    pub(crate) service: Service,
    pub(crate) sessions: Sessions,
    pub(crate) security: Security,
    pub(crate) verbose: bool,
    pub(crate) daemon: bool,
    pub(crate) pid_file: Option<PathBuf>,
    pub(crate) log: log::Wish,
}

/// Where clients connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    /// `None`: every IPv4 and IPv6 address.
    pub(crate) host: Option<String>,
    pub(crate) port: u16,
}

/// What they are bridged to.
#[derive(Debug)]
pub(crate) enum Service {
    Target(bridge::Address),
    Program(ProgramSpec),
}

/// The program to wrap.
#[derive(Debug)]
pub(crate) struct ProgramSpec {
    /// Its name or path, then its arguments.
    pub(crate) command: Vec<OsString>,
    /// The port that it binds, which `rebind.so` moves.
    pub(crate) port: u16,
    pub(crate) rebind_lib: Option<PathBuf>,
    pub(crate) policy: Policy,
}

/// What to do when the program exits or daemonizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WrapMode {
    Exit,
    Ignore,
    Respawn,
}

/// What clients get beside the service: limits on their sessions, who watches them, and files.
#[derive(Debug, Clone)]
pub(crate) struct Sessions {
    pub(crate) run_once: bool,
    pub(crate) timeout: Option<Duration>,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) max_connections: usize,
    /// Whether the user has asked for that number.
    pub(crate) max_is_asked: bool,
    /// The limit on open files, once it is known: a session needs two.
    pub(crate) open_files: Option<u64>,
    /// The directory that web requests are answered from.
    pub(crate) web: Option<PathBuf>,
    /// Where they are recorded: this name, a dot and a number.
    pub(crate) record: Option<PathBuf>,
    /// Where their traffic letters go, once there is a thread for it.
    pub(crate) traffic: Option<bridge::Traffic>,
}

impl Sessions {
    /// Leaves some of the files that we may open to ourselves: who cannot look at the program's
    /// processes cannot keep its word about them. A session needs two.
    /// True: that allows fewer connections than were asked for.
    pub(crate) fn fit(&mut self, open_files: u64) -> bool {
        let ours = (open_files / 2).min(OUR_FILES);
        let connections = usize::try_from((open_files - ours) / 2).unwrap_or(usize::MAX);
        let asked = self.max_connections;
        self.max_connections = asked.min(connections.max(1));
        self.open_files = Some(open_files);
        self.max_connections < asked
    }
}

/// How many client connections may be open at once, if nobody says.
const MAX_CONNECTIONS: usize = 20_000;

/// How many open files we need besides the sessions', at most.
const OUR_FILES: u64 = 100;

/// One line that says what is wrong with the command line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UsageError(pub(crate) String);

impl Config {
    pub(crate) fn new(args: Args) -> Result<Self, UsageError> {
        let source = source(&args.source)?;
        let sessions = Sessions {
            run_once: args.run_once,
            timeout: limit("--timeout", &args.timeout)?,
            idle_timeout: limit("--idle-timeout", &args.idle_timeout)?,
            max_connections: max_connections(args.max_connections.as_deref())?,
            max_is_asked: args.max_connections.is_some(),
            web: args.web.clone(),
            record: args.record.as_deref().map(record).transpose()?,
            traffic: None,
            open_files: None,
        };
        let security = Security::new(&args)?;
        let log = match &args.log_file {
            Some(path) => log::Wish::File(path.clone()),
            None if args.journald => log::Wish::Journal,
            None => log::Wish::Any,
        };
        let (verbose, daemon, pid_file) = (args.verbose, args.daemon, args.pid_file.clone());
        let service = service(args, &source)?;
        Ok(Self { source, service, sessions, security, verbose, daemon, pid_file, log })
    }
}

fn max_connections(typed: Option<&str>) -> Result<usize, UsageError> {
    let Some(typed) = typed else { return Ok(MAX_CONNECTIONS) };
    match typed.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(invalid("--max-connections", typed, "a number of at least 1")),
    }
}

/// The beginning of a file's name. What the disk says to it is no matter of the command line.
fn record(typed: &Path) -> Result<PathBuf, UsageError> {
    let is_name = typed.file_name().is_some();
    is_name
        .then(|| typed.to_owned())
        .ok_or_else(|| invalid("--record", &typed.to_string_lossy(), "the name of a file"))
}

fn service(args: Args, source: &Source) -> Result<Service, UsageError> {
    match (&args.target, &args.program) {
        (Some(target), Some(_)) => Err(UsageError(format!(
            "target '{target}' and a program after '--' exclude each other"
        ))),
        (None, None) => Err(UsageError(
            "neither a target (HOST:PORT) nor a program (after '--') given; try 'websockify --help'".into(),
        )),
        (Some(target), None) => {
            if args.program_port.is_some() || args.rebind_lib.is_some() {
                return Err(UsageError(
                    "options '--program-port' and '--rebind-lib' need a program after '--'".into(),
                ));
            }
            address(target).map(Service::Target)
        }
        (None, Some(_)) => program(args, source).map(Service::Program),
    }
}

fn program(args: Args, source: &Source) -> Result<ProgramSpec, UsageError> {
    let port = match &args.program_port {
        Some(typed) => port(typed)
            .filter(|port| *port != 0)
            .ok_or_else(|| invalid("--program-port", typed, "a port number from 1 to 65535"))?,
        None if source.port == 0 => {
            return Err(UsageError("source port 0 needs '--program-port' with a program".into()));
        }
        None => source.port,
    };
    let command = args.program.unwrap_or_default();
    if command.first().is_none_or(|name| name.is_empty()) {
        return Err(UsageError("no program after '--'".into()));
    }
    let policy = Policy {
        mode: match args.wrap_mode {
            WrapModeArg::Exit => WrapMode::Exit,
            WrapModeArg::Ignore => WrapMode::Ignore,
            WrapModeArg::Respawn => WrapMode::Respawn,
        },
        wrap_timeout: seconds("--wrap-timeout", &args.wrap_timeout)?,
        stop_timeout: seconds("--stop-timeout", &args.stop_timeout)?,
    };
    Ok(ProgramSpec { command, port, rebind_lib: args.rebind_lib, policy })
}

pub(crate) fn invalid(option: &str, value: &str, expected: &str) -> UsageError {
    UsageError(format!("invalid value '{value}' for '{option}': expected {expected}"))
}

/// `[host:]port`, a host of its own in brackets if it is an IPv6 address.
fn source(typed: &str) -> Result<Source, UsageError> {
    let wrong = |expected| invalid("[SOURCE_ADDR:]SOURCE_PORT", typed, expected);
    let (host, port_typed) = split(typed).map_err(wrong)?;
    let port = port(port_typed).ok_or_else(|| wrong("a port number from 0 to 65535"))?;
    Ok(Source { host: host.map(str::to_owned), port })
}

/// `host:port`, as [`source`] has it, but with a host.
fn address(typed: &str) -> Result<bridge::Address, UsageError> {
    let wrong = |expected| invalid("TARGET_ADDR:TARGET_PORT", typed, expected);
    let (host, port_typed) = split(typed).map_err(wrong)?;
    let host = host.ok_or_else(|| wrong("HOST:PORT; a target needs a host"))?.to_owned();
    let port = port(port_typed)
        .filter(|port| *port != 0)
        .ok_or_else(|| wrong("a port number from 1 to 65535"))?;
    Ok(bridge::Address { host, port })
}

/// Host and port, neither checked.
fn split(typed: &str) -> Result<(Option<&str>, &str), &'static str> {
    if let Some(rest) = typed.strip_prefix('[') {
        let (host, port) = rest.split_once("]:").ok_or("[IPV6_ADDR]:PORT")?;
        host.parse::<std::net::Ipv6Addr>().map_err(|_| "an IPv6 address in brackets")?;
        return Ok((Some(host), port));
    }
    match typed.rsplit_once(':') {
        None | Some(("", _)) => Ok((None, typed.trim_start_matches(':'))),
        Some((host, _)) if host.contains(':') => Err("an IPv6 address in brackets"),
        Some((host, port)) => Ok((Some(host), port)),
    }
}

fn port(typed: &str) -> Option<u16> {
    // u16::from_str takes a leading '+', which no port has.
    typed.bytes().all(|byte| byte.is_ascii_digit()).then(|| typed.parse().ok()).flatten()
}

fn seconds(option: &str, typed: &str) -> Result<Duration, UsageError> {
    typed
        .parse::<f64>()
        .ok()
        .and_then(|number| Duration::try_from_secs_f64(number).ok())
        .filter(|duration| *duration <= Duration::from_secs(10 * 365 * 86400))
        .ok_or_else(|| invalid(option, typed, "a number of seconds"))
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
            Ok(args) => Config::new(args).map_err(|UsageError(line)| line),
            Err(Refusal::Answer(text) | Refusal::Usage(text)) => panic!("{line}: {text}"),
        }
    }

    #[test]
    fn c2_the_forms_of_a_source() {
        for (typed, host, port) in [
            ("5901", None, 5901),
            (":5901", None, 5901),
            ("localhost:80", Some("localhost"), 80),
            ("1.2.3.4:80", Some("1.2.3.4"), 80),
            ("[::1]:80", Some("::1"), 80),
            ("0", None, 0),
        ] {
            let expected = Source { host: host.map(str::to_owned), port };
            assert_eq!(source(typed), Ok(expected), "{typed}");
        }
        for typed in ["", "x", "65536", "-1", "+1", "a:", "::1:80", "[::1]80", "[::1]", "[x]:1"] {
            let UsageError(line) = source(typed).expect_err(typed);
            assert!(line.contains(&format!("'{typed}'")), "{line}");
        }
    }

    #[test]
    fn c2_a_target_needs_a_host_and_a_port() {
        let expected = bridge::Address { host: "::1".into(), port: 80 };
        assert_eq!(address("[::1]:80"), Ok(expected));
        for typed in ["80", ":80", "host", "host:", "host:0", "host:http", "a:b:80"] {
            address(typed).expect_err(typed);
        }
    }

    #[test]
    fn c4_rules_between_options() {
        for (line, part) in [
            ("80", "neither a target"),
            ("80 a:1 -- true", "exclude each other"),
            ("80 --", "neither a target"),
            ("0 -- true", "--program-port"),
            ("80 --program-port=0 -- true", "'0' for '--program-port'"),
            ("80 --program-port=5 a:1", "--program-port"),
            ("80 --wrap-timeout=x -- true", "'x' for '--wrap-timeout'"),
            ("80 --timeout -5 a:1", "'-5' for '--timeout'"),
            ("80 --stop-timeout=-1 -- true", "'-1' for '--stop-timeout'"),
            ("80 --timeout=inf a:1", "'inf' for '--timeout'"),
            ("80 --max-connections=0 a:1", "'0' for '--max-connections'"),
            ("80 --cafile=x a:1", "'--cafile' needs '--verify-client'"),
            ("80 --web-auth a:1", "'--web-auth' needs '--auth-plugin'"),
            ("80 --auth-source=x a:1", "'--auth-source' needs '--auth-plugin'"),
            ("80 --auth-plugin=ExpectOrigin a:1", "'--auth-plugin' needs '--auth-source'"),
            ("80 --auth-plugin=ExpectOrigin --auth-source= a:1", "no origin"),
            ("80 --auth-plugin=BasicHTTPAuth --auth-source=x a:1", "user:password"),
            (
                "80 --auth-plugin=ClientCertCNAuth --auth-source=x a:1",
                "'--auth-plugin=ClientCertCNAuth' needs '--verify-client'",
            ),
            (
                "80 --auth-plugin=Magic --auth-source=x a:1",
                "'Magic' for '--auth-plugin': expected BasicHTTPAuth, ClientCertCNAuth or ExpectOrigin",
            ),
            ("80 --record=/ a:1", "'/' for '--record'"),
            ("80 --record=x/.. a:1", "'x/..' for '--record'"),
        ] {
            let error = config(line).expect_err(line);
            assert!(error.contains(part), "{line}: {error}");
        }
    }

    #[test]
    fn l1_some_open_files_are_left_to_ourselves() {
        for (open_files, connections) in [(1, 1), (64, 16), (1024, 462), (1 << 20, 20_000)] {
            let mut sessions = config("80 a:1").expect("a good command line").sessions;
            sessions.fit(open_files);
            assert_eq!(sessions.max_connections, connections, "{open_files}");
        }
    }

    #[test]
    fn c6_the_program_port_defaults_to_the_source_port() {
        let port = |line: &str| match config(line).expect(line).service {
            Service::Program(program) => program.port,
            Service::Target(_) => panic!("not a program"),
        };
        assert_eq!(port("2023 -- telnetd"), 2023);
        assert_eq!(port("443 --program-port=5901 -- vncserver"), 5901);
    }
}
