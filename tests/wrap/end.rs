//! How a program ends and what websockify makes of it (W6, W8).

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use socket2::{Domain, Socket, Type};

use super::Notes;
use crate::support::{Actor, Client, Websockify, free_port, run, stays};

#[test]
fn w8_the_exit_status_is_the_programs() {
    let port = free_port();
    for mode in ["exit", "ignore"] {
        for status in [0, 1, 2, 42, 126, 127, 200, 255] {
            let arguments = format!("{port} --wrap-mode={mode} -- {Actor} exit {status}");
            assert_eq!(run(&arguments).status, status, "{mode}");
        }
        // SIGHUP, SIGKILL, SIGSEGV, SIGTERM, and two real-time signals.
        for signal in [1, 9, 11, 15, 40, 64] {
            let arguments = format!("{port} --wrap-mode={mode} -- {Actor} raise {signal}");
            assert_eq!(run(&arguments).status, 128 + signal, "{mode}: {signal}");
        }
    }
}

#[test]
fn w8_the_exit_status_is_the_programs_also_after_it_has_listened() {
    let port = free_port();
    let websockify =
        Websockify::start(&format!("{port} -- {Actor} bind {port} listen accept exit-byte"));
    let mut client = Client::connect_once_open(port);
    client.send([77]);
    assert_eq!(client.closing().code, 1000);
    assert_eq!(websockify.output().status, 77);
}

/// W8, B8: at such a limit the program is stopped, and the exit status is 0 whatever the program does then.
#[test]
fn w8_a_limit_that_is_reached_ends_the_program_and_is_0() {
    let port = free_port();
    let serve = format!("{Actor} helper bind {port} listen serve");
    for limit in ["--timeout=1", "--idle-timeout=1"] {
        assert_eq!(run(&format!("{port} {limit} -- {serve}")).status, 0, "{limit}");
        // The program need not have listened.
        assert_eq!(run(&format!("{port} {limit} -- {Actor} sleep")).status, 0, "{limit}");
    }
    for mode in ["exit", "respawn"] {
        let arguments = format!("{port} --run-once --wrap-mode={mode} -- {serve}");
        let websockify = Websockify::start(&arguments);
        let mut client = Client::connect_once_open(port);
        client.read_line();
        assert_eq!(client.close().code, 1000);
        assert_eq!(websockify.output().status, 0, "{mode}");
    }
}

/// W6: more than the sockets' buffers hold, which the client reads only after the program has ended.
#[test]
fn w6_what_the_program_wrote_before_its_end_reaches_the_client() {
    for mode in ["exit", "ignore", "respawn"] {
        let port = free_port();
        let websockify = Websockify::start(&format!(
            "{port} --wrap-mode={mode} -- {Actor} bind {port} listen accept flood {MUCH} exit 7"
        ));
        websockify.wait_until_open();
        let client = slow_client(port);
        websockify.wait_for_log(&["first process has ended", ": status 7"]);
        let closing = client.closing();
        assert_eq!((closing.code, closing.bytes.len()), (1000, MUCH), "{mode}");
        if mode == "exit" {
            assert_eq!(websockify.output().status, 7);
        }
    }
}

/// More than fits between websockify and a client that does not read; the rest fits between the
/// program and websockify.
const MUCH: usize = 4_000_000;

/// A client with a small receive buffer, so that its kernel takes little while it does not read.
fn slow_client(port: u16) -> Client {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&address.into()).unwrap();
    Client::over(socket.into(), address).unwrap()
}

/// W6: websockify waits for such an orphan of the program's as for any other child, and sees the ends of the others.
#[test]
fn w6_an_orphan_that_a_real_time_signal_has_ended_hides_no_other_end() {
    let port = free_port();
    let script = format!("(sh -c 'kill -40 $$' &); exec {Actor} bind {port} listen serve");
    let arguments = format!("{port} --wrap-mode=respawn --");
    let mut websockify = Websockify::start_with(&arguments, |command| {
        command.args(["sh", "-c", &script]);
    });
    for nth in 1..=3 {
        Client::connect_once_open(port).read_line();
        websockify.nth_leader(nth).signal(Signal::SIGKILL);
        websockify.nth_start(nth + 1);
    }
    assert_eq!(websockify.stop(), 0);
    assert_eq!(websockify.remnants(), []);
}

/// W6: the leader has ended, and a process that it has left keeps a session.
#[test]
fn w6_exit_drains_sessions_no_longer_than_the_stop_timeout() {
    let port = free_port();
    let began = Instant::now();
    let websockify = Websockify::start(&format!(
        "{port} --stop-timeout=3 -- {Actor} bind {port} listen accept close-listener fork-exit 5 \
         greet ignore-term echo sleep"
    ));
    let mut client = Client::connect_once_open(port);
    client.read_line();
    websockify.wait_for_log(&["first process has ended"]);
    client.send("still");
    assert_eq!(client.read(5), b"still");
    assert_eq!(client.closing().code, 1001);
    assert!(began.elapsed() >= Duration::from_secs(3), "{:?}", began.elapsed());
    let output = websockify.output();
    assert_eq!(output.status, 5, "{:?}", output.err);
}

/// W6: if the last session ends before the stop timeout, the wait ends with it.
#[test]
fn w6_exit_ends_with_the_last_session() {
    let port = free_port();
    let websockify = Websockify::start(&format!(
        "{port} --stop-timeout=100 -- {Actor} bind {port} listen accept close-listener \
         fork-exit 5 greet echo"
    ));
    let mut client = Client::connect_once_open(port);
    client.read_line();
    websockify.wait_for_log(&["first process has ended"]);
    assert_eq!(client.close().code, 1000);
    assert_eq!(websockify.output().status, 5);
}

#[test]
fn w6_ignore_goes_on_without_the_program() {
    let port = free_port();
    let mut websockify = Websockify::start(&format!(
        "{port} --wrap-mode=ignore -- {Actor} bind {port} listen accept greet exit 9"
    ));
    let mut client = Client::connect_once_open(port);
    client.read_line();
    assert_eq!(client.closing().code, 1000);
    websockify.wait_for_log(&["sessions are refused"]);
    // At once: a held client would be held for longer than a client waits.
    for _ in 0..3 {
        let closing = Client::connect(port).closing();
        assert_eq!((closing.code, closing.reason.contains("ended")), (1011, true), "{closing:?}");
    }
    assert!(websockify.is_running());
    assert_eq!(websockify.stop(), 0);
}

/// W6: under `ignore` too, websockify ends with a program that has never listened.
#[test]
fn w6_ignore_ends_with_a_program_that_never_listened() {
    let notes = Notes::new();
    let port = free_port();
    let arguments = format!(
        "{port} --wrap-mode=ignore -- {Actor} bind {port} await {} exit 4",
        notes.note("gate")
    );
    let mut websockify = Websockify::start(&arguments);
    websockify.leader();
    stays(Duration::from_millis(300), "websockify runs", || websockify.is_running());
    notes.give("gate");
    assert_eq!(websockify.output().status, 4);
}
