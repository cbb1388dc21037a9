//! The way back: the new binary was good when it was tried, fails after the exec, and the old binary takes over
//! again.

use std::path::PathBuf;
use std::sync::LazyLock;

use nix::sys::signal::Signal;

use super::Bridge;
use crate::support::{Actor, Client, Websockify, compile_library, free_port, wait_until};

pub(crate) static FAULT: LazyLock<PathBuf> = LazyLock::new(|| compile_library("fault"));

/// O2: the old binary goes on, as the same process, and can be asked for a hand-over again.
fn comes_back_from(fault: &str, why: &str) {
    let options = "--pid-file=pid --admin=unix:admin.sock --admin-auth-source-file=password";
    let mut bridge = Bridge::start_with(options, |command| {
        let directory = command.get_current_dir().unwrap();
        std::fs::write(directory.join("password"), "me:secret\n").unwrap();
        command.env("LD_PRELOAD", &*FAULT).env("FAULT", fault);
    });
    let line = bridge.command_line();
    for nth in 1..=2 {
        bridge.ask();
        let backs = || bridge.websockify.logged(&["WARN cannot hand over to ", why]);
        wait_until("the image before", || backs().len() == nth);
        bridge.assert_serves();
        assert_eq!(bridge.command_line(), line);
    }
    assert!(bridge.path("pid").exists() && bridge.path("admin.sock").exists());
    assert_eq!(bridge.websockify.stop(), 0);
    assert!(!bridge.path("pid").exists() && !bridge.path("admin.sock").exists());
}

#[test]
fn o2_one_that_crashes_makes_room_again() {
    comes_back_from("crash", ": it was ended by SIGSEGV; 0 sessions go on");
    comes_back_from("abort", ": it was ended by SIGABRT; 0 sessions go on");
}

#[test]
fn o2_one_whose_thread_crashes_makes_room_again() {
    comes_back_from("thread", ": it was ended by SIGSEGV; 0 sessions go on");
}

#[test]
fn o2_one_that_crashes_at_the_last_moment_makes_room_again() {
    comes_back_from("late", ": it was ended by SIGSEGV; 0 sessions go on");
}

/// O2, W9: whoever wants websockify to stop means whichever binary goes on.
#[test]
fn o2_w9_one_that_is_asked_to_stop_and_crashes_leaves_that_to_the_old_binary() {
    let mut bridge = Bridge::start_with("", |command| {
        command.env("LD_PRELOAD", &*FAULT).env("FAULT", "stopped");
    });
    bridge.ask();
    bridge.websockify.wait_for_log(&["WARN cannot hand over to ", ": it was ended by SIGSEGV"]);
    assert_eq!(bridge.websockify.wait(), 0);
}

/// With a program, its session and a Unix socket: the old binary gets back all that the new one has looked at.
#[test]
fn o2_a_program_and_its_session_are_given_back() {
    let directory = tempfile::tempdir().unwrap();
    let (socket, port) = (directory.path().join("socket"), free_port());
    let arguments = format!("--unix-listen={} --program-port={port} -- {Actor}", socket.display());
    let mut websockify = Websockify::start_with(&arguments, |command| {
        command.args(["bind", &port.to_string(), "listen", "serve"]);
        command.env("LD_PRELOAD", &*FAULT).env("FAULT", "late");
    });
    websockify.wait_until_open();
    let leader = websockify.leader();
    let mut client = Client::at(&socket).unwrap();
    client.read_line();
    for nth in 1..=3 {
        websockify.signal(Signal::SIGUSR2);
        let backs = || websockify.logged(&["WARN cannot hand over to ", "; 1 session go"]);
        wait_until("the image before", || backs().len() == nth);
        client.send("hello");
        assert_eq!(client.read(5), b"hello");
        assert!(leader.is_alive() && socket.exists());
    }
    assert_eq!(client.close().code, 1000);
    assert_eq!(websockify.stop(), 0);
    assert!(!leader.is_alive() && !socket.exists());
}

#[test]
fn o2_one_that_hangs_makes_room_again() {
    comes_back_from("hang", ": it did not settle within 5 s; 0 sessions go on");
}

#[test]
fn o2_one_that_fails_makes_room_again() {
    comes_back_from("fail", ": cannot start the runtime: invalid argument; 0 sessions go on");
}

/// O2, O3: what the old binary has given away, the pid file and the admin address, is whole until there is no way back.
#[test]
fn o2_one_that_cannot_begin_the_administration_makes_room_again() {
    let missing = ": cannot read password: no such file or directory; 0 sessions go on";
    comes_back_from("password", missing);
    comes_back_from("epoll", ": no space left on device; 0 sessions go on");
}

/// If the old binary gave up, too, nobody would be left.
#[test]
fn o2_the_old_binary_waits_for_a_file_that_is_not_written_yet() {
    let missing = ": cannot read password: no such file or directory; 0 sessions go on";
    comes_back_from("unwritten", missing);
}
