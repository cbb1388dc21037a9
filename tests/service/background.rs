//! `-D` and `--pid-file` (D1, D3).

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::{daemon, lines_with, wait_for_line};
use crate::support::{
    Actor, Client, WEBSOCKIFY, Websockify, echo_service, free_port, is_refused, wait_until,
};

/// Runs websockify in `directory`, and waits for the end of the process that was started. With `-D`, the daemon goes on.
fn call(directory: &Path, arguments: &str) -> (Websockify, i32) {
    let mut websockify = Websockify::start_with(arguments, |command| {
        command.current_dir(directory);
    });
    let status = websockify.wait();
    (websockify, status)
}

/// The same with `-D`, with a shell script as the program.
fn call_program(directory: &Path, mode: &str, port: u16, script: &str) -> (Websockify, i32) {
    let mut command = Command::new(WEBSOCKIFY);
    command.args(["-D", "--log-file=log", &format!("--wrap-mode={mode}"), &port.to_string()]);
    command.args(["--", "sh", "-c", script]).current_dir(directory);
    let mut websockify = Websockify::launch(&mut command);
    let status = websockify.wait();
    (websockify, status)
}

fn names_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// D1, D3: the port is open when the command returns; the daemon has the caller's directory and umask.
#[test]
fn d1_the_caller_gets_0_when_the_bridge_is_up_and_paths_and_umask_mean_what_they_meant() {
    let directory = TempDir::new().unwrap();
    let (port, service) = (free_port(), echo_service());
    let target = service.target();
    let options = format!("-D --pid-file=pid --log-file=log {port} {target}");
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("umask 027; exec {WEBSOCKIFY} {options}")]);
    let mut websockify = Websockify::launch(shell.current_dir(&directory));
    assert_eq!(websockify.wait(), 0, "{:?}", websockify.err.lines());

    let mut client = Client::connect(port);
    client.send("hello");
    assert_eq!(client.read(5), b"hello");
    client.close();

    let (pid, log) = (directory.path().join("pid"), directory.path().join("log"));
    let daemon = daemon(&websockify);
    assert_eq!(fs::read_to_string(&pid).unwrap(), format!("{}\n", daemon.pid));
    assert_eq!(fs::metadata(&log).unwrap().permissions().mode() & 0o777, 0o640);
    let here = directory.path().canonicalize().unwrap();
    assert_eq!(daemon.proc().cwd().unwrap(), here);
    assert_eq!(daemon.proc().status().unwrap().umask, Some(0o027));
    let stat = daemon.stat();
    assert_eq!((stat.tty_nr, stat.session != stat.pid), (0, true), "no terminal, none to get");
    for number in 0..=2 {
        let link = format!("/proc/{}/fd/{number}", daemon.pid);
        assert_eq!(fs::read_link(link).unwrap(), Path::new("/dev/null"));
    }
    wait_for_line(&log, &["session ended", "code 1000"]);

    daemon.signal(Signal::SIGTERM);
    wait_until("the daemon's end", || !daemon.is_alive());
    assert_eq!(names_in(directory.path()), ["log"], "the pid file is removed");
}

/// D1: what the caller had open, here a file, is not held by the daemon.
#[test]
fn d1_the_daemon_holds_nothing_of_the_callers() {
    let directory = TempDir::new().unwrap();
    let port = free_port();
    let script =
        format!("exec 7>seven; {WEBSOCKIFY} -D --pid-file=pid --log-file=log {port} localhost:9");
    let mut shell = Command::new("sh");
    let mut websockify = Websockify::launch(shell.args(["-c", &script]).current_dir(&directory));
    assert_eq!(websockify.wait(), 0, "{:?}", websockify.err.lines());
    let open: Vec<_> = daemon(&websockify)
        .proc()
        .fd()
        .unwrap()
        .map(|descriptor| descriptor.unwrap())
        .filter(|descriptor| {
            matches!(&descriptor.target, procfs::process::FDTarget::Path(path)
                if path.ends_with("seven"))
        })
        .collect();
    assert!(open.is_empty(), "{open:?}");
}

/// D1: the caller gets the reason and the exit status when websockify cannot work, whichever process finds out.
#[test]
fn d1_the_caller_gets_the_reason_when_it_cannot_work() {
    let port = free_port();
    let taken = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let taken = taken.local_addr().unwrap().port();
    for (arguments, expected, parts) in [
        (format!("{taken} localhost:9"), 1, &["cannot bind port", "in use"][..]),
        (format!("{port} -- no-such-program"), 127, &["no-such-program", "not found"]),
        (format!("{port} -- /etc/passwd"), 126, &["/etc/passwd", "permission denied"]),
        (format!("--log-file=no/log {port} localhost:9"), 1, &["log file", "no such file"]),
        (format!("--pid-file=no/pid {port} localhost:9"), 1, &["pid file", "no such file"]),
        (format!("--rebind-lib=no.so {port} -- true"), 1, &["rebind library", "no.so"]),
    ] {
        let directory = TempDir::new().unwrap();
        for more in ["", "--pid-file=pid"] {
            let arguments = format!("-D {more} {arguments}");
            let arguments = if arguments.contains("no/pid") {
                arguments.replace("--pid-file=pid", "")
            } else {
                arguments
            };
            let (websockify, status) = call(directory.path(), &arguments);
            let said = websockify.output().err;
            assert_eq!((status, said.len()), (expected, 1), "{arguments}: {said:?}");
            for part in parts {
                assert!(said[0].contains(part), "{arguments}: no {part:?} in {said:?}");
            }
            assert_eq!(names_in(directory.path()), Vec::<String>::new(), "{arguments}");
        }
    }
    assert!(is_refused(Ipv4Addr::LOCALHOST, port));
}

/// D1: with a program, the command returns when the program listens. A program that has ended before is a failure, with its
/// exit status.
#[test]
fn d1_the_command_returns_when_the_program_listens_or_has_ended() {
    let directory = TempDir::new().unwrap();
    let port = free_port();
    let started = Instant::now();
    let script = format!("sleep 1; exec {Actor} bind {port} listen serve");
    let (websockify, status) = call_program(directory.path(), "exit", port, &script);
    assert_eq!(status, 0, "{:?}", websockify.err.lines());
    assert!(started.elapsed() >= Duration::from_secs(1));
    Client::connect(port).read_line();
    daemon(&websockify).signal(Signal::SIGTERM);
    wait_until("the end of all", || websockify.remnants().is_empty());

    let daemon = format!("(sleep 0.5; exec {Actor} bind {port} listen serve) & exit 0");
    for (mode, script, expected, parts) in [
        ("exit", &*daemon, 1, ["has daemonized", "--wrap-mode=ignore"]),
        ("exit", "exit 3", 3, ["status 3", "before it listened"]),
        ("ignore", "exit 3", 3, ["status 3", "before it listened"]),
        ("exit", "kill -KILL $$", 137, ["status 137", "before it listened"]),
        // A failure too, because nothing is served.
        ("exit", "exit 0", 1, ["program sh", "before it listened"]),
        // The program leaves a child that ignores SIGTERM until it is killed, which is later than the warning would be.
        ("exit", "trap '' TERM; sleep 60 & exit 3", 3, ["status 3", "before it listened"]),
    ] {
        let (websockify, status) = call_program(directory.path(), mode, port, script);
        let said = websockify.output().err;
        assert_eq!((status, said.len()), (expected, 1), "{mode} {script}: {said:?}");
        assert!(parts.iter().all(|part| said[0].contains(part)), "{mode} {script}: {said:?}");
        assert!(is_refused(Ipv4Addr::LOCALHOST, port));
    }
}

/// D1: the command does not wait for ever, either: under respawn a program that ends is started again, and a program that
/// does not listen may only be slow.
#[test]
fn d1_w12_the_command_returns_after_ten_seconds_with_a_warning() {
    thread::scope(|scope| {
        for (mode, script) in [("exit", "exec sleep 60"), ("respawn", "exit 3")] {
            scope.spawn(move || {
                let (directory, port) = (TempDir::new().unwrap(), free_port());
                let started = Instant::now();
                let (websockify, status) = call_program(directory.path(), mode, port, script);
                assert_eq!(status, 0, "{script}: {:?}", websockify.err.lines());
                websockify.wait_for_log(&["listen", &format!("on port {port}")]);
                assert_eq!(websockify.err.lines().len(), 1, "{script}");
                assert!(started.elapsed() >= Duration::from_secs(10), "{script}");
                daemon(&websockify).signal(Signal::SIGTERM);
                wait_until("the end of all", || websockify.remnants().is_empty());
            });
        }
    });
}

/// D1: a daemon that crashes sends no result, and the caller is told of the crash all the same.
#[test]
fn d1_the_caller_is_told_that_the_daemon_crashed_before_it_was_up() {
    let directory = TempDir::new().unwrap();
    let source = directory.path().join("crash.c");
    // Only the daemon calls prctl(2), to become a child subreaper.
    fs::write(&source, "#include <stdlib.h>\nint prctl(int option, ...) { abort(); }\n").unwrap();
    let library = directory.path().join("crash.so");
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source);
    assert!(compiler.status().unwrap().success());
    let port = free_port();
    let mut websockify = Websockify::start_with(&format!("-D {port} -- true"), |command| {
        command.env("LD_PRELOAD", &library).current_dir(&directory);
    });
    assert_eq!(websockify.wait(), 1);
    websockify.wait_for_log(&["the daemon ended before it was up"]);
}

/// D3: one instance holds a pid file; a second one says which process that is.
#[test]
fn d3_a_pid_file_is_held_by_one_instance() {
    let directory = TempDir::new().unwrap();
    let (first, second) = (free_port(), free_port());
    let (websockify, status) =
        call(directory.path(), &format!("-D --pid-file=pid {first} localhost:9"));
    assert_eq!(status, 0);
    let pid = daemon(&websockify).pid;
    for background in ["-D", ""] {
        let arguments = format!("{background} --pid-file=pid {second} localhost:9");
        let (other, status) = call(directory.path(), &arguments);
        assert_eq!(status, 1);
        other.wait_for_log(&["cannot lock pid file", &format!("held by process {pid}")]);
        assert!(is_refused(Ipv4Addr::LOCALHOST, second));
    }
    assert_eq!(names_in(directory.path()), ["pid"]);

    // After SIGKILL its pid file is left, and the next instance can use it.
    let daemon_process = daemon(&websockify);
    daemon_process.signal(Signal::SIGKILL);
    // The process itself is waited for: its environment, by which `remnants` finds it, is gone before its files are closed.
    wait_until("its end", || !daemon_process.is_alive());
    let (next, status) = call(directory.path(), &format!("-D --pid-file=pid {second} localhost:9"));
    assert_eq!((status, names_in(directory.path())), (0, vec!["pid".to_owned()]));
    daemon(&next).signal(Signal::SIGTERM);
    wait_until("its end", || next.remnants().is_empty());
    assert_eq!(names_in(directory.path()), Vec::<String>::new());
}

/// D1: a wrapped program is started before the command returns; it gets the caller's umask and
/// directory, and no signal that is blocked or ignored (W1).
#[test]
fn d1_a_wrapped_program_gets_what_the_caller_had() {
    let directory = TempDir::new().unwrap();
    let port = free_port();
    let script = format!("exec {Actor} bind {port} listen serve");
    let options = format!("-D --log-file=log {port} --");
    let mut shell = Command::new("sh");
    let start = format!(r#"umask 027; trap "" USR1; exec {WEBSOCKIFY} {options} sh -c "{script}""#);
    let mut websockify = Websockify::launch(shell.args(["-c", &start]).current_dir(&directory));
    assert_eq!(websockify.wait(), 0, "{:?}", websockify.err.lines());
    let log = directory.path().join("log");
    let line = wait_for_line(&log, &["program started"]);
    let pid = crate::support::field(&line, "pid").parse().unwrap();
    Client::connect_once_open(port).read_line();
    let program = procfs::process::Process::new(pid).unwrap();
    // Signals 32 and 33 are the C library's own, and the actor ignores SIGCHLD itself. While the actor forks, the library
    // blocks all signals.
    let signals = !(0b11 << 31 | 1 << (nix::libc::SIGCHLD - 1));
    wait_until("the caller's umask, and no signal blocked or ignored", || {
        let status = program.status().unwrap();
        (status.umask, status.sigblk & signals, status.sigign & signals) == (Some(0o027), 0, 0)
    });
    assert_eq!(program.cwd().unwrap(), directory.path().canonicalize().unwrap());
    daemon(&websockify).signal(Signal::SIGTERM);
    wait_until("the end of all", || websockify.remnants().is_empty());
    assert_eq!(lines_with(&log, &["panicked"]), Vec::<String>::new());
}

/// F13: somebody has removed the pid file for another instance, or has written another number into it.
#[test]
fn f13_a_pid_file_that_is_no_longer_ours_is_left() {
    let directory = TempDir::new().unwrap();
    let pid = directory.path().join("pid");
    let start = |port: u16| {
        let line = format!("--pid-file=pid {port} localhost:9");
        let websockify = Websockify::start_with(&line, |command| {
            command.current_dir(&directory);
        });
        websockify.wait_until_open();
        websockify
    };
    let mut first = start(free_port());
    fs::remove_file(&pid).unwrap();
    let mut second = start(free_port());
    assert_eq!(first.stop(), 0);
    assert_eq!(fs::read_to_string(&pid).unwrap(), format!("{}\n", second.pid()));
    assert_eq!(second.stop(), 0);
    assert!(!pid.exists());

    let mut third = start(free_port());
    fs::write(&pid, "1\n").unwrap();
    assert_eq!(third.stop(), 0);
    assert_eq!(fs::read_to_string(&pid).unwrap(), "1\n");
}

/// F71: a caller that has waited for the command may read the log next.
#[test]
fn f71_what_was_logged_before_the_command_returns_is_in_the_log() {
    let directory = TempDir::new().unwrap();
    let log = directory.path().join("log");
    for _ in 0..10 {
        let port = free_port();
        for (service, line) in [
            ("localhost:9".to_owned(), "listening on"),
            (format!("-- {Actor} bind {port} listen serve"), "program started"),
        ] {
            let (websockify, status) =
                call(directory.path(), &format!("-D --log-file=log {port} {service}"));
            let logged = lines_with(&log, &[line]);
            assert_eq!((status, logged.len()), (0, 1));
            daemon(&websockify).signal(Signal::SIGTERM);
            wait_until("the end of all", || websockify.remnants().is_empty());
            fs::remove_file(&log).unwrap();
        }
    }
}
