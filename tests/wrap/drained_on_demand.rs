//! Drains (O1) with a program that its clients start (O5), and what the admin address says then of whether clients are
//! served (O3).

use std::fs;
use std::net::Ipv4Addr;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::Notes;
use crate::admin::{get, metric};
use crate::support::{
    Actor, Client, Websockify, free_port, is_refused, stays, wait_until, write_script,
};

const MODES: [&str; 3] = ["exit", "ignore", "respawn"];
const WHILE: Duration = Duration::from_millis(500);

/// Starts websockify, whose program does not run yet, with a long drain, these options and an admin address; gives the port
/// and the admin port.
fn start(options: &str, play: &str) -> (Websockify, u16, u16) {
    let (port, admin) = (free_port(), free_port());
    let websockify = Websockify::start(&format!(
        "{port} --start=on-demand --drain-timeout=1000 --admin=127.0.0.1:{admin} {options} -- \
         {Actor} bind {port} listen {play}"
    ));
    websockify.wait_until_open();
    (websockify, port, admin)
}

fn assert_ready(admin: u16, expected: bool) {
    let reply = get(admin, "/readyz");
    assert_eq!(reply.status, if expected { 200 } else { 503 }, "{reply:?}");
}

/// What the metrics say of the program: how often it was started, whether it listens, and whether an instance runs.
fn program(admin: u16) -> (f64, bool, bool) {
    let page = get(admin, "/metrics").body;
    let metric = |name| metric(&page, &format!("websockify_program_{name}"));
    (metric("starts_total"), metric("listening") > 0.0, metric("start_time_seconds") > 0.0)
}

fn asked_to_drain(websockify: &Websockify, port: u16) {
    websockify.signal(Signal::SIGTERM);
    wait_until("a closed port", || is_refused(Ipv4Addr::LOCALHOST, port));
}

fn started(websockify: &Websockify) -> usize {
    websockify.logged(&["program started"]).len()
}

#[test]
fn o5_o1_one_that_sleeps_has_nothing_to_drain() {
    for mode in MODES {
        let (mut websockify, ..) = start(&format!("--wrap-mode={mode}"), "serve");
        assert_eq!(websockify.stop(), 0, "{mode}");
        websockify.wait_for_log(&["draining: 0 sessions go on"]);
        assert_eq!(started(&websockify), 0);
        assert_eq!(websockify.warnings(), Vec::<String>::new());
    }
}

#[test]
fn o5_o1_its_sessions_go_on_and_it_with_them_and_it_is_not_started_again() {
    for mode in MODES {
        let options = format!("--stop-idle=0.2 --wrap-mode={mode}");
        let (mut websockify, port, admin) = start(&options, "serve");
        let mut client = Client::connect(port);
        client.read_line();
        let leader = websockify.leader();
        asked_to_drain(&websockify, port);
        assert_ready(admin, false);
        client.send("hello");
        assert_eq!(client.read(5), b"hello");
        stays(WHILE, mode, || leader.is_alive() && websockify.is_running());
        assert_eq!(client.close().code, 1000);
        assert_eq!(websockify.wait(), 0, "{mode}");
        assert_eq!(websockify.remnants(), []);
        websockify.assert_logged(&["program started"], 1);
        websockify.wait_for_log(&["drain is over: 1 session has ended by itself, 0 closed"]);
    }
}

/// O5, O1, O3: a client that comes while the program is being stopped would get the next instance, but in a drain there is
/// none.
#[test]
fn o5_o1_o3_who_waits_for_the_next_instance_is_told_to_come_again() {
    for mode in MODES {
        let options = format!("--stop-idle=0.2 --stop-timeout=10 --wrap-mode={mode}");
        let (mut websockify, port, admin) = start(&options, "ignore-term serve");
        let mut first = Client::connect(port);
        first.read_line();
        assert_eq!(program(admin), (1.0, true, true));
        assert_eq!(first.close().code, 1000);
        websockify.wait_for_log(&["program is stopped: no session is left"]);
        let held = Client::connect(port);
        websockify.wait_for_log(&["session started: 2"]);
        assert_ready(admin, true);
        assert_eq!(program(admin), (1.0, false, true), "{mode}");
        asked_to_drain(&websockify, port);
        assert_ready(admin, false);
        assert_eq!(held.closing().code, 1012, "{mode}");
        assert_eq!(websockify.wait(), 0, "{mode}");
        assert_eq!(websockify.remnants(), []);
        websockify.assert_logged(&["program started"], 1);
    }
}

/// O5, O3: clients are served whether the program runs or not.
#[test]
fn o5_o3_it_is_ready_while_it_sleeps_and_while_it_starts() {
    let notes = Notes::new();
    let port = free_port();
    let admin = free_port();
    let websockify = Websockify::start(&format!(
        "{port} --start=on-demand --stop-idle=0.2 --admin=127.0.0.1:{admin} --wrap-mode=respawn -- \
         {Actor} await {} bind {port} listen serve",
        notes.note("go")
    ));
    websockify.wait_until_open();
    assert_ready(admin, true);
    assert_eq!(program(admin), (0.0, false, false));
    let mut client = Client::connect(port);
    websockify.nth_start(1);
    assert_ready(admin, true);
    assert_eq!(program(admin), (1.0, false, true));
    notes.give("go");
    client.read_line();
    assert_ready(admin, true);
    assert_eq!(program(admin), (1.0, true, true));
    assert_eq!(client.close().code, 1000);
    wait_until("it sleeps", || program(admin) == (1.0, false, false));
    assert_ready(admin, true);
    let page = get(admin, "/metrics").body;
    let ends = metric(&page, "websockify_program_exits_total{outcome=\"signal\"}");
    assert!((ends - 1.0).abs() < f64::EPSILON, "{page}");
}

/// O5, O3: no client is held for a program that has ended for good, or cannot be started now.
#[test]
fn o5_o3_it_is_not_ready_where_clients_are_sent_away() {
    let (_websockify, port, admin) = start("--wrap-mode=ignore", "accept greet exit 0");
    let mut client = Client::connect(port);
    client.read_line();
    client.closing();
    wait_until("its end", || get(admin, "/readyz").status == 503);
    assert_eq!(Client::connect(port).closing().code, 1011);
    assert_eq!(program(admin), (1.0, false, false));

    let (notes, port, admin) = (Notes::new(), free_port(), free_port());
    let script = notes.note("script");
    write_script(&script, &format!("#!/bin/sh\nexec {Actor} bind {port} listen serve\n"));
    let websockify = Websockify::start(&format!(
        "{port} --start=on-demand --admin=127.0.0.1:{admin} -- {script}"
    ));
    websockify.wait_until_open();
    fs::remove_file(&*script).unwrap();
    assert_ready(admin, true);
    // The client is told at once. The longer starts fail, the longer websockify waits before it tries the next one.
    for _ in 0..4 {
        assert_eq!(Client::connect(port).closing().code, 1011);
    }
    let page = get(admin, "/metrics").body;
    let failed = metric(&page, "websockify_target_failures_total{reason=\"not_started\"}");
    assert!((failed - 4.0).abs() < f64::EPSILON, "{page}");
}
