//! What a person may type. The doc comments are `--help` and the manual page; what the values mean
//! together is settled in `config.rs`.

mod empty;
mod hyphens;
mod refusal;
pub(crate) mod secrets;
pub(crate) mod shortened;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Parser, ValueEnum, ValueHint};

use crate::usage::UsageError;

/// WebSocket to TCP bridge that can wrap, supervise and respawn the program behind it
#[derive(Debug, Parser)]
#[command(
    name = "websockify",
    version,
    infer_long_args = true,
    args_override_self = true,
    override_usage = "websockify [OPTIONS] [SOURCE_ADDR:]SOURCE_PORT TARGET_ADDR:TARGET_PORT\n       \
                      websockify [OPTIONS] --token-plugin=NAME [SOURCE_ADDR:]SOURCE_PORT\n       \
                      websockify [OPTIONS] [SOURCE_ADDR:]SOURCE_PORT -- PROGRAM [ARGS]...\n       \
                      websockify [OPTIONS] --unix-listen=FILE TARGET_ADDR:TARGET_PORT"
)]
#[allow(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub(crate) struct Args {
    /// Where clients connect: this port of every address, or of one
    #[arg(value_name = "[SOURCE_ADDR:]SOURCE_PORT", required_unless_present_any = ["unix_listen", "inetd"])]
    pub(crate) source: Option<String>,

    /// Where the bytes go
    #[arg(value_name = "TARGET_ADDR:TARGET_PORT")]
    pub(crate) target: Option<String>,

    /// Program to run and bridge to, and its arguments
    #[arg(last = true, value_name = "PROGRAM", value_hint = ValueHint::CommandName)]
    pub(crate) program: Option<Vec<OsString>>,

    /// Say more: debug messages and traffic letters [default: off]
    #[arg(short, long)]
    pub(crate) verbose: bool,

    /// Say which way each frame goes, by a letter [default: off]
    #[arg(long)]
    pub(crate) traffic: bool,

    /// IPv6 addresses of SOURCE_ADDR before its others [default: off]
    #[arg(short = '6', long)]
    pub(crate) prefer_ipv6: bool,

    /// Taken for older command lines; changes nothing [default: off]
    #[arg(long)]
    pub(crate) libserver: bool,

    /// Taken for older command lines; changes nothing [default: off]
    #[arg(long)]
    pub(crate) auto_pong: bool,

    /// Unix socket to listen on instead of a port [default: none]
    #[arg(long, value_name = "FILE", help_heading = "Listening")]
    pub(crate) unix_listen: Option<PathBuf>,

    /// Who may connect to it, as chmod has it [default: 600]
    #[arg(long, allow_negative_numbers = true, value_name = "OCTAL", help_heading = "Listening")]
    pub(crate) unix_listen_mode: Option<String>,

    /// Serve what inetd passes as standard input [default: off]
    #[arg(long, help_heading = "Listening")]
    pub(crate) inetd: bool,

    #[arg(
        long,
        value_name = "MODE",
        value_enum,
        hide_possible_values = true,
        help = "When it exits or daemonizes: exit, ignore or respawn [default: exit]",
        help_heading = "Wrapping a program"
    )]
    pub(crate) wrap_mode: Option<WrapModeArg>,

    #[arg(
        long,
        value_name = "WHEN",
        value_enum,
        hide_possible_values = true,
        help = "When it is started: now, or on-demand of a client [default: now]",
        help_heading = "Wrapping a program"
    )]
    pub(crate) start: Option<StartArg>,

    /// Stop it after so long without a session [default: never]
    #[arg(
        long,
        allow_negative_numbers = true,
        value_name = "SECONDS",
        help_heading = "Wrapping a program"
    )]
    pub(crate) stop_idle: Option<String>,

    /// Port that it binds [default: SOURCE_PORT]
    #[arg(
        long,
        allow_negative_numbers = true,
        value_name = "PORT",
        help_heading = "Wrapping a program"
    )]
    pub(crate) program_port: Option<String>,

    /// Seconds that a client waits for it to listen [default: 30]
    #[arg(
        long,
        allow_negative_numbers = true,
        value_name = "SECONDS",
        help_heading = "Wrapping a program"
    )]
    pub(crate) wrap_timeout: Option<String>,

    /// Seconds that it may take to end before SIGKILL [default: 10]
    #[arg(
        long,
        allow_negative_numbers = true,
        value_name = "SECONDS",
        help_heading = "Wrapping a program"
    )]
    pub(crate) stop_timeout: Option<String>,

    #[arg(
        long,
        value_name = "ENGINE",
        value_enum,
        hide_possible_values = true,
        help = "What moves its port: auto, preload or seccomp [default: auto]",
        help_heading = "Wrapping a program"
    )]
    pub(crate) rebind_engine: Option<RebindEngine>,

    #[arg(
        long,
        value_name = "WHOM",
        value_enum,
        hide_possible_values = true,
        help = "Whom it serves: anyone or bridge, us alone [default: anyone]",
        help_heading = "Wrapping a program"
    )]
    pub(crate) program_access: Option<ProgramAccess>,

    /// User[:group] that it runs as, where we are root [default: ours]
    #[arg(long, value_name = "USER", help_heading = "Wrapping a program")]
    pub(crate) program_user: Option<String>,

    /// Library to preload [default: the installed or built-in one]
    #[arg(long, value_name = "FILE", help_heading = "Wrapping a program")]
    pub(crate) rebind_lib: Option<PathBuf>,

    /// Directory to serve files from, on the same port [default: none]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, help_heading = "Web pages")]
    pub(crate) web: Option<PathBuf>,

    /// List no directories [default: off]
    #[arg(long, help_heading = "Web pages")]
    pub(crate) file_only: bool,

    /// Serve a single session and exit [default: off]
    #[arg(long, help_heading = "Sessions")]
    pub(crate) run_once: bool,

    /// Exit after so long, once no session is left
    #[arg(
        long,
        allow_negative_numbers = true,
        value_name = "SECONDS",
        default_value = "0",
        help_heading = "Sessions"
    )]
    pub(crate) timeout: String,

    /// Exit after so long without a session; 0: never
    #[arg(
        long,
        allow_negative_numbers = true,
        value_name = "SECONDS",
        default_value = "0",
        help_heading = "Sessions"
    )]
    pub(crate) idle_timeout: String,

    /// Let sessions go on so long when stopped
    #[arg(
        long,
        allow_negative_numbers = true,
        value_name = "SECONDS",
        default_value = "0",
        help_heading = "Sessions"
    )]
    pub(crate) drain_timeout: String,

    /// Ping each client so often; 0: never
    #[arg(
        long,
        allow_negative_numbers = true,
        value_name = "SECONDS",
        default_value = "0",
        help_heading = "Sessions"
    )]
    pub(crate) heartbeat: String,

    /// End each session after so long; 0: never
    #[arg(
        long,
        allow_negative_numbers = true,
        value_name = "SECONDS",
        default_value = "0",
        help_heading = "Sessions"
    )]
    pub(crate) session_timeout: String,

    /// End a session idle for so many seconds; 0: never
    #[arg(
        long,
        allow_negative_numbers = true,
        value_name = "N",
        default_value = "0",
        help_heading = "Sessions"
    )]
    pub(crate) session_idle_timeout: String,

    /// End each session when its JSON Web Token expires [default: off]
    #[arg(long, help_heading = "Sessions")]
    pub(crate) session_expires: bool,

    /// Sub-protocols to confirm before binary [default: none]
    #[arg(long, value_name = "NAMES", help_heading = "Sessions")]
    pub(crate) subprotocol: Option<String>,

    /// Record each session to FILE.N [default: off]
    #[arg(long, value_name = "FILE", help_heading = "Sessions")]
    pub(crate) record: Option<PathBuf>,

    /// Client connections open at once [default: 20000]
    #[arg(long, allow_negative_numbers = true, value_name = "N", help_heading = "Sessions")]
    pub(crate) max_connections: Option<String>,

    /// MiB kept for clients in all [default: a quarter of ours]
    #[arg(long, allow_negative_numbers = true, value_name = "MIB", help_heading = "Sessions")]
    pub(crate) max_memory: Option<String>,

    /// Where trusted proxies come from: CIDR, unix [default: none]
    #[arg(long, value_name = "LIST", help_heading = "Clients and proxies")]
    pub(crate) trusted_proxy: Option<String>,

    /// They send PROXY headers before connections [default: off]
    #[arg(long, help_heading = "Clients and proxies")]
    pub(crate) proxy_protocol: bool,

    /// Where clients may come from: CIDR, unix [default: anywhere]
    #[arg(long, value_name = "LIST", help_heading = "Clients and proxies")]
    pub(crate) allow_from: Option<String>,

    /// Connections of one client open at once [default: any number]
    #[arg(
        long,
        allow_negative_numbers = true,
        value_name = "N",
        help_heading = "Clients and proxies"
    )]
    pub(crate) max_connections_per_client: Option<String>,

    /// Our certificate and its chain in PEM [default: self.pem]
    #[arg(long, value_name = "FILE", help_heading = "Encryption and authentication")]
    pub(crate) cert: Option<PathBuf>,

    /// Its key in PEM [default: in the same file]
    #[arg(long, value_name = "FILE", help_heading = "Encryption and authentication")]
    pub(crate) key: Option<PathBuf>,

    /// Password of the key; a file is safer [default: none]
    #[arg(long, value_name = "PASSWORD", help_heading = "Encryption and authentication")]
    pub(crate) key_password: Option<String>,

    /// File with it in the first line [default: none]
    #[arg(long, value_name = "FILE", help_heading = "Encryption and authentication")]
    pub(crate) key_password_file: Option<PathBuf>,

    /// Refuse unencrypted clients [default: off]
    #[arg(long, help_heading = "Encryption and authentication")]
    pub(crate) ssl_only: bool,

    #[arg(
        long,
        value_name = "VERSION",
        value_enum,
        hide_possible_values = true,
        help = "Oldest: tlsv1_1, tlsv1_2 or tlsv1_3 [default: tlsv1_2]",
        help_heading = "Encryption and authentication"
    )]
    pub(crate) ssl_version: Option<SslVersion>,

    /// Cipher suites, as OpenSSL calls them [default: all]
    #[arg(long, value_name = "LIST", help_heading = "Encryption and authentication")]
    pub(crate) ssl_ciphers: Option<String>,

    /// Demand a certificate of every client [default: off]
    #[arg(long, help_heading = "Encryption and authentication")]
    pub(crate) verify_client: bool,

    /// Authorities for those, in PEM [default: the system's]
    #[arg(long, value_name = "FILE", help_heading = "Encryption and authentication")]
    pub(crate) cafile: Option<PathBuf>,

    /// BasicHTTPAuth|ClientCertCNAuth|ExpectOrigin|Helper [default: none]
    #[arg(long, value_name = "NAME", help_heading = "Encryption and authentication")]
    pub(crate) auth_plugin: Option<String>,

    /// Its user:password, names, origins or program [default: none]
    #[arg(long, value_name = "LIST", help_heading = "Encryption and authentication")]
    pub(crate) auth_source: Option<String>,

    /// File with LIST in it, read again on SIGHUP [default: none]
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "auth_source",
        help_heading = "Encryption and authentication"
    )]
    pub(crate) auth_source_file: Option<PathBuf>,

    /// Ask for it at web requests too [default: off]
    #[arg(long, help_heading = "Encryption and authentication")]
    pub(crate) web_auth: bool,

    /// Unix socket to bridge to, instead of TARGET_ADDR [default: none]
    #[arg(long, value_name = "FILE", help_heading = "Targets")]
    pub(crate) unix_target: Option<PathBuf>,

    /// Speak TLS to the target, and verify it [default: off]
    #[arg(long, help_heading = "Targets")]
    pub(crate) ssl_target: bool,

    /// Authorities for that, in PEM [default: the system's]
    #[arg(long, value_name = "FILE", help_heading = "Targets")]
    pub(crate) target_cafile: Option<PathBuf>,

    /// What knows where tokens lead, as TokenFile does [default: none]
    #[arg(long, value_name = "NAME", help_heading = "Targets")]
    pub(crate) token_plugin: Option<String>,

    /// What that asks: file, URL, server or program [default: none]
    #[arg(long, value_name = "ARG", help_heading = "Targets")]
    pub(crate) token_source: Option<OsString>,

    /// File with ARG in it, read again on SIGHUP [default: none]
    #[arg(long, value_name = "FILE", conflicts_with = "token_source", help_heading = "Targets")]
    pub(crate) token_source_file: Option<PathBuf>,

    /// The same as TokenFile with this source [default: none]
    #[arg(long, value_name = "PATH", help_heading = "Targets")]
    pub(crate) target_config: Option<PathBuf>,

    /// Take the host of a request for its token [default: off]
    #[arg(long, help_heading = "Targets")]
    pub(crate) host_token: bool,

    #[arg(
        long,
        value_name = "HOW",
        value_enum,
        hide_possible_values = true,
        help = "hidden, loopback, socket, proxy-v1 or proxy-v2 [default: hidden]",
        help_heading = "Targets"
    )]
    pub(crate) client_address: Option<ClientAddressArg>,

    /// Where they may lead: CIDR or NAME[:PORTS], unix:DIR [default: all]
    #[arg(long, value_name = "LIST", help_heading = "Targets")]
    pub(crate) target_allow: Option<String>,

    /// Run in the background, once the bridge is up [default: off]
    #[arg(short = 'D', long, help_heading = "Service")]
    pub(crate) daemon: bool,

    /// Give up root for this user after the start [default: never]
    #[arg(long, value_name = "USER[:GROUP]", help_heading = "Service")]
    pub(crate) user: Option<String>,

    /// File for our process id, locked while we run [default: none]
    #[arg(long, value_name = "FILE", help_heading = "Service")]
    pub(crate) pid_file: Option<PathBuf>,

    /// File to append the log to, beside stderr [default: none]
    #[arg(long, value_name = "FILE", help_heading = "Service")]
    pub(crate) log_file: Option<PathBuf>,

    /// Log to syslog: /dev/log, or HOST:PORT by UDP [default: none]
    #[arg(long, value_name = "SERVER", help_heading = "Service")]
    pub(crate) syslog: Option<String>,

    /// Speak RFC 3164 to it instead of RFC 5424 [default: off]
    #[arg(long, help_heading = "Service")]
    pub(crate) legacy_syslog: bool,

    /// Log to the journal [default: if stderr is the journal, or -D]
    #[arg(long, conflicts_with = "log_file", help_heading = "Service")]
    pub(crate) journald: bool,

    /// Health and metrics: LOOPBACK:PORT, unix:FILE [default: none]
    #[arg(long, value_name = "ADDRESS", help_heading = "Service")]
    pub(crate) admin: Option<OsString>,

    /// File with the user:password for that [default: none]
    #[arg(long, value_name = "FILE", help_heading = "Service")]
    pub(crate) admin_auth_source_file: Option<PathBuf>,
}

/// `--wrap-mode` as typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum WrapModeArg {
    Exit,
    Ignore,
    Respawn,
}

/// `--start` as typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StartArg {
    Now,
    /// When the first client comes.
    OnDemand,
}

/// What moves the program's port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RebindEngine {
    /// Whichever reaches the program.
    Auto,
    /// `rebind.so`, loaded into it.
    Preload,
    /// The kernel, which asks us.
    Seccomp,
}

/// What targets see of clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ClientAddressArg {
    /// Our address.
    Hidden,
    /// An address in 127/8 for each client.
    Loopback,
    /// The client's own, in the wrapped program.
    Socket,
    /// A header ahead of the bytes.
    #[value(name = "proxy-v1")]
    ProxyV1,
    #[value(name = "proxy-v2")]
    ProxyV2,
}

/// Whose connections the program gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProgramAccess {
    Anyone,
    /// The bridge's alone.
    Bridge,
}

/// `--ssl-version` as typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SslVersion {
    Default,
    #[value(name = "tlsv1_1")]
    Tlsv1_1,
    #[value(name = "tlsv1_2")]
    Tlsv1_2,
    #[value(name = "tlsv1_3")]
    Tlsv1_3,
}

/// A way to authenticate, under upstream's name. The manual page and the README name each of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AuthPlugin {
    BasicHttpAuth,
    ClientCertCnAuth,
    ExpectOrigin,
    /// A program of its own; no Python class is called so.
    Helper,
}

impl AuthPlugin {
    pub(crate) const ALL: [Self; 4] =
        [Self::BasicHttpAuth, Self::ClientCertCnAuth, Self::ExpectOrigin, Self::Helper];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::BasicHttpAuth => "BasicHTTPAuth",
            Self::ClientCertCnAuth => "ClientCertCNAuth",
            Self::ExpectOrigin => "ExpectOrigin",
            Self::Helper => "Helper",
        }
    }
}

/// A source of tokens, under upstream's name. The manual page and the README name each of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenPlugin {
    TokenFile,
    ReadOnlyTokenFile,
    TokenFileName,
    UnixDomainSocketDirectory,
    BaseTokenApi,
    JsonTokenApi,
    JwtTokenApi,
    TokenRedis,
    /// A program of its own; no Python class is called so.
    Helper,
}

impl TokenPlugin {
    pub(crate) const ALL: [Self; 9] = [
        Self::TokenFile,
        Self::ReadOnlyTokenFile,
        Self::TokenFileName,
        Self::UnixDomainSocketDirectory,
        Self::BaseTokenApi,
        Self::JsonTokenApi,
        Self::JwtTokenApi,
        Self::TokenRedis,
        Self::Helper,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::TokenFile => "TokenFile",
            Self::ReadOnlyTokenFile => "ReadOnlyTokenFile",
            Self::TokenFileName => "TokenFileName",
            Self::UnixDomainSocketDirectory => "UnixDomainSocketDirectory",
            Self::BaseTokenApi => "BaseTokenAPI",
            Self::JsonTokenApi => "JSONTokenApi",
            Self::JwtTokenApi => "JWTTokenApi",
            Self::TokenRedis => "TokenRedis",
            Self::Helper => "Helper",
        }
    }
}

/// Options of other websockifys that this one does not have.
const NOT_OURS: &[&str] = &["--listen-fd", "--no-parent", "--strict"];

/// What clap has to say that is not `Args`.
pub(crate) enum Refusal {
    /// `--help` or `--version`: for standard output.
    Answer(String),
    Usage(UsageError),
}

impl Args {
    /// Parses a command line, program name first.
    pub(crate) fn parse_from_os(args: impl IntoIterator<Item = OsString>) -> Result<Self, Refusal> {
        let args: Vec<_> = args.into_iter().collect();
        let meant = hyphens::joined(shortened::written_out(args.clone()));
        Self::try_parse_from(empty::left_out(meant)).map_err(|error| refusal::of(&error, &args))
    }
}

/// Whether `--inetd` is among these, whatever else is wrong with them.
pub(crate) fn names_inetd(args: &[OsString]) -> bool {
    let is_in = |args: &[OsString]| {
        let mut ours = args.iter().take_while(|arg| *arg != "--").filter_map(|arg| arg.to_str());
        ours.any(|arg| arg.len() > "--i".len() && "--inetd".starts_with(arg))
    };
    // It may be the value of another option.
    is_in(args) && is_in(&hyphens::joined(shortened::written_out(args.to_vec())))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Args, String> {
        Args::parse_from_os(line.split(' ').map(OsString::from)).map_err(|refusal| match refusal {
            Refusal::Answer(text) | Refusal::Usage(UsageError(text)) => text,
        })
    }

    #[test]
    fn the_definitions_hold_together() {
        Args::command().debug_assert();
    }

    #[test]
    fn c5_every_option_is_one_line_with_its_default() {
        let help = Args::command().term_width(100).render_help().to_string();
        let options = help.split("Options:").nth(1).expect("options");
        for line in options.lines().filter(|line| !line.is_empty() && !line.ends_with(':')) {
            assert!(line.trim_start().starts_with('-'), "wrapped: {line}");
            let answers = line.contains("--help") || line.contains("--version");
            assert!(answers || line.contains("[default: "), "{line}");
        }
    }

    #[test]
    fn c1_options_stand_before_or_after_the_ports_and_the_program_is_verbatim() {
        for line in [
            "websockify 5901 --wrap-mode=ignore -- vncserver -geometry 1024x768 :1 --timeout",
            "websockify --wrap-mode ignore 5901 -- vncserver -geometry 1024x768 :1 --timeout",
        ] {
            let args = parse(line).expect("a good command line");
            assert_eq!(args.source.as_deref(), Some("5901"));
            assert_eq!(args.wrap_mode, Some(WrapModeArg::Ignore));
            let program = args.program.expect("a program");
            assert_eq!(program, ["vncserver", "-geometry", "1024x768", ":1", "--timeout"]);
        }
        let args = parse("websockify 8080 localhost:80 -v").expect("a good command line");
        assert_eq!(args.target.as_deref(), Some("localhost:80"));
        assert!(args.verbose);
    }

    #[test]
    fn c1_a_long_option_may_be_abbreviated_as_upstream_allows() {
        let args = parse("websockify --wrap-m=respawn 1 -- true").expect("a good command line");
        assert_eq!(args.wrap_mode, Some(WrapModeArg::Respawn));
    }

    #[test]
    fn u1_an_empty_value_stands_in_no_options_way() {
        let args =
            parse("websockify --cert=a --cert= --log-file= --journald 1 a:2").expect("taken");
        assert!(args.journald && args.log_file.is_none() && args.cert.is_none());
        let error = parse("websockify --unix-listen=").expect_err("no port");
        assert!(error.starts_with("no source port given"), "{error}");
    }

    /// As optparse has it: among its own options, and with the value as the next word or behind `=`.
    #[test]
    fn c8_options_are_shortened_as_the_python_websockify_takes_them() {
        for line in ["--wrap=respawn 1 -- true", "1 --wrap respawn -- true"] {
            let args = parse(&format!("websockify {line}")).expect(line);
            assert_eq!(args.wrap_mode, Some(WrapModeArg::Respawn), "{line}");
        }
        let args = parse("websockify --rec r --idle=5 --dae -6 --lib --pre 1 a:2").expect("taken");
        assert_eq!((args.record, &*args.idle_timeout), (Some("r".into()), "5"));
        assert!(args.daemon && args.prefer_ipv6 && args.libserver);
        let error = parse("websockify --ve 1 a:2").expect_err("ambiguous there too");
        assert!(error.contains("'--ve'") && error.contains("'--verbose'"), "{error}");
    }

    /// As optparse has it: the word behind an option that takes a value is that value.
    #[test]
    fn c8_a_value_may_begin_with_a_hyphen_as_the_next_word() {
        let args =
            parse("websockify --key-password -abc --auth-so -x:y --web -x 1 a:2").expect("taken");
        assert_eq!(
            (args.key_password.as_deref(), args.auth_source.as_deref()),
            (Some("-abc"), Some("-x:y"))
        );
        assert_eq!((args.web, args.source.as_deref()), (Some("-x".into()), Some("1")));
        let args = parse("websockify --record -D 1 --auth-plugin --cert= --key --web-a a:2")
            .expect("taken");
        assert_eq!((args.record, args.daemon), (Some("-D".into()), false));
        assert_eq!(
            (args.auth_plugin.as_deref(), args.key),
            (Some("--cert="), Some("--web-a".into()))
        );
        assert_eq!(args.target.as_deref(), Some("a:2"));
        // Neither is `--`, nor what stands behind an option of ours alone.
        for line in ["--web -- sh", "1 --pid-file -x a:2", "1 a:2 --web"] {
            parse(&format!("websockify {line}")).expect_err(line);
        }
        let words = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
        assert!(names_inetd(&words("websockify --ine a:2")));
        assert!(!names_inetd(&words("websockify --auth-source --inetd 1 a:2")));
    }

    #[test]
    fn c3_options_that_only_later_websockifys_have_say_so() {
        let error = parse("websockify --listen-fd=3 a:2").expect_err("not ours");
        assert_eq!(error, "option '--listen-fd' of other websockifys is not supported by this one");
    }

    #[test]
    fn f40_every_option_of_the_python_websockify_is_taken() {
        let command = Args::command();
        let arguments = || command.get_arguments();
        let longs = arguments().filter_map(|argument| Some(format!("--{}", argument.get_long()?)));
        let shorts = arguments().filter_map(|argument| Some(format!("-{}", argument.get_short()?)));
        let ours: Vec<_> = longs.chain(shorts).chain(["-h".into(), "--help".into()]).collect();
        let python = shortened::UPSTREAM.iter().map(|name| format!("--{name}"));
        for name in python.chain(["-6", "-D", "-h", "-v"].map(str::to_owned)) {
            assert!(ours.contains(&name), "{name}");
        }
    }

    #[test]
    fn f58_the_help_names_every_authentication_plugin() {
        let command = Args::command();
        let option = command.get_arguments().find(|option| option.get_id() == "auth_plugin");
        let help = option.and_then(clap::Arg::get_help).expect("help").to_string();
        assert!(AuthPlugin::ALL.iter().all(|plugin| help.contains(plugin.name())), "{help}");
    }

    #[test]
    fn c4_a_usage_error_is_one_line_with_option_and_value() {
        let error = parse("websockify --wrap-mode=maybe 1 a:2").expect_err("no such mode");
        assert!(error.contains("'maybe'") && error.contains("--wrap-mode"), "{error}");
        assert!(!error.contains('\n'), "{error}");
        let error = parse("websockify --nonsense 1 a:2").expect_err("no such option");
        assert!(error.contains("'--nonsense'"), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
}
