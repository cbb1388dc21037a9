//! Command lines and what comes of them: good ones work; for a bad one there is one line and an exit status, nothing
//! is started and nothing is left behind.

mod meant;

use std::fs::{self, OpenOptions, Permissions};
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::support::{
    Actor, Client, SERVERS, WEBSOCKIFY, Websockify, echo_service, free_port, has_ipv6, is_refused,
    run, wait_for, write_script,
};

/// Runs websockify in a directory that is also its `TMPDIR`; checks that it ends with `status` and one line that
/// contains `parts`, and that the directory is empty: neither `ran`, which the program would write, nor anything else
/// is there.
fn refused(arguments: &str, status: i32, parts: &[&str]) {
    let directory = TempDir::new().unwrap();
    fs::set_permissions(&directory, Permissions::from_mode(0o755)).unwrap();
    let websockify = Websockify::start_with(arguments, |command| {
        command.current_dir(&directory).env("TMPDIR", directory.path());
        // C4: no backtrace, whatever the environment asks for.
        command.env("RUST_BACKTRACE", "1");
    });
    let output = websockify.output();
    let said = output.err.join("\n");
    assert_eq!(output.status, status, "{arguments}: {said}");
    assert_eq!(output.err.len(), 1, "{arguments}: {said}");
    assert_eq!(output.out, Vec::<String>::new(), "{arguments}");
    for part in parts {
        assert!(said.contains(part), "{arguments}: no {part:?} in {said:?}");
    }
    assert!(!said.contains("panicked") && !said.contains("os error"), "{arguments}: {said}");
    let left: Vec<_> =
        fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(left, Vec::<std::path::PathBuf>::new(), "{arguments}");
}

#[test]
fn c1_all_that_follows_the_dashes_is_the_program_verbatim() {
    let directory = TempDir::new().unwrap();
    let script = r#"printf '%s|' "$@" >arguments"#;
    let program = ["sh", "-c", script, "sh", "--timeout=x", "-v", "--", "", "a b", "--wrap-mode"];
    for options_first in [true, false] {
        let port = free_port().to_string();
        let websockify = Websockify::start_with("", |command| {
            command.current_dir(&directory);
            if options_first {
                command.args(["--wrap-mode", "ignore", "-v", &port]);
            } else {
                command.args([&port, "-v", "--wrap-mode=ignore"]);
            }
            command.arg("--").args(program);
        });
        assert_eq!(websockify.output().status, 0);
        let arguments = directory.path().join("arguments");
        assert_eq!(fs::read_to_string(&arguments).unwrap(), "--timeout=x|-v|--||a b|--wrap-mode|");
        fs::remove_file(arguments).unwrap();
    }
}

#[test]
fn c1_options_stand_before_or_after_source_and_target() {
    let service = echo_service();
    let target = service.target();
    for line in ["--run-once -v PORT TARGET", "PORT TARGET -v --run-once"] {
        let port = free_port();
        let line = line.replace("PORT", &port.to_string()).replace("TARGET", &target);
        let websockify = Websockify::start(&line);
        websockify.wait_until_open();
        let mut client = Client::connect(port);
        client.send("hello");
        assert_eq!(client.read(5), b"hello");
        client.close();
        assert_eq!(websockify.output().status, 0);
    }
}

#[test]
fn c3_an_option_of_later_websockifys_is_told_so() {
    refused("--listen-fd 1 a:2", 2, &["--listen-fd", "not supported"]);
    refused("1 a:2 --strict", 2, &["--strict", "not supported"]);
}

/// A command line as in people's supervisord sections: with `--libserver`, which chooses another engine of the Python
/// websockify.
#[test]
fn c3_what_changes_nothing_is_said_once() {
    let (service, port) = (echo_service(), free_port());
    let line = format!("--libserver --auto-pong --prefer-ipv6 {port} {}", service.target());
    let websockify = Websockify::start(&line);
    Client::connect_once_open(port).close();
    websockify.wait_for_log(&["session ended"]);
    websockify.assert_logged(&["WARN", "'--libserver' changes nothing"], 1);
    websockify.assert_logged(&["WARN", "'--auto-pong' changes nothing"], 1);
}

#[test]
fn c7_an_ipv6_address_needs_no_brackets_and_a_target_no_host() {
    if !crate::support::has_ipv6() {
        return;
    }
    let (service, port) = (echo_service(), free_port());
    let target = service.address.port();
    let _websockify = Websockify::start(&format!("::1:{port} :{target}"));
    let mut client = crate::support::wait_for("the port", || {
        Client::dial((std::net::Ipv6Addr::LOCALHOST, port)).ok()
    });
    client.send("hello");
    assert_eq!(client.read(5), b"hello");
}

/// C7: a target without a host means the loopback addresses, and not a name such as `localhost`, which a container
/// may be unable to look up.
#[test]
fn c7_a_target_without_a_host_is_looked_up_nowhere() {
    if !crate::support::needs_root() {
        return;
    }
    let (service, port) = (echo_service(), free_port());
    let script = r#"mount -t tmpfs none /etc && exec "$1" "$2" "$3""#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh"]);
    command.args([WEBSOCKIFY, &port.to_string(), &format!(":{}", service.address.port())]);
    let _websockify = Websockify::launch(&mut command);
    let mut client = Client::connect_once_open(port);
    client.send("hello");
    assert_eq!(client.read(5), b"hello");
}

/// C8: as with Python's optparse, the next word is the value, whatever it looks like.
#[test]
fn c8_a_value_that_begins_with_a_hyphen_may_be_the_next_word() {
    let (directory, service, port) = (TempDir::new().unwrap(), echo_service(), free_port());
    fs::create_dir(directory.path().join("-x")).unwrap();
    let line = format!("--record -D --web -x --key-password -abc {port} {}", service.target());
    let mut websockify = Websockify::start_with(&line, |command| {
        command.current_dir(&directory);
    });
    let mut client = Client::connect_once_open(port);
    client.send("hello");
    assert_eq!(client.read(5), b"hello");
    client.close();
    assert_eq!(websockify.stop(), 0);
    assert!(directory.path().join("-D.1").exists());
    // After an option that the Python websockify does not have, such a word is an option, and the value is missing.
    refused(&format!("--pid-file --web=x {port} a:1"), 2, &["--pid-file"]);
    refused(&format!("--cert -- {port} a:1"), 2, &["--cert"]);
}

#[test]
fn c4_a_usage_error_is_one_line_that_names_option_and_value() {
    for (arguments, parts) in [
        ("", &["port"][..]),
        ("5901", &["target", "program"]),
        ("70000 a:1", &["'70000'", "port"]),
        ("http a:1", &["'http'", "port"]),
        ("-5 a:1", &["-5"]),
        ("5901 localhost", &["'localhost'", "HOST:PORT"]),
        ("5901 80", &["'80'", "HOST:PORT"]),
        ("5901 a:0", &["'a:0'"]),
        ("a:b:5901 a:1", &["'a:b:5901'", "bracket"]),
        ("5901 a:1 b:2", &["'b:2'"]),
        ("5901 a:1 -- touch ran", &["'a:1'", "program"]),
        ("5901 --", &["program"]),
        ("5901 --wrap-mode=sometimes -- touch ran", &["'sometimes'", "--wrap-mode"]),
        ("5901 --wrap-mode -- touch ran", &["--wrap-mode"]),
        ("5901 --wrap-timeout=soon -- touch ran", &["'soon'", "--wrap-timeout"]),
        ("5901 --stop-timeout=-1 -- touch ran", &["'-1'", "--stop-timeout"]),
        ("5901 --program-port=70000 -- touch ran", &["'70000'", "--program-port"]),
        ("5901 a:1 --program-port=5", &["--program-port"]),
        ("5901 a:1 --timeout=NaN", &["'NaN'", "--timeout"]),
        ("5901 a:1 --idle-timeout=1h", &["'1h'", "--idle-timeout"]),
        ("5901 a:1 --max-connections=0", &["'0'", "--max-connections"]),
        ("5901 a:1 --no-such-option", &["--no-such-option"]),
        ("5901 a:1 -x", &["-x"]),
    ] {
        refused(arguments, 2, parts);
    }
}

#[test]
fn c4_an_argument_that_is_not_text_is_a_usage_error() {
    let output = Websockify::start_with("", |command| {
        command.arg(std::ffi::OsStr::from_bytes(b"\xff\xfe")).arg("a:1");
    });
    let output = output.output();
    assert_eq!((output.status, output.err.len()), (2, 1), "{output:?}");
}

#[test]
fn c4_a_port_that_is_taken_is_named_and_the_program_never_runs() {
    let port = free_port();
    let any = [Ipv4Addr::UNSPECIFIED.into(), std::net::IpAddr::from(Ipv6Addr::UNSPECIFIED)];
    let one = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    for taken in any.into_iter().chain(one).filter(|taken| taken.is_ipv4() || has_ipv6()) {
        // A process that another test is starting may have a copy of the last listener for a moment.
        let listening = || TcpListener::bind((taken, port)).ok();
        let _listener = wait_for("a port to take", listening);
        let parts = [&format!("port {port}"), "in use"];
        refused(&format!("{port} -- touch ran"), 1, &parts);
        refused(&format!("{port} localhost:9"), 1, &parts);
    }
    refused(&format!("198.51.100.1:{port} -- touch ran"), 1, &["198.51.100.1"]);
}

#[test]
fn c4_an_unusable_rebind_library_is_named_and_the_program_never_runs() {
    let port = free_port();
    for (library, reason) in [("/nowhere/rebind.so", "no such file"), ("/etc/passwd", "not an ELF")]
    {
        let arguments = format!("{port} --rebind-lib={library} -- touch ran");
        refused(&arguments, 1, &["rebind library", library, reason]);
    }
    assert!(is_refused(Ipv4Addr::LOCALHOST, port));
}

/// F48: the command line is right, and a file that it names is not there: status 1, whichever option names it.
#[test]
fn f48_a_path_that_leads_nowhere_is_a_failure_at_run_time() {
    let (port, directory) = (free_port(), TempDir::new().unwrap());
    let certificate = directory.path().join("self.pem");
    std::fs::write(&certificate, SERVERS.issue("localhost").pem()).unwrap();
    for option in [
        "--record=nope/x",
        "--record=/dev/null/x",
        "--log-file=nope/x",
        "--pid-file=nope/x",
        "--web=nope",
        "--cert=nope/x --ssl-only",
        "--cert=nope/x --key=nope/x --ssl-only",
        "--verify-client --cert=CERT --cafile=nope/x",
        "--rebind-lib=nope/x",
    ] {
        let path = option.split('=').next_back().unwrap().split(' ').next().unwrap();
        let option = &option.replace("CERT", certificate.to_str().unwrap());
        refused(&format!("{option} {port} -- touch ran"), 1, &[path]);
        refused(&format!("-D {option} {port} -- touch ran"), 1, &[path]);
    }
    for option in ["--record=/", "--record=x/.."] {
        refused(&format!("{option} {port} -- touch ran"), 2, &["--record"]);
    }
}

#[test]
fn w8_a_program_that_cannot_be_started_is_named_in_every_mode() {
    let directory = TempDir::new().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (text, orphan) = (path("text"), path("orphan"));
    fs::write(&text, "hello").unwrap();
    write_script(&orphan, "#!/nowhere/interpreter\n");
    let port = free_port();
    for mode in ["exit", "ignore", "respawn"] {
        let start = |program: &str| format!("{port} --wrap-mode={mode} -- {program}");
        refused(&start("no-such-program"), 127, &["no-such-program", "not found"]);
        refused(&start("/nowhere/program"), 127, &["/nowhere/program", "not found"]);
        refused(&start(&text), 126, &[&text, "permission denied"]);
        refused(&start("/etc"), 126, &["/etc", "permission denied"]);
        refused(&start(&orphan), 126, &[&orphan, "/nowhere/interpreter"]);
    }
}

#[test]
fn c4_nothing_panics_when_nobody_listens_to_what_is_said() {
    let full = || Stdio::from(OpenOptions::new().write(true).open("/dev/full").unwrap());
    let closed = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        Stdio::from(writer)
    };
    for (arguments, expected) in [
        (&["--help"][..], &[0, 1][..]),
        (&["--version"], &[0, 1]),
        (&["no-port", "a:1"], &[2]),
        (&["198.51.100.1:80", "a:1"], &[1]),
    ] {
        for silence in [full(), closed()] {
            let mut out = Command::new(WEBSOCKIFY);
            let out = out.args(arguments).stdout(silence).output().unwrap();
            let said = String::from_utf8_lossy(&out.stderr);
            assert!(!said.contains("panicked"), "{arguments:?}: {said}");
            assert!(
                expected.contains(&out.status.code().unwrap()),
                "{arguments:?}: {}",
                out.status
            );
        }
        for silence in [full(), closed()] {
            let mut err = Command::new(WEBSOCKIFY);
            let status =
                err.args(arguments).stdout(Stdio::null()).stderr(silence).status().unwrap();
            assert!(expected.contains(&status.code().unwrap()), "{arguments:?}: {status}");
        }
    }
}

/// C4: a log that can no longer be written is no reason to fail.
#[test]
fn c4_nothing_panics_when_the_log_is_closed() {
    let port = free_port();
    let service = echo_service();
    let (mut log, writer) = std::io::pipe().unwrap();
    let mut command = Command::new(WEBSOCKIFY);
    command.args([&port.to_string(), &service.target(), "-v"]).stderr(writer);
    let mut websockify = command.stdin(Stdio::null()).spawn().unwrap();
    drop(command);
    let mut said = String::new();
    while !said.contains("listening on") {
        let mut byte = [0];
        std::io::Read::read_exact(&mut log, &mut byte).unwrap();
        said.push(byte[0].into());
    }
    drop(log);
    for _ in 0..3 {
        let mut client = Client::connect(port);
        client.send("hello");
        assert_eq!(client.read(5), b"hello");
        assert_eq!(client.close().code, 1000);
    }
    let pid = nix::unistd::Pid::from_raw(websockify.id().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(websockify.wait().unwrap().code(), Some(0));
}

/// C5, F73: every option that clap knows, and not a list of some in this test.
#[test]
fn f73_help_has_every_option_on_one_line_with_its_default() {
    let longs: Vec<_> = websockify::command()
        .get_arguments()
        .filter_map(|argument| argument.get_long().map(str::to_owned))
        .chain(["help".into(), "version".into()])
        .collect();
    assert!(longs.len() > 25, "{longs:?}");
    for option in ["-h", "--help"] {
        let output = run(option);
        assert_eq!((output.status, output.err.len()), (0, 0));
        for long in &longs {
            let is_of = |line: &&String| {
                line.split_whitespace()
                    .any(|word| word.trim_end_matches(',') == format!("--{long}"))
            };
            let lines: Vec<_> = output.out.iter().filter(is_of).collect();
            assert_eq!(lines.len(), 1, "{long}: {lines:?}");
            assert!(lines[0].trim_start().starts_with('-'), "{}", lines[0]);
            assert!(lines[0].split_whitespace().count() > 3, "no description: {}", lines[0]);
            let answers = ["help", "version"].contains(&long.as_str());
            assert!(answers || lines[0].contains("[default: "), "{}", lines[0]);
        }
        for (long, default) in [
            ("--wrap-mode ", "exit"),
            ("--wrap-timeout ", "30"),
            ("--stop-timeout ", "10"),
            ("--timeout ", "0"),
            ("--max-connections ", "20000"),
        ] {
            let line = output.out.iter().find(|line| line.contains(long)).unwrap();
            assert!(line.contains(&format!("[default: {default}]")), "{line}");
        }
        let has_heading = |heading| output.out.iter().any(|line| line == heading);
        assert!(has_heading("Wrapping a program:") && has_heading("Sessions:"));
    }
}

#[test]
fn c5_version_is_one_line() {
    let output = run("--version");
    assert_eq!((output.status, output.err.len()), (0, 0));
    assert_eq!(output.out, [format!("websockify {}", env!("CARGO_PKG_VERSION"))]);
}

#[test]
fn c6_the_program_may_bind_another_port_than_the_public_one() {
    let (public, program) = (free_port(), free_port());
    let arguments =
        format!("{public} --program-port={program} -- {Actor} bind {program} listen serve");
    let mut websockify = Websockify::start(&arguments);
    let mut client = Client::connect_once_open(public);
    client.read_line();
    client.send("hello");
    assert_eq!(client.read(5), b"hello");
    assert!(is_refused(Ipv4Addr::LOCALHOST, program));
    assert_eq!(websockify.stop(), 0);
}
