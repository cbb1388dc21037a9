//! The drain (O1): websockify is asked to stop, and its sessions go on to their own end; with a target and with a
//! program.

mod balanced;
mod service;
mod without_session;
mod wrapped;

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::{
    Client, Websockify, echo_service, field, free_port, is_refused, stays, wait_until,
};

/// Longer than any test waits.
const LONG: &str = "--drain-timeout=1000";

/// How long a test watches that nothing changes after a signal.
const MOMENT: Duration = Duration::from_millis(300);

/// A bridge to a target that echoes, and its port.
fn bridge(options: &str) -> (Websockify, u16) {
    let (target, port) = (echo_service().target(), free_port());
    let websockify = Websockify::start(&format!("{port} {target} {options}"));
    websockify.wait_until_open();
    (websockify, port)
}

fn assert_echoes(client: &mut Client) {
    client.send("hello");
    assert_eq!(client.read(5), b"hello");
}

/// Asks websockify to stop, and waits until the drain has begun; gives the log line of it.
fn drain(websockify: &Websockify, port: u16) -> String {
    websockify.signal(Signal::SIGTERM);
    wait_until("a closed port", || is_refused(Ipv4Addr::LOCALHOST, port));
    websockify.wait_for_log(&["INFO draining: "])
}

/// What the log says at the end of the drain.
fn end_of_drain(websockify: &Websockify) -> String {
    let line = websockify.wait_for_log(&["INFO drain is over: "]);
    line.split_once("drain is over: ").unwrap().1.to_owned()
}

#[test]
fn o1_sessions_go_on_to_their_end_and_nobody_new_comes() {
    let (mut websockify, port) = bridge("--drain-timeout=1000");
    let mut clients = [Client::connect(port), Client::connect(port)];
    clients.iter_mut().for_each(assert_echoes);
    let said = drain(&websockify, port);
    assert!(said.contains("2 sessions go on for 1000 s"), "{said}");
    clients.iter_mut().for_each(assert_echoes);
    let [first, mut second] = clients;
    assert_eq!(first.close().code, 1000);
    assert_echoes(&mut second);
    stays(MOMENT, "the other session", || websockify.is_running());
    assert_echoes(&mut second);
    assert_eq!(second.close().code, 1000);
    // Long before the time is over.
    assert_eq!(websockify.wait(), 0);
    assert_eq!(end_of_drain(&websockify), "2 sessions have ended by themselves, 0 closed");
    assert_eq!(websockify.warnings(), Vec::<String>::new());
}

#[test]
fn o1_what_is_left_when_the_time_is_over_is_closed_with_1001() {
    let (mut websockify, port) = bridge("--drain-timeout=4");
    let [mut stays, goes] = [Client::connect(port), Client::connect(port)];
    assert_echoes(&mut stays);
    let began = Instant::now();
    drain(&websockify, port);
    assert_eq!(goes.close().code, 1000);
    let closing = stays.closing();
    assert_eq!((closing.code, &*closing.reason), (1001, "shutting down"));
    assert!(began.elapsed() >= Duration::from_secs(4), "{:?}", began.elapsed());
    assert_eq!(websockify.wait(), 0);
    assert_eq!(end_of_drain(&websockify), "1 session has ended by itself, 1 closed");
}

/// O1, W9: whichever the signals are, and however long the time: the longest is more than a century.
#[test]
fn o1_a_second_signal_ends_it_at_once() {
    for (first, second, time) in [
        (Signal::SIGTERM, Signal::SIGTERM, LONG),
        (Signal::SIGINT, Signal::SIGQUIT, "--drain-timeout=4294967295"),
    ] {
        let (mut websockify, port) = bridge(time);
        let mut client = Client::connect(port);
        assert_echoes(&mut client);
        websockify.signal(first);
        websockify.wait_for_log(&["INFO draining: "]);
        assert_echoes(&mut client);
        websockify.signal(second);
        assert_eq!(client.closing().code, 1001, "{first}, {second}");
        assert_eq!(websockify.wait(), 0);
    }
}

#[test]
fn o1_without_a_session_it_ends_at_once() {
    let (mut websockify, _) = bridge(LONG);
    assert_eq!(websockify.stop(), 0);
    websockify.wait_for_log(&["draining: 0 sessions go on for 1000 s"]);
    assert_eq!(end_of_drain(&websockify), "0 sessions have ended by themselves, 0 closed");
}

/// O1, W9: without the option a signal closes all sessions at once.
#[test]
fn o1_without_a_time_there_is_no_drain() {
    let (mut websockify, port) = bridge("");
    let client = Client::connect(port);
    assert_eq!(websockify.stop(), 0);
    assert_eq!(client.closing().code, 1001);
    assert_eq!(websockify.logged(&["drain"]), Vec::<String>::new());
}

/// O1, B13: the limits on a session hold in a drain, too; where the last session ends by such a limit, the drain
/// ends.
#[test]
fn o1_limits_on_sessions_hold_in_a_drain() {
    for (limit, reason) in [
        ("--session-timeout=1.5", "session timeout"),
        ("--session-idle-timeout=1.5", "session idle timeout"),
    ] {
        let (mut websockify, port) = bridge(&format!("{LONG} {limit} --heartbeat=1"));
        let mut client = Client::connect(port);
        assert_echoes(&mut client);
        drain(&websockify, port);
        let closing = client.closing();
        assert_eq!((closing.code, &*closing.reason), (1000, reason));
        assert_eq!(websockify.wait(), 0);
    }
}

/// O1, B8: the limits on the whole bridge, reached before or during the drain, change nothing in it.
#[test]
fn o1_limits_on_the_whole_bridge_give_way_to_a_drain() {
    for limit in ["--run-once", "--timeout=4", "--idle-timeout=4"] {
        let (mut websockify, port) = bridge(&format!("{LONG} {limit}"));
        let mut client = Client::connect(port);
        assert_echoes(&mut client);
        drain(&websockify, port);
        stays(Duration::from_millis(4200), limit, || websockify.is_running());
        assert_echoes(&mut client);
        assert_eq!(client.close().code, 1000);
        assert_eq!(websockify.wait(), 0);
    }
}

/// O1: the next websockify takes the port while the one before still has sessions.
#[test]
fn o1_the_next_one_can_have_the_port_at_once() {
    let (mut before, port) = bridge(LONG);
    let mut old = Client::connect(port);
    assert_echoes(&mut old);
    drain(&before, port);
    let target = echo_service().target();
    let next = Websockify::start(&format!("{port} {target}"));
    next.wait_until_open();
    let mut new = Client::connect(port);
    assert_echoes(&mut new);
    assert_echoes(&mut old);
    assert_eq!(old.close().code, 1000);
    assert_eq!(before.wait(), 0);
    assert_echoes(&mut new);
    assert_eq!(field(&next.wait_for_log(&["session started"]), "started:"), "1");
}
