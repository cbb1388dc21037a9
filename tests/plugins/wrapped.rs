//! A helper beside a wrapped program: neither is taken for the other (U9, W9).

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::write;
use crate::support::{Actor, Client, Process, Websockify, free_port, needs, wait_for, wait_until};

/// A helper that lets everybody in, and leaves a child behind when it is killed.
const LETS_IN: &str = r#"
import json, os, subprocess, sys
subprocess.Popen(["sleep", "600"])
for line in sys.stdin:
    print(json.dumps({"id": json.loads(line)["id"], "allowed": True}), flush=True)
"#;

/// The helper, and what it has started.
fn helpers(websockify: &Websockify) -> Vec<Process> {
    let program = websockify.leader().pid;
    let mut tree = websockify.tree();
    let group = |process: &Process| {
        let stat = procfs::process::Process::new(process.pid).and_then(|process| process.stat());
        stat.map_or(program, |stat| stat.pgrp)
    };
    tree.retain(|process| process.pid != program && group(process) != program);
    tree
}

/// Waits until the helper has started its child; gives both.
fn begun(websockify: &Websockify) -> Vec<Process> {
    wait_for("a helper and its child", || {
        let helpers = helpers(websockify);
        let is_there = |name: &str| helpers.iter().any(|process| process.name.contains(name));
        (helpers.len() == 2 && is_there("python") && is_there("sleep")).then_some(helpers)
    })
}

/// A helper's children are killed, which takes a moment.
fn nobody_is_left(websockify: &Websockify) {
    wait_until("nobody is left", || websockify.remnants().is_empty());
}

/// Kills the helper itself.
fn kill(helpers: &[Process]) {
    let python = helpers.iter().find(|process| process.name.contains("python"));
    python.unwrap().signal(Signal::SIGKILL);
}

fn wrapped(directory: &TempDir, mode: &str, program: &str) -> (Websockify, u16) {
    write(directory, "helper.py", LETS_IN);
    let port = free_port();
    let mut command = std::process::Command::new(crate::support::WEBSOCKIFY);
    command.arg(port.to_string()).current_dir(directory);
    command.args(["--auth-plugin=Helper", "--auth-source=python3 helper.py"]);
    command.arg(format!("--wrap-mode={mode}")).arg("--").arg(Actor.as_ref());
    command.args(program.replace("PORT", &port.to_string()).split(' '));
    let websockify = Websockify::launch(&mut command);
    (websockify, port)
}

#[test]
fn u9_a_helper_that_ends_is_not_the_program() {
    if !needs(&["python3"]) {
        return;
    }
    for mode in ["exit", "ignore", "respawn"] {
        let directory = TempDir::new().unwrap();
        let (mut websockify, port) = wrapped(&directory, mode, "bind PORT listen serve");
        let mut client = Client::connect_once_open(port);
        client.read_line();
        let program = websockify.leader();
        for _ in 0..3 {
            let first = begun(&websockify);
            kill(&first);
            wait_until("all of it is gone", || first.iter().all(|process| !process.is_alive()));
        }
        begun(&websockify);
        assert!(program.is_alive(), "{mode}");
        assert_eq!(websockify.logged(&["program's first process has ended"]).len(), 0, "{mode}");
        websockify.assert_logged(&["started again: it has ended"], 3);
        let mut other = Client::connect(port);
        other.read_line();
        assert_eq!(websockify.stop(), 0, "{mode}");
        nobody_is_left(&websockify);
        assert_eq!(client.closing().code, 1001);
    }
}

/// W8: websockify ends with the program, although the helper still runs.
#[test]
fn u9_a_program_that_ends_is_not_kept_by_a_helper() {
    if !needs(&["python3"]) {
        return;
    }
    let directory = TempDir::new().unwrap();
    let (mut websockify, port) = wrapped(&directory, "exit", "bind PORT listen serve");
    Client::connect_once_open(port).read_line();
    kill(&begun(&websockify));
    wait_until("another helper", || !websockify.logged(&["started again"]).is_empty());
    begun(&websockify);
    websockify.leader().signal(Signal::SIGKILL);
    assert_eq!(websockify.wait(), 137);
    nobody_is_left(&websockify);
}

/// The helper goes on when the program is started again; it is not taken for a process that the old instance has left.
#[test]
fn u9_a_helper_outlives_the_programs_instances() {
    if !needs(&["python3"]) {
        return;
    }
    let directory = TempDir::new().unwrap();
    let (mut websockify, port) = wrapped(&directory, "respawn", "bind PORT listen serve");
    Client::connect_once_open(port).read_line();
    let before = begun(&websockify);
    websockify.leader().signal(Signal::SIGKILL);
    websockify.nth_start(2);
    let mut client = Client::connect_once_open(port);
    client.read_line();
    assert!(before.iter().all(Process::is_alive));
    assert_eq!(websockify.logged(&["started again"]), Vec::<String>::new());
    assert_eq!(websockify.stop(), 0);
    nobody_is_left(&websockify);
}
