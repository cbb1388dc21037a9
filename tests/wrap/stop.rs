//! How everything ends (W9, W10).

use std::fs::{self, Permissions};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::Notes;
use crate::support::{
    Actor, Client, WEBSOCKIFY, Websockify, copy_program, free_port, is_refused, needs_root, stays,
    wait_until, who_listens,
};

const NOBODY: u32 = 65534;

/// L6, W9: program deaf to SIGTERM: it is killed after `--stop-timeout`, and nobody of it is left, and no file.
#[test]
fn w9_no_process_survives_whatever_it_forked() {
    for mode in ["exit", "respawn", "ignore"] {
        let notes = Notes::new();
        let port = free_port();
        let arguments = format!(
            "{port} --wrap-mode={mode} --stop-timeout=1 -- \
             {Actor} helper stubborn-helper bind {port} listen serve"
        );
        let mut websockify = Websockify::start_with(&arguments, |command| {
            command.env("TMPDIR", notes.path());
        });
        let mut client = Client::connect_once_open(port);
        client.read_line();
        wait_until("four processes", || websockify.tree().len() == 4);
        let began = Instant::now();
        assert_eq!(websockify.stop(), 0, "{mode}");
        assert_eq!(websockify.remnants(), [], "{mode}");
        assert!(began.elapsed() >= Duration::from_millis(900), "{:?}", began.elapsed());
        assert_eq!(client.closing().code, 1001);
        assert_eq!(fs::read_dir(notes.path()).unwrap().count(), 0, "rebind.so is removed");
        assert!(is_refused(std::net::Ipv4Addr::LOCALHOST, port));
    }
}

/// W9: when all processes have ended by SIGTERM, websockify waits no longer. A stopped process (SIGSTOP) ends by it, too.
#[test]
fn w9_the_grace_is_no_longer_than_it_is_needed() {
    for act in ["serve", "stop serve"] {
        let port = free_port();
        let mut websockify = Websockify::start(&format!(
            "{port} --stop-timeout=100 -- {Actor} helper bind {port} listen {act}"
        ));
        websockify.wait_until_open();
        // The stop timeout is longer than this test waits for the end.
        assert_eq!(websockify.stop(), 0, "{act}");
        assert_eq!(websockify.remnants(), []);
    }
}

/// W9: what the program starts only when it is told to end is ended too.
#[test]
fn w9_what_is_forked_during_the_stop_does_not_survive() {
    let notes = Notes::new();
    let port = free_port();
    let script = format!(
        "trap 'setsid {Actor} ignore-term note {} sleep & exit 0' TERM; echo ready; \
         while :; do sleep 0.05; done",
        notes.note("late")
    );
    let mut websockify =
        Websockify::start_with(&format!("{port} --stop-timeout=1 --"), |command| {
            command.args(["sh", "-c", &script]);
        });
    wait_until("the trap", || !websockify.out.lines().is_empty());
    assert_eq!(websockify.stop(), 0);
    assert_eq!(notes.lines("late").len(), 1, "it ran");
    assert_eq!(websockify.remnants(), []);
}

/// L6, W9: program that forks faster than it is killed: it is stopped, killed, and looked for until nobody is left.
#[test]
fn w9_what_forks_all_the_time_does_not_survive() {
    let notes = Notes::new();
    let port = free_port();
    // The hops take fifteen seconds.
    let mut websockify = Websockify::start(&format!(
        "{port} --stop-timeout=0.2 -- {Actor} ignore-term ledger {} fork-exit 0 hops 6000",
        notes.note("hops")
    ));
    notes.wait_for("hops");
    assert_eq!(websockify.stop(), 0);
    let hops = notes.lines("hops").len();
    stays(Duration::from_millis(200), "no hop", || notes.lines("hops").len() == hops);
    assert_eq!(websockify.remnants(), []);
}

/// W9, L1: without a free file descriptor websockify cannot look for processes, and must not believe that there are none.
#[test]
fn w9_nobody_survives_where_descriptors_are_scarce() {
    let port = free_port();
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 64; exec \"$@\"", "sh", WEBSOCKIFY, "--stop-timeout=0.5"]);
    command.args([&port.to_string(), "--", &Actor.to_string(), "ignore-term", "bind"]);
    command.args([&port.to_string(), "listen", "serve"]);
    let mut websockify = Websockify::launch(&mut command);
    websockify.wait_until_open();
    let clients: Vec<_> =
        (0..64).map(|_| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap()).collect();
    assert_eq!(websockify.stop(), 0);
    assert_eq!(websockify.remnants(), []);
    drop(clients);
}

/// T5: where standard error is no terminal, SIGHUP asks to read again what may have changed.
#[test]
fn t5_sighup_is_no_stop() {
    let (port, notes) = (free_port(), Notes::new());
    let (log, old) = (notes.note("log"), notes.note("old"));
    let line = format!("--log-file={log} {port} -- {Actor} bind {port} listen serve");
    let mut websockify = Websockify::start(&line);
    let mut client = Client::connect_once_open(port);
    client.read_line();
    std::fs::rename(&log, old).unwrap();
    websockify.signal(Signal::SIGHUP);
    wait_until("a new log file", || std::path::Path::new(&log).exists());
    client.send("hello");
    assert_eq!(client.read(5), b"hello");
    Client::connect(port).read_line();
    assert!(websockify.is_running());
    websockify.assert_logged(&["program started"], 1);
    assert_eq!(websockify.stop(), 0);
}

#[test]
fn w9_sigint_stops_like_sigterm() {
    let port = free_port();
    let mut websockify = Websockify::start(&format!("{port} -- {Actor} bind {port} listen serve"));
    let mut client = Client::connect_once_open(port);
    client.read_line();
    websockify.signal(Signal::SIGINT);
    assert_eq!(client.closing().code, 1001);
    assert_eq!(websockify.wait(), 0);
    assert_eq!(websockify.remnants(), []);
}

#[test]
fn w9_a_program_is_stopped_also_before_it_listens() {
    let port = free_port();
    let mut websockify =
        Websockify::start(&format!("{port} --stop-timeout=0.5 -- {Actor} ignore-term sleep"));
    websockify.leader();
    assert_eq!(websockify.stop(), 0);
    assert_eq!(websockify.remnants(), []);
}

#[test]
fn w9_a_second_signal_skips_the_grace() {
    let port = free_port();
    let mut websockify = Websockify::start(&format!(
        "{port} --stop-timeout=100 -- {Actor} stubborn-helper bind {port} listen serve"
    ));
    let mut client = Client::connect_once_open(port);
    client.read_line();
    wait_until("three processes", || websockify.tree().len() >= 3);
    websockify.signal(Signal::SIGTERM);
    // The first signal has had its effect.
    assert_eq!(client.closing().code, 1001);
    assert!(websockify.is_running());
    websockify.signal(Signal::SIGINT);
    // The stop timeout is longer than this test waits for the end.
    assert_eq!(websockify.wait(), 0);
    assert_eq!(websockify.remnants(), []);
}

/// W9: a process of root, which websockify, as the user nobody, may not end. F2: the log does not call a signal sent that
/// could not be sent, and says once why it could not.
#[test]
fn w9_who_cannot_be_ended_is_named_and_the_status_is_1() {
    if !needs_root() {
        return;
    }
    let notes = Notes::new();
    let (program, websockify) = (notes.note("program"), notes.note("websockify"));
    copy_program(Actor, &program);
    fs::set_permissions(&program, Permissions::from_mode(0o4755)).unwrap();
    // The directory of the built binary may be closed to the user nobody.
    copy_program(WEBSOCKIFY, &websockify);
    let port = free_port().to_string();
    let mut command = Command::new(websockify);
    command.args([&port, "-v", "--stop-timeout=0.2", "--", &program, "become-root"]);
    command.args(["note", &notes.note("root"), "sleep"]).uid(NOBODY).gid(NOBODY);
    let mut websockify = Websockify::launch(command.current_dir("/"));
    notes.wait_for("root");
    let program = websockify.leader();
    let began = Instant::now();
    assert_eq!(websockify.stop(), 1);
    assert!(began.elapsed() >= Duration::from_secs(5), "{:?}", began.elapsed());
    websockify.wait_for_log(&["cannot end", &format!("{} (program)", program.pid)]);
    websockify.wait_for_log(&["setuid"]);
    for signal in ["SIGTERM", "SIGKILL"] {
        let unsent = format!("cannot send {signal} to {} (program)", program.pid);
        websockify.assert_logged(&[&unsent, "operation not permitted"], 1);
        assert_eq!(websockify.logged(&[&format!("DEBUG {signal} to")]), Vec::<String>::new());
    }
}

#[test]
fn w10_the_program_is_told_when_websockify_is_killed() {
    let notes = Notes::new();
    let port = free_port();
    let mut websockify = Websockify::start(&format!(
        "{port} --wrap-mode=respawn -- {Actor} on-term {} bind {port} listen serve",
        notes.note("told")
    ));
    Client::connect_once_open(port).read_line();
    let program = websockify.leader();
    websockify.signal(Signal::SIGKILL);
    assert_eq!(websockify.wait(), 128 + 9);
    notes.wait_for("told");
    assert_eq!(notes.lines("told"), [program.pid.to_string()]);
}

/// W10: the same holds for later instances, whose parent could have been another thread.
#[test]
fn w10_a_respawned_program_is_told_and_is_not_told_before() {
    let notes = Notes::new();
    let port = free_port();
    let mut websockify = Websockify::start(&format!(
        "{port} --wrap-mode=respawn -- {Actor} on-term {} bind {port} listen accept greet echo exit 1",
        notes.note("told")
    ));
    for _ in 0..3 {
        Client::connect_once_open(port).read_line();
    }
    let program = websockify.nth_leader(4);
    // Then it has its handler of SIGTERM. A program that is about to listen when websockify ends has lost the engine
    // `seccomp`, and fails.
    wait_until("its listener", || who_listens(vec![program.clone()]).len() == 1);
    assert_eq!(notes.lines("told"), Vec::<String>::new());
    websockify.signal(Signal::SIGKILL);
    assert_eq!(websockify.wait(), 128 + 9);
    wait_until("the note", || notes.lines("told") == [program.pid.to_string()]);
}
