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
use crate::support::{Actor, Process, WEBSOCKIFY, Websockify, free_port, wait_until};

/// The signals that are blocked, ignored or caught, as `/proc/PID/status` has them. Without 32 and
/// 33, the C library's own, which it lets nobody touch and may ignore in what posix_spawn(3) starts.
fn signals(process: &Process) -> [u64; 3] {
    let status = process.proc().status().unwrap();
    [status.sigblk, status.sigign, status.sigcgt].map(|signals| signals & !(0b11 << 31))
}

#[test]
fn w1_a_program_has_its_own_group_and_the_callers_everything_else() {
    let notes = Notes::new();
    let port = free_port();
    // Ignored signals, a real-time one among them, umask, limits and foreign descriptors are the
    // shell's doing.
    let script = r#"trap "" TERM HUP PIPE USR1 40; umask 027; ulimit -Sn 123; ulimit -Sc 0
                    exec 7</dev/zero 9>/dev/null; exec "$@""#;
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh", WEBSOCKIFY, &port.to_string(), "--"]);
    command.arg(Actor.as_ref()).args(["bind", &port.to_string(), "listen", "serve"]);
    command.current_dir(notes.path());
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
    let mut websockify = Websockify::launch(&mut command);
    websockify.wait_until_open();
    let program = websockify.leader();

    let group = |pid: i32| getpgid(Some(nix::unistd::Pid::from_raw(pid))).unwrap().as_raw();
    assert_eq!(group(program.pid), program.pid);
    assert_eq!(program.stat().session, nix::unistd::getsid(None).unwrap().as_raw());
    // The actor has told the kernel to reap its children for it: SIGCHLD is the actor's own doing.
    let child = 1 << (Signal::SIGCHLD as u32 - 1);
    let [blocked, ignored, caught] = signals(&program);
    assert_eq!([blocked, ignored & !child, caught], [0; 3]);
    assert_eq!(program.proc().status().unwrap().umask, Some(0o027));
    assert_eq!(program.proc().cwd().unwrap(), fs::canonicalize(notes.path()).unwrap());
    let limits = |pid: i32| fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let ours = limits(std::process::id().try_into().unwrap());
    for (theirs, ours) in limits(program.pid).lines().zip(ours.lines()) {
        let (name, _) = theirs.split_at(25);
        match name.trim() {
            "Max open files" => assert_eq!(theirs.split_whitespace().nth(3), Some("123")),
            "Max core file size" => assert_eq!(theirs.split_whitespace().nth(4), Some("0")),
            _ => assert_eq!(theirs, ours),
        }
    }
    // Once the library has closed the one through which it told us.
    wait_until("no other descriptor", || descriptors(&program) == ["0", "1", "2", "socket"]);
    // What was blocked for us is not blocked in us (W9).
    assert_eq!(websockify.stop(), 0);
}

/// Numbers up to 2, and what the others are.
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

#[test]
fn w1_the_environment_is_the_callers_with_the_documented_changes() {
    let port = free_port();
    let systemd = ["NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_USEC"];
    let arguments = format!("{port} --rebind-engine=preload -- {Actor} bind {port} listen serve");
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
    let documented = ["REBIND_NEW_PORT", "REBIND_NOTIFY", "REBIND_OLD_PORT", "REBIND_TOKEN"];
    assert_eq!(added, documented);
    let removed: BTreeSet<_> = given.difference(&found).map(String::as_str).collect();
    assert_eq!(removed, BTreeSet::from(systemd));
    for (name, value) in &of_program {
        match name.to_str().unwrap() {
            "LD_PRELOAD" => {
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

#[test]
fn w1_the_programs_output_goes_where_ours_does() {
    let port = free_port();
    let mut command = Command::new(WEBSOCKIFY);
    command.args([&port.to_string(), "--", "sh", "-c", "echo to out; echo to err >&2"]);
    let output = Websockify::launch(&mut command).output();
    assert_eq!(output.out, ["to out"]);
    assert!(output.err.contains(&"to err".to_owned()));
}

/// W1: a program that writes into a closed pipe is ended by it.
#[test]
fn w1_a_program_dies_of_sigpipe() {
    let port = free_port();
    let mut command = Command::new(WEBSOCKIFY);
    command.args([&port.to_string(), "--", "sh", "-c", "kill -PIPE $$; exit 3"]);
    assert_eq!(Websockify::launch(&mut command).output().status, 128 + 13);
}
