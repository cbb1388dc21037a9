//! What command lines mean, and what is wrong with others.

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

/// Command lines that are refused, and a part of what is said.
const REFUSED: &[(&str, &str)] = &[
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
    ("80 --auth-plugin=ExpectOrigin --auth-source= a:1", "'--auth-plugin' needs '--auth-source'"),
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
    ("80 --token-plugin=TokenFile --token-source=", "'--token-plugin' needs '--token-source'"),
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
    ("80 a:1 --target-config=x -- true", "target 'a:1' and option '--target-config' exclude"),
    (
        "80 a:1 --target-config=x --unix-target=y",
        "option '--unix-target' and option '--target-config' exclude",
    ),
    ("80 --target-config=x -- true", "'--target-config' and a program after '--' exclude"),
    ("80 --target-config=x --unix-target=y", "'--unix-target' and option '--target-config'"),
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
];

#[test]
fn c4_rules_between_options() {
    for (line, part) in REFUSED {
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

/// The plugins of the Python websockify are classes. `--target-config` takes the place of `--token-plugin` there, too.
#[test]
fn k1_a_plugin_may_be_named_with_its_module() {
    for (line, expected) in [
        ("80 --token-plugin=TokenFile --token-source=x", "TokenFile"),
        ("80 --token-plugin token_plugins.ReadOnlyTokenFile --token-source x", "ReadOnlyTokenFile"),
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
            let said =
                [format!("target '{target}' is not used: option '{name}' says where clients go")];
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
