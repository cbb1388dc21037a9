//! How soon a program is started again (W7).

use std::fs;
use std::time::{Duration, Instant};

use super::Notes;
use crate::support::{Actor, Client, Websockify, copy_program, free_port, has_ipv6};

fn wait_for_delay(websockify: &Websockify, delay: &str) {
    websockify.wait_for_log(&["respawning too fast", &format!("next start in {delay}")]);
}

/// When the nth line of the log with this text was logged, in seconds of its day. When this test reads
/// the line depends on how busy the machine is.
fn time_of(websockify: &Websockify, text: &str, nth: usize) -> f64 {
    let lines = websockify.logged(&[text]);
    let (_, time) = lines[nth].split_once('T').unwrap();
    let (time, _) = time.split_once('Z').unwrap();
    time.split(':').fold(0.0, |seconds, part| seconds * 60.0 + part.parse::<f64>().unwrap())
}

#[test]
fn w7_the_delay_doubles_while_the_program_fails_at_once() {
    let port = free_port();
    let mut websockify = Websockify::start(&format!(
        "{port} --wrap-mode=respawn -- {Actor} bind {port} listen exit 0"
    ));
    for (nth, (delay, seconds)) in
        [("100ms", 0.1), ("200ms", 0.2), ("400ms", 0.4), ("800ms", 0.8)].into_iter().enumerate()
    {
        wait_for_delay(&websockify, delay);
        websockify.nth_start(nth + 2);
        let failed = time_of(&websockify, "first process has ended", nth);
        let started = time_of(&websockify, "program started", nth + 1);
        let waited = (started - failed).rem_euclid(86400.0);
        // The log's clock may be slewed.
        assert!(waited > seconds - 0.01, "{waited} s");
    }
    wait_for_delay(&websockify, "3.2s");
    let told = websockify.logged(&["respawning too fast"]);
    assert_eq!(told.len(), 6, "once per step: {told:?}");
    // A stop is not kept waiting by a delay.
    let began = Instant::now();
    assert_eq!(websockify.stop(), 0);
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

#[test]
fn w7_after_a_session_the_respawn_is_immediate_and_failures_are_forgotten() {
    let notes = Notes::new();
    let port = free_port();
    // Two failures, then good runs.
    let program = format!(
        "mkdir {first} || mkdir {second} || exec {Actor} bind {port} listen accept greet echo exit 1",
        first = notes.note("first"),
        second = notes.note("second"),
    );
    let websockify = Websockify::start_with(&format!("{port} --wrap-mode=respawn --"), |command| {
        command.args(["sh", "-c", &program]);
    });
    websockify.wait_until_open();
    websockify.assert_logged(&["respawning too fast"], 2);
    for _ in 0..5 {
        let mut client = Client::connect(port);
        // The client reads first: if the program had ended already, the bridge might learn too late that it had served.
        client.read_line();
        assert_eq!(client.close().code, 1000);
    }
    websockify.nth_start(8);
    websockify.assert_logged(&["respawning too fast"], 2);
}

#[test]
fn w8_a_program_that_has_vanished_is_a_failure_at_a_respawn() {
    let notes = Notes::new();
    let port = free_port();
    let program = notes.note("program");
    let install = || copy_program(Actor, &program);
    install();
    let mut websockify = Websockify::start(&format!(
        "{port} --wrap-mode=respawn -- {program} bind {port} listen accept greet await {gate} exit 1",
        gate = notes.note("gate"),
    ));
    let mut client = Client::connect_once_open(port);
    client.read_line();
    fs::remove_file(&program).unwrap();
    notes.give("gate");
    assert_eq!(client.closing().code, 1000);
    websockify.wait_for_log(&["cannot start program", &program, "not found"]);
    wait_for_delay(&websockify, "200ms");
    install();
    Client::connect(port).read_line();
    assert_eq!(websockify.stop(), 0);
}

/// W2: the second instance listens on IPv6, where the first one was on IPv4.
#[test]
fn w2_the_next_instance_may_listen_elsewhere() {
    if !has_ipv6() {
        return;
    }
    let notes = Notes::new();
    let port = free_port();
    let program = format!(
        "if mkdir {first}; then exec {Actor} bind {port} listen accept greet exit 1; fi; \
         exec {Actor} bind-v6 {port} listen serve",
        first = notes.note("first"),
    );
    let websockify = Websockify::start_with(&format!("{port} --wrap-mode=respawn --"), |command| {
        command.args(["sh", "-c", &program]);
    });
    websockify.wait_until_open();
    assert_eq!(Client::connect(port).closing().code, 1000);
    let mut client = Client::connect(port);
    client.read_line();
    websockify.assert_alone_on(port);
    assert_eq!(client.close().code, 1000);
}
