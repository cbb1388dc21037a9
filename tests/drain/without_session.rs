//! Clients that have connected and have no session when a drain begins: they are told to come again (O1).

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::process::Command;

use tempfile::TempDir;

use super::{LONG, assert_echoes, bridge, drain};
use crate::support::{
    Client, Head, WEBSOCKIFY, Websockify, ask, connect, echo_service, free_port, read_to_end,
    text_of, wait_until,
};
use nix::sys::signal::Signal;

const HANDSHAKE: [&str; 4] = [
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
];

fn assert_sent_on(head: &Head, stream: &mut TcpStream) {
    assert_eq!(head.status, 503);
    assert_eq!(head.header("retry-after"), Some("1"));
    assert_eq!(head.header("connection"), Some("close"));
    let body = text_of(&read_to_end(stream));
    assert_eq!(body, "shutting down: try again\n");
}

/// O1: no client that has connected is cut off, however far its handshake is.
#[test]
fn o1_a_handshake_that_comes_too_late_is_answered_503() {
    let (websockify, port) = bridge(LONG);
    let mut client = Client::connect(port);
    assert_echoes(&mut client);
    let (mut silent, mut begun) = (connect(port), connect(port));
    begun.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n").unwrap();
    drain(&websockify, port);
    let head = ask(&mut silent, "/x", &HANDSHAKE);
    assert_sent_on(&head, &mut silent);
    let rest: String = HANDSHAKE.iter().flat_map(|line| [*line, "\r\n"]).collect();
    begun.write_all(format!("{rest}\r\n").as_bytes()).unwrap();
    let answer = text_of(&read_to_end(&mut begun));
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    websockify.wait_for_log(&["refused a handshake", "shutting down: try again (503 for \"/x\")"]);
    assert_echoes(&mut client);
}

/// O1: connections that nobody has accepted are answered, too: the kernel would reset them with the listener's end.
#[test]
fn o1_who_waits_in_the_accept_queue_is_answered_503() {
    let (websockify, port) = bridge(&format!("{LONG} --max-connections=1"));
    let mut client = Client::connect(port);
    assert_echoes(&mut client);
    let mut queued: Vec<_> = (0..20).map(|_| connect(port)).collect();
    for stream in &mut queued[..10] {
        let request: String = HANDSHAKE.iter().flat_map(|line| [*line, "\r\n"]).collect();
        write!(stream, "GET / HTTP/1.1\r\nHost: x\r\n{request}\r\n").unwrap();
    }
    drain(&websockify, port);
    for stream in &mut queued[..10] {
        let answer = text_of(&read_to_end(stream));
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    }
    for stream in &mut queued[10..] {
        let head = ask(stream, "/", &HANDSHAKE);
        assert_sent_on(&head, stream);
    }
    assert_echoes(&mut client);
}

/// O1: a request for a page that has begun is answered; an idle connection that was kept alive is closed.
#[test]
fn o1_a_page_is_answered_and_an_idle_connection_closed() {
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join("page"), "text").unwrap();
    let (websockify, port) = bridge(&format!("{LONG} --web={}", directory.path().display()));
    let mut client = Client::connect(port);
    assert_echoes(&mut client);
    let (mut kept, mut late) = (connect(port), connect(port));
    assert_eq!(ask(&mut kept, "/page", &[]).status, 200);
    late.write_all(b"GET /page HTTP/1.1\r\n").unwrap();
    drain(&websockify, port);
    assert_eq!(text_of(&read_to_end(&mut kept)), "text", "and then its end");
    late.write_all(b"Host: x\r\n\r\n").unwrap();
    let answer = text_of(&read_to_end(&mut late));
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("text"), "{answer}");
    assert_echoes(&mut client);
}

/// O1: a client that sends nothing does not hold up the end for long.
#[test]
fn o1_a_silent_connection_is_not_waited_for() {
    let (mut websockify, port) = bridge(LONG);
    let mut silent = connect(port);
    drain(&websockify, port);
    assert_eq!(read_to_end(&mut silent), b"");
    assert_eq!(websockify.wait(), 0);
}

/// O1, D4, U4: a listening socket that systemd or inetd keeps open still takes clients: they wait for the next
/// websockify, and the one that drains takes none out of the accept queue.
#[test]
fn o1_at_a_socket_that_is_not_ours_clients_wait_for_the_next() {
    for by_systemd in [true, false] {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let start = || {
            let target = echo_service().target();
            let arguments = if by_systemd {
                format!(
                    "exec 3<&0 0</dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec {WEBSOCKIFY} {LONG} 9 {target}"
                )
            } else {
                format!("exec {WEBSOCKIFY} {LONG} --inetd {target}")
            };
            let mut command = Command::new("sh");
            let stdin = OwnedFd::from(listener.try_clone().unwrap());
            let websockify = Websockify::launch_with(stdin, command.args(["-c", &arguments]));
            websockify.wait_until_open();
            websockify
        };
        let mut first = start();
        let mut old = Client::connect(port);
        assert_echoes(&mut old);
        first.signal(Signal::SIGTERM);
        first.wait_for_log(&["INFO draining: "]);
        let mut waiting = connect(port);
        assert_echoes(&mut old);
        assert_eq!(old.close().code, 1000);
        assert_eq!(first.wait(), 0);
        let _second = start();
        assert_eq!(ask(&mut waiting, "/", &HANDSHAKE).status, 101, "{by_systemd}");
    }
}

/// O1, U3: clients that connect to the path are refused until the next websockify listens there.
#[test]
fn o1_a_unix_socket_is_closed_at_once_too_and_the_path_the_next_ones() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("socket");
    let target = echo_service().target();
    let arguments = format!("{LONG} --unix-listen={} {target}", path.display());
    let mut websockify = Websockify::start(&arguments);
    websockify.wait_until_open();
    let mut client = Client::at(&path).unwrap();
    assert_echoes(&mut client);
    websockify.signal(Signal::SIGTERM);
    wait_until("nobody there", || Client::at(&path).is_err_and(|why| why.contains("refused")));
    let mut next = Websockify::start(&arguments);
    next.wait_until_open();
    let mut new = Client::at(&path).unwrap();
    assert_echoes(&mut new);
    assert_echoes(&mut client);
    assert_eq!(client.close().code, 1000);
    assert_eq!(websockify.wait(), 0);
    assert_echoes(&mut Client::at(&path).unwrap());
    assert_eq!(new.close().code, 1000);
    assert_eq!(next.stop(), 0);
    assert!(!path.exists());
}

/// O1, U4: the one client that inetd has passed on has a session as any other.
#[test]
fn o1_the_connection_of_inetd_is_drained() {
    let listener = std::net::TcpListener::bind(("127.0.0.1", free_port())).unwrap();
    let address = listener.local_addr().unwrap();
    let stream = TcpStream::connect(address).unwrap();
    let (stdin, _) = listener.accept().unwrap();
    let mut command = Command::new(WEBSOCKIFY);
    command.args(["--inetd", LONG, &echo_service().target()]);
    let mut websockify = Websockify::launch_with(OwnedFd::from(stdin), &mut command);
    let mut client = Client::over(stream, address).unwrap();
    assert_echoes(&mut client);
    websockify.signal(Signal::SIGTERM);
    websockify.wait_for_log(&["INFO draining: 1 session goes on"]);
    assert_echoes(&mut client);
    assert_eq!(client.close().code, 1000);
    assert_eq!(websockify.wait(), 0);
}
