//! What a program is started with (W1).

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::unistd::getpgid;

use super::Notes;
use crate::support::{
    Actor, Process, WEBSOCKIFY, Websockify, can_copy_sockets, engine, free_port, listening,
    wait_for, wait_until,
};

/// The signals that are blocked, ignored or caught, as `/proc/PID/status` has them. Without 32 and
/// 33, the C library's own, which it lets nobody touch and may ignore in what posix_spawn(3) starts.
fn signals(process: &Process) -> [u64; 3] {
    let status = process.proc().status().unwrap();
    [status.sigblk, status.sigign, status.sigcgt].map(|signals| signals & !(0b11 << 31))
}

/// A websockify with these options, whose caller leaves as much as can be: ignored signals, a real-time one among them,
/// blocked signals, a umask, limits and open file descriptors.
fn carelessly_called(options: &str, port: u16, directory: &Path) -> Websockify {
    let script = r#"trap "" TERM HUP PIPE USR1 CHLD 40; umask 027; ulimit -Sn 123; ulimit -Sc 0
                    exec 7</dev/zero 9>/dev/null; exec "$@""#;
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh", WEBSOCKIFY]).args(options.split_whitespace());
    command.args(engine().map(|engine| format!("--rebind-engine={engine}")));
    command.args([&port.to_string(), "--"]);
    command.arg(Actor.as_ref()).args(["bind", &port.to_string(), "listen", "serve"]);
    command.current_dir(directory).env("SOME_THING", "some value");
    // SAFETY: between fork and exec it makes a system call and nothing else.
    unsafe {
        command.pre_exec(|| {
            let mut blocked = SigSet::empty();
            blocked.add(Signal::SIGUSR2);
            blocked.add(Signal::SIGCHLD);
            blocked.add(Signal::SIGTERM);
            Ok(sigprocmask(SigmaskHow::SIG_BLOCK, Some(&blocked), None)?)
        });
    }
    Websockify::launch(&mut command)
}

/// W1: in the foreground, with a web server, and as a daemon.
#[test]
fn w1_a_program_has_its_own_group_and_the_callers_everything_else() {
    for options in ["", "--web=.", "-D --log-file=log --pid-file=pid"] {
        let notes = Notes::new();
        let port = free_port();
        let mut websockify = carelessly_called(options, port, notes.path());
        let is_daemon = options.starts_with("-D");
        if is_daemon {
            assert_eq!(websockify.wait(), 0);
            assert!(notes.path().join("pid").exists(), "the daemon's pid file");
        }
        wait_until("an open port", || !listening(port).is_empty());
        let program = wait_for("the program", || {
            let named = |process: &Process| process.name == "actor";
            websockify.remnants().into_iter().find(named)
        });
        assert_is_as_called(&program, notes.path(), options);
        let ours = Process::find(program.stat().ppid).unwrap();
        if is_daemon {
            assert_eq!(program.stat().session, ours.stat().session);
            ours.signal(Signal::SIGTERM);
            wait_until("the end of the daemon", || !ours.is_alive());
        } else {
            assert_eq!(program.stat().session, nix::unistd::getsid(None).unwrap().as_raw());
            // SIGTERM, which was blocked when websockify was started, is not blocked in it (W9).
            assert_eq!(websockify.stop(), 0, "{options}");
        }
    }
}

/// Checks the program of a [carelessly called](carelessly_called) websockify.
fn assert_is_as_called(program: &Process, directory: &Path, options: &str) {
    let group = getpgid(Some(nix::unistd::Pid::from_raw(program.pid))).unwrap();
    assert_eq!(group.as_raw(), program.pid, "{options}");
    // The actor ignores SIGCHLD itself, so that the kernel reaps its children.
    let child = 1 << (Signal::SIGCHLD as u32 - 1);
    let [blocked, ignored, caught] = signals(program);
    assert_eq!([blocked, ignored & !child, caught], [0; 3], "{options}");
    assert_eq!(program.proc().status().unwrap().umask, Some(0o027), "{options}");
    assert_eq!(program.proc().cwd().unwrap(), fs::canonicalize(directory).unwrap(), "{options}");
    assert_eq!(program.variable("SOME_THING"), "some value", "{options}");
    let limits = |pid: i32| fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let ours = limits(std::process::id().try_into().unwrap());
    for (theirs, ours) in limits(program.pid).lines().zip(ours.lines()) {
        let (name, _) = theirs.split_at(25);
        match name.trim() {
            "Max open files" => assert_eq!(theirs.split_whitespace().nth(3), Some("123")),
            "Max core file size" => assert_eq!(theirs.split_whitespace().nth(4), Some("0")),
            _ => assert_eq!(theirs, ours, "{options}"),
        }
    }
    // Waits until the library has closed the socket of its notification.
    wait_until("no other descriptor", || descriptors(program) == ["0", "1", "2", "socket"]);
}

/// The open file descriptors: the standard ones by number, the others by what they are.
fn descriptors(process: &Process) -> Vec<String> {
    let mut found: Vec<_> = process
        .proc()
        .fd()
        .unwrap()
        .map(|descriptor| descriptor.unwrap())
        .map(|descriptor| match (descriptor.fd, descriptor.target) {
            (number @ 0..=2, _) => number.to_string(),
            (_, procfs::process::FDTarget::Socket(_)) => "socket".to_owned(),
            (number, target) => format!("{number}: {target:?}"),
        })
        .collect();
    found.sort();
    found
}

/// W1: with each option that gives the library more to do, and without the library.
#[test]
fn w1_the_environment_is_the_callers_with_the_documented_changes() {
    const PORT: [&str; 4] = ["REBIND_NEW_PORT", "REBIND_NOTIFY", "REBIND_OLD_PORT", "REBIND_TOKEN"];
    let with_clients = [&["REBIND_CLIENTS"], &PORT[..]].concat();
    for (options, documented) in [
        ("", &PORT[..]),
        ("--client-address=socket", &with_clients),
        ("--program-access=bridge", &with_clients),
    ] {
        assert_only_these_are_added(&format!("--rebind-engine=preload {options}"), documented);
    }
    if can_copy_sockets() {
        assert_only_these_are_added("--rebind-engine=seccomp", &[]);
    }
}

fn assert_only_these_are_added(options: &str, documented: &[&str]) {
    let port = free_port();
    let systemd = ["NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_USEC"];
    let arguments = format!("{port} {options} -- {Actor} bind {port} listen serve");
    let websockify = Websockify::start_with(&arguments, |command| {
        command.env("LD_PRELOAD", "libm.so.6").env("SOME_THING", "some value");
        command.envs(systemd.map(|name| (name, "1"))).env("NOTIFY_SOCKET", "/nowhere");
    });
    websockify.wait_until_open();
    let of_program = websockify.leader().environment();
    let of_websockify = Process::find(websockify.pid()).unwrap().environment();
    let names = |environment: &std::collections::HashMap<OsString, OsString>| -> BTreeSet<String> {
        environment.keys().map(|name| name.to_str().unwrap().to_owned()).collect()
    };
    let (given, found) = (names(&of_websockify), names(&of_program));
    let added: Vec<_> = found.difference(&given).collect();
    assert_eq!(added, documented, "{options}");
    let removed: BTreeSet<_> = given.difference(&found).map(String::as_str).collect();
    assert_eq!(removed, BTreeSet::from(systemd));
    for (name, value) in &of_program {
        match name.to_str().unwrap() {
            "LD_PRELOAD" if !documented.is_empty() => {
                let (ours, theirs) = value.to_str().unwrap().split_once(':').unwrap();
                assert!(ours.ends_with("/rebind.so") && Path::new(ours).is_absolute(), "{ours}");
                assert_eq!(theirs, "libm.so.6");
            }
            "REBIND_OLD_PORT" => assert_eq!(value.to_str(), Some(&*port.to_string())),
            plain if documented.contains(&plain) => {}
            _ => assert_eq!(of_websockify.get(name), Some(value), "{}", name.display()),
        }
    }
}

/// W1: the manual page has each variable that the program gets, and no other.
#[test]
fn w1_the_manual_page_has_each_variable_of_the_programs() {
    let page = include_str!("../../man/sections/service.roff");
    let (_, section) = page.split_once("\n.SH ENVIRONMENT\n").unwrap();
    let (_, of_program) = section.split_once("\nThe program gets\n").unwrap();
    let (of_program, _) = of_program.split_once("\n.SH ").unwrap();
    let is_name = |word: &&str| {
        word.contains('_') && word.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
    };
    let named: BTreeSet<_> = of_program.split_whitespace().filter(is_name).collect();
    let expected = [
        "JOURNAL_STREAM",
        "LD_PRELOAD",
        "REBIND_CLIENTS",
        "REBIND_NEW_PORT",
        "REBIND_NOTIFY",
        "REBIND_OLD_PORT",
        "REBIND_TOKEN",
    ];
    assert_eq!(named, BTreeSet::from(expected));
}

#[test]
fn w1_the_programs_output_goes_where_ours_does() {
    let port = free_port();
    let mut command = Command::new(WEBSOCKIFY);
    command.args([&port.to_string(), "--", "sh", "-c", "echo to out; echo to err >&2"]);
    let output = Websockify::launch(&mut command).output();
    assert_eq!(output.out, ["to out"]);
    assert!(output.err.contains(&"to err".to_owned()));
}

/// W1: SIGPIPE ends a program, as it does when the program writes into a closed pipe.
#[test]
fn w1_a_program_dies_of_sigpipe() {
    let port = free_port();
    let mut command = Command::new(WEBSOCKIFY);
    command.args([&port.to_string(), "--", "sh", "-c", "kill -PIPE $$; exit 3"]);
    assert_eq!(Websockify::launch(&mut command).output().status, 128 + 13);
}
