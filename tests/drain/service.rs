//! A drain under systemd, with a log file, and in the background (O1, D4).

use std::fs;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::{LONG, assert_echoes, drain};
use crate::service::systemd::Manager;
use crate::support::{
    Actor, Client, Process, Websockify, echo_service, free_port, is_refused, wait_for, wait_until,
};

/// O1, D4: systemd is asked to wait longer, and told how many sessions are left and for how long; the same with a
/// target and with a program.
#[test]
fn o1_systemd_is_told_how_far_it_is_and_to_wait() {
    let (service, port) = (echo_service(), free_port());
    for behind in [service.target(), format!("-- {Actor} bind {port} listen serve")] {
        let manager = Manager::new();
        let options = "--drain-timeout=100 --stop-timeout=7";
        let options = if behind.contains("--") { options } else { "--drain-timeout=100" };
        let (before, after) = match behind.strip_prefix("-- ") {
            Some(program) => (String::new(), format!("-- {program}")),
            None => (behind.clone(), String::new()),
        };
        let line = format!("{port} {before} {options} {after}");
        let mut websockify = manager.start(&line, |_| {});
        manager.until("READY=1");
        let [mut first, second] = [Client::connect(port), Client::connect(port)];
        assert_echoes_behind(&mut first, &behind);
        drain(&websockify, port);
        manager.until("STOPPING=1");
        let told = manager.until("EXTEND_TIMEOUT_USEC=");
        assert_eq!(told.last().unwrap(), "EXTEND_TIMEOUT_USEC=30000000");
        let status = &told[told.len() - 2];
        assert!(is_status(status, "2 sessions go on", 95..=100), "{told:?}");
        assert_eq!(second.close().code, 1000);
        let told = manager.until("EXTEND_TIMEOUT_USEC=");
        assert!(is_status(&told[0], "1 session goes on", 80..=99), "{told:?}");
        assert_eq!(first.close().code, 1000);
        assert_eq!(websockify.wait(), 0);
        // The time of the program (`--stop-timeout`), and the time that websockify needs itself.
        let last = if behind.contains("--") { 22_000_000 } else { 15_000_000 };
        manager.until(&format!("EXTEND_TIMEOUT_USEC={last}"));
    }
}

fn assert_echoes_behind(client: &mut Client, behind: &str) {
    if behind.contains("--") {
        client.read_line();
    }
    assert_echoes(client);
}

/// Whether the message is this status, with a number of seconds in this range.
fn is_status(message: &str, start: &str, seconds: std::ops::RangeInclusive<u64>) -> bool {
    let rest = message.strip_prefix(&format!("STATUS=Draining: {start} for "));
    let left = rest.and_then(|rest| rest.strip_suffix(" s more at most")?.parse().ok());
    left.is_some_and(|left| seconds.contains(&left))
}

/// O1, D4: systemd is told again while nothing happens.
#[test]
fn o1_systemd_is_told_again_before_it_loses_patience() {
    let (service, port, manager) = (echo_service(), free_port(), Manager::new());
    let websockify = manager.start(&format!("{port} {} {LONG}", service.target()), |_| {});
    manager.until("READY=1");
    let mut client = Client::connect(port);
    assert_echoes(&mut client);
    drain(&websockify, port);
    for _ in 0..2 {
        manager.until("EXTEND_TIMEOUT_USEC=30000000");
    }
    assert_echoes(&mut client);
}

/// O1, D3: SIGHUP reloads as always, and does not end the drain as a second SIGTERM does.
#[test]
fn o1_sighup_reloads_in_a_drain() {
    let directory = TempDir::new().unwrap();
    let log = directory.path().join("log");
    let (service, port) = (echo_service(), free_port());
    let line = format!("{port} {} {LONG} --log-file={}", service.target(), log.display());
    let mut websockify = Websockify::start(&line);
    websockify.wait_until_open();
    let mut client = Client::connect(port);
    assert_echoes(&mut client);
    drain(&websockify, port);
    fs::rename(&log, directory.path().join("old")).unwrap();
    websockify.signal(Signal::SIGHUP);
    wait_until("the log, opened again", || log.exists());
    assert_echoes(&mut client);
    assert_eq!(client.close().code, 1000);
    assert_eq!(websockify.wait(), 0);
    assert!(fs::read_to_string(&log).unwrap().contains("drain is over"));
}

/// O1, D1: in the background, too.
#[test]
fn o1_a_daemon_of_ours_drains() {
    let directory = TempDir::new().unwrap();
    let pid_file = directory.path().join("pid");
    let (service, port) = (echo_service(), free_port());
    let line = format!("-D --pid-file={} {port} {} {LONG}", pid_file.display(), service.target());
    let mut websockify = Websockify::start(&line);
    assert_eq!(websockify.wait(), 0);
    let mut client = Client::connect(port);
    assert_echoes(&mut client);
    let pid = fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();
    let daemon = wait_for("the daemon", || Process::find(pid));
    daemon.signal(Signal::SIGTERM);
    wait_until("a closed port", || is_refused(std::net::Ipv4Addr::LOCALHOST, port));
    assert_echoes(&mut client);
    assert!(daemon.is_alive());
    assert_eq!(client.close().code, 1000);
    wait_until("its end", || !daemon.is_alive());
    assert!(!pid_file.exists());
}
