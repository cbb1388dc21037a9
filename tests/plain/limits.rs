//! When websockify ends by itself (B8), and how it ends when it is told to (W8, W9).

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio_tungstenite::tungstenite::Message;

use super::bridge_to;
use crate::support::{
    Client, WEBSOCKIFY, Websockify, connect, echo_service, free_port, is_refused, read_to_end,
    request, stays, wait_until,
};

fn exchange(client: &mut Client) {
    client.send("hello");
    assert_eq!(client.read(5), b"hello");
}

#[test]
fn b8_run_once_serves_one_session_and_no_web_request_counts() {
    let service = echo_service();
    let (websockify, port) = bridge_to(&service, "--run-once");
    assert_eq!(request(port, "/", &[]).0.status, 405);
    // A scanner that sends nothing, and one that has sent a part of a request.
    drop(connect(port));
    let mut waiting = connect(port);
    waiting.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    let mut client = Client::connect(port);
    exchange(&mut client);
    wait_until("a closed port", || is_refused(Ipv4Addr::LOCALHOST, port));
    assert_eq!(read_to_end(&mut waiting), b"");
    exchange(&mut client);
    assert_eq!(client.close().code, 1000);
    assert_eq!(websockify.output().status, 0);
}

#[test]
fn b8_run_once_counts_a_session_whose_target_is_unreachable() {
    let (port, target) = (free_port(), free_port());
    let websockify = Websockify::start(&format!("{port} 127.0.0.1:{target} --run-once"));
    websockify.wait_until_open();
    assert_eq!(Client::connect(port).closing().code, 1011);
    assert_eq!(websockify.output().status, 0);
}

/// L1, L2: the log says why clients wait.
#[test]
fn l2_the_limit_on_connections_is_told_when_it_is_reached() {
    let service = echo_service();
    let (mut websockify, port) = bridge_to(&service, "--max-connections=2");
    let (mut first, mut second) = (Client::connect(port), Client::connect(port));
    exchange(&mut first);
    exchange(&mut second);
    websockify.wait_for_log(&[" WARN ", "2 connections are open, as many as may be"]);
    let waiting = std::thread::spawn(move || exchange(&mut Client::connect(port)));
    assert_eq!(first.close().code, 1000);
    waiting.join().unwrap();
    assert_eq!(websockify.stop(), 0);
}

/// L1: if more connections are asked for than open files allow, a warning says so at the start. The default is lowered
/// without a warning.
#[test]
fn l1_open_files_limit_the_connections() {
    for (option, warnings) in [("--max-connections=500", 1), ("--run-once", 0)] {
        let port = free_port();
        let mut command = Command::new("prlimit");
        command.args(["--nofile=64:64", WEBSOCKIFY, option, &port.to_string(), "127.0.0.1:1"]);
        let mut websockify = Websockify::launch(&mut command);
        websockify.wait_for_log(&["listening on", " max_connections=16 open_files=64"]);
        let warned = websockify.logged(&[" WARN ", "open files is 64, which allows 16 connect"]);
        assert_eq!(warned.len(), warnings, "{option}");
        assert_eq!(websockify.stop(), 0);
    }
}

#[test]
fn b8_timeout_stops_accepting_and_waits_for_the_last_session() {
    let service = echo_service();
    let began = Instant::now();
    let (mut websockify, port) = bridge_to(&service, "--timeout=3");
    let mut client = Client::connect(port);
    exchange(&mut client);
    wait_until("a closed port", || is_refused(Ipv4Addr::LOCALHOST, port));
    assert!(began.elapsed() >= Duration::from_secs(3), "{:?}", began.elapsed());
    // Long enough to see an exit, which would be wrong here.
    stays(Duration::from_millis(300), "websockify runs", || websockify.is_running());
    exchange(&mut client);
    assert_eq!(client.close().code, 1000);
    assert_eq!(websockify.output().status, 0);
}

#[test]
fn b8_timeout_without_a_session_ends_at_once() {
    let service = echo_service();
    let began = Instant::now();
    let (websockify, _) = bridge_to(&service, "--timeout=0.5");
    assert_eq!(websockify.output().status, 0);
    assert!(began.elapsed() >= Duration::from_millis(500), "{:?}", began.elapsed());
}

#[test]
fn b8_idle_timeout_counts_the_time_without_a_session() {
    let service = echo_service();
    let (mut websockify, port) = bridge_to(&service, "--idle-timeout=2");
    let mut client = Client::connect(port);
    // A session longer than the limit, in which nothing is sent.
    stays(Duration::from_millis(2500), "websockify runs", || websockify.is_running());
    exchange(&mut client);
    let ended = Instant::now();
    client.close();
    // Neither a web request nor a connection counts.
    let mut requests = 0;
    while websockify.is_running() {
        assert!(ended.elapsed() < Duration::from_secs(20), "scanners keep it up");
        if let Ok(mut scanner) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) {
            scanner.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap_or_default();
            let _ = scanner.read(&mut [0; 1024]);
            requests += 1;
        }
    }
    assert!(requests > 0 && ended.elapsed() >= Duration::from_secs(2));
    assert_eq!(websockify.output().status, 0);
}

#[test]
fn w9_a_signal_closes_sessions_with_1001() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let service = echo_service();
        let (websockify, port) = bridge_to(&service, "");
        let mut clients = [Client::connect(port), Client::connect(port)];
        clients.iter_mut().for_each(exchange);
        websockify.signal(signal);
        for client in clients {
            assert_eq!(client.closing().code, 1001, "{signal}");
        }
        assert_eq!(websockify.output().status, 0);
        assert!(is_refused(Ipv4Addr::LOCALHOST, port));
    }
}

/// W9: the next start finds the port free, whatever sessions there were.
#[test]
fn w9_the_port_can_be_used_again_at_once() {
    let service = echo_service();
    let port = free_port();
    for _ in 0..3 {
        let mut websockify = Websockify::start(&format!("{port} {}", service.target()));
        websockify.wait_until_open();
        let mut client = Client::connect(port);
        exchange(&mut client);
        websockify.signal(Signal::SIGTERM);
        // The client answers, so that it is websockify's socket that lingers in TIME_WAIT.
        assert_eq!(client.closing().code, 1001);
        assert_eq!(websockify.wait(), 0);
    }
}

/// T6: a client that does not complete its request is disconnected, and holds up no other client.
#[test]
fn t6_a_staller_holds_up_nobody_and_is_sent_away() {
    let service = echo_service();
    let (_websockify, port) = bridge_to(&service, "");
    let began = Instant::now();
    let mut stallers: Vec<_> = (0..20)
        .map(|_| {
            let mut staller = connect(port);
            staller.write_all(b"GET /").unwrap();
            staller
        })
        .collect();
    exchange(&mut Client::connect(port));
    for staller in &mut stallers {
        read_to_end(staller);
    }
    assert!(began.elapsed() >= Duration::from_secs(9), "{:?}", began.elapsed());
}

/// B12, B13: heartbeats and limits of sessions as the command line asks for them, and what the log says at the end.
#[test]
fn b12_b13_sessions_have_heartbeats_and_limits_as_the_command_line_says() {
    let service = echo_service();
    let (_websockify, port) = bridge_to(&service, "--heartbeat=0.2");
    let mut client = Client::connect(port);
    for _ in 0..3 {
        assert!(matches!(client.next_control(), Message::Ping(payload) if payload.is_empty()));
        exchange(&mut client);
    }
    assert_eq!(client.close().code, 1000);
    for (option, reason) in [
        ("--session-timeout=0.5", "session timeout"),
        ("--session-idle-timeout=0.5", "session idle timeout"),
    ] {
        let (websockify, port) = bridge_to(&service, option);
        let mut client = Client::connect(port);
        exchange(&mut client);
        let closing = client.closing();
        assert_eq!((closing.code, closing.reason.as_str()), (1000, reason));
        websockify.wait_for_log(&["session ended", &format!("code 1000 \"{reason}\"")]);
    }
}
