//! `--program-access=bridge`: the program's `accept` returns the bridge's connections alone, and the program does not
//! notice other local users who connect to its port.

use std::io::Read;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::{ask, client, engine_for, session_from, start_address_reporter, wait_for_open};
use crate::support::{DEADLINE, Websockify, free_port, needs, wait_until};

const BRIDGE: &str = "--program-access=bridge";

/// A thread that connects to a port up to a thousand times a second, as any local user can.
struct Knocker {
    thread: Option<JoinHandle<()>>,
    is_over: Arc<AtomicBool>,
    knocks: Arc<AtomicU64>,
    /// How many bytes these connections have been sent.
    bytes: Arc<AtomicU64>,
}

impl Knocker {
    fn at(port: u16) -> Self {
        let (is_over, knocks, bytes) =
            <(Arc<AtomicBool>, Arc<AtomicU64>, Arc<AtomicU64>)>::default();
        let (over, knocked, got) = (Arc::clone(&is_over), Arc::clone(&knocks), Arc::clone(&bytes));
        let thread = thread::spawn(move || {
            let began = Instant::now();
            let mut waiting = Vec::new();
            while !over.load(Ordering::Relaxed) {
                let due = began + Duration::from_millis(knocked.load(Ordering::Relaxed));
                thread::sleep(due.saturating_duration_since(Instant::now()));
                let Ok(stream) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                stream.set_read_timeout(Some(DEADLINE)).unwrap();
                knocked.fetch_add(1, Ordering::Relaxed);
                waiting.push(stream);
                if waiting.len() >= 50 {
                    waiting.drain(..).for_each(|stream| count(stream, &got));
                }
            }
            for stream in waiting {
                count(stream, &got);
            }
        });
        Self { thread: Some(thread), is_over, knocks, bytes }
    }

    fn stop(mut self) -> (u64, u64) {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        (self.knocks.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }
}

/// Counts the bytes that a stranger's connection is sent until it is closed.
fn count(mut stream: TcpStream, bytes: &AtomicU64) {
    let mut all = Vec::new();
    match stream.read_to_end(&mut all) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "shown out"),
    }
    bytes.fetch_add(all.len() as u64, Ordering::Relaxed);
}

#[test]
fn a6_strangers_get_nothing_and_clients_notice_nothing() {
    if !needs(&["python3"]) {
        return;
    }
    for how in ["blocking", "select", "level", "edge", "nonblocking dual"] {
        let (mut websockify, port) = start_address_reporter(&format!("-v {BRIDGE}"), how);
        let knocker = Knocker::at(websockify.relocated_port());
        wait_until("knocks", || knocker.knocks.load(Ordering::Relaxed) > 20);
        for n in 0..100 {
            let (mut one, _) = session_from(client(n), port);
            let (accepted, known) = ask(&mut one);
            assert_eq!(accepted, known);
            let ip = accepted.split(' ').next().unwrap();
            assert_eq!(ip.trim_start_matches("::ffff:"), "127.0.0.1", "{how}");
        }
        let (knocks, bytes) = knocker.stop();
        assert!(knocks > 20);
        assert_eq!(bytes, 0, "{how}: nothing for strangers, of whom there were {knocks}");
        assert!(websockify.is_running(), "{how}");
        websockify.assert_logged(&["program started"], 1);
    }
}

/// The next client may come late or never: after a stranger the program must get its turn back (`EINTR`), and not
/// wait in `accept` for that client.
#[test]
fn a6_a_program_that_selects_and_accepts_is_given_back_its_turn() {
    if !needs(&["python3"]) {
        return;
    }
    let (websockify, port) = start_address_reporter(&format!("-v {BRIDGE}"), "select");
    let stranger = TcpStream::connect(("127.0.0.1", websockify.relocated_port())).unwrap();
    count(stranger, &AtomicU64::new(0));
    wait_until("its turn", || websockify.out.text().contains("accept EINTR"));
    ask(&mut session_from(client(1), port).0);
}

#[test]
fn a6_clients_are_shown_as_was_asked_for() {
    if !needs(&["python3"]) {
        return;
    }
    let ip = |line: String| line.split(' ').next().unwrap().to_owned();
    let (_websockify, port) =
        start_address_reporter(&format!("{BRIDGE} --client-address=socket"), "");
    let (mut one, from) = session_from(client(1), port);
    assert_eq!(ask(&mut one).0, format!("{} {}", from.ip(), from.port()));
    let (_websockify, port) =
        start_address_reporter(&format!("{BRIDGE} --client-address=loopback"), "");
    let [one, other, again] = [1, 2, 1].map(|n| ip(ask(&mut session_from(client(n), port).0).1));
    assert!(one.starts_with("127.") && one != "127.0.0.1" && one != other && one == again);
}

/// Only the relocated port is for the bridge alone; the program's other ports are open to others.
#[test]
fn a6_the_programs_other_ports_are_open_to_anybody() {
    if !needs(&["python3"]) {
        return;
    }
    let other = free_port();
    let (_websockify, port) = start_address_reporter(BRIDGE, &format!("also={other}"));
    ask(&mut session_from(client(1), port).0);
    let mut stranger = TcpStream::connect(("127.0.0.1", other)).unwrap();
    stranger.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut said = String::new();
    stranger.read_to_string(&mut said).unwrap();
    assert!(said.starts_with("127.0.0.1 "), "{said}");
}

/// A6: a server as many small ones are written: it waits in accept(2), and ends on any error but `EINTR` and
/// `ECONNABORTED`.
#[test]
fn a6_a_plain_server_lives_while_strangers_knock() {
    if !needs(&["cc"]) {
        return;
    }
    let directory = tempfile::TempDir::new().unwrap();
    let program = directory.path().join("plain");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/client_address/plain.c");
    let mut compiler = std::process::Command::new("cc");
    assert!(compiler.args(["-Wall", "-o"]).arg(&program).arg(source).status().unwrap().success());
    let port = free_port();
    let (engine, program) = (engine_for(BRIDGE), program.display());
    let mut websockify =
        Websockify::start(&format!("{port} -v {engine} {BRIDGE} -- {program} {port}"));
    wait_for_open(&websockify);
    let knocker = Knocker::at(websockify.relocated_port());
    wait_until("knocks", || knocker.knocks.load(Ordering::Relaxed) > 20);
    for n in 0..100 {
        let (mut one, _) = session_from(client(n), port);
        assert_eq!(one.read_until("\n"), "hello\n");
    }
    let (knocks, bytes) = knocker.stop();
    assert!(knocks > 20);
    assert_eq!(bytes, 0, "nothing for strangers");
    assert!(websockify.is_running());
    websockify.assert_logged(&["program started"], 1);
}
