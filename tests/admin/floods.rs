//! Requests to the admin address that are huge, slow or far too many (O3): they cost the sessions nothing, and other
//! requests are still answered.

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use super::{echo_bridge, exchange, get, head};
use crate::support::{Client, Process, connect, read_to_end, wait_until};

/// How many connections the admin address keeps open at once, and how long each may last: ten seconds, less what a
/// clock may be off.
const MOST: usize = 16;
const PATIENCE: Duration = Duration::from_millis(9500);

#[test]
fn o3_a_huge_head_and_a_body_are_refused() {
    let (_service, _websockify, _, admin) = echo_bridge("");
    let filler = "x".repeat(64 * 1024);
    let reply = exchange(connect(admin), &head("GET", "/livez", &format!("X: {filler}\r\n")));
    assert_eq!(reply.status, 431);
    let long = format!("/{}", "x".repeat(64 * 1024));
    assert!([414, 431].contains(&exchange(connect(admin), &head("GET", &long, "")).status));
    for (headers, body) in [
        ("Content-Length: 5\r\n", "hello"),
        ("Content-Length: 1000000000000\r\n", "hello"),
        ("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n"),
    ] {
        let request = head("POST", "/drain", headers) + body;
        assert_eq!(exchange(connect(admin), &request).status, 413, "{headers}");
    }
    for garbage in ["\r\n\r\n\r\n", "GET\r\n\r\n", "\u{1}\u{2}\r\n\r\n", "GET / HTTP/9.9\r\n\r\n"] {
        let mut stream = connect(admin);
        stream.write_all(garbage.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let answer = read_to_end(&mut stream);
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 400"), "{garbage:?}");
    }
    assert_eq!(get(admin, "/readyz").status, 200, "nothing is drained");
    // A length of 0 means no body.
    assert_eq!(
        exchange(connect(admin), &head("POST", "/drain", "Content-Length: 0\r\n")).status,
        202
    );
}

#[test]
fn o3_a_slow_head_has_ten_seconds() {
    let (_service, _websockify, _, admin) = echo_bridge("");
    let began = Instant::now();
    let slow = thread::spawn(move || {
        let mut stream = connect(admin);
        let mut other = stream.try_clone().unwrap();
        let end = thread::spawn(move || read_to_end(&mut other));
        stream.write_all(b"GET /livez HTTP/1.1\r\n").unwrap();
        while !end.is_finished() && stream.write_all(b"X: x\r\n").is_ok() {
            thread::sleep(Duration::from_millis(100));
        }
        end.join().unwrap()
    });
    assert_eq!(get(admin, "/livez").status, 200);
    assert_eq!(slow.join().unwrap(), b"");
    assert!(began.elapsed() >= PATIENCE, "{:?}", began.elapsed());
}

#[test]
fn o3_a_thousand_connections_keep_nobody_out() {
    let (_service, websockify, port, admin) = echo_bridge("");
    let us = Process::find(websockify.pid()).unwrap();
    let mut client = Client::connect(port);
    // When this is answered, the connection to the target is open, too.
    client.send("hello");
    assert_eq!(client.read(5), b"hello");
    let before = us.sockets().len();
    // A third of them begin a request, and a third send a whole one and do not read the answer. The client closes none of them.
    let mut idle: Vec<_> = (0..1000).map(|_| connect(admin)).collect();
    for stream in idle.iter_mut().step_by(3) {
        let _ = stream.write_all(b"GET /livez HTTP/1.1\r\nHost: local");
    }
    for stream in idle.iter_mut().skip(1).step_by(3) {
        let _ = stream.write_all(head("GET", "/livez", "").as_bytes());
    }
    for path in ["/livez", "/readyz", "/metrics", "/sessions"] {
        assert_eq!(get(admin, path).status, 200, "{path}");
    }
    wait_until("no more than there may be", || us.sockets().len() <= before + MOST);
    client.send("hello");
    assert_eq!(client.read(5), b"hello");
    drop(idle);
    wait_until("all to be gone", || us.sockets().len() <= before);
    assert_eq!(websockify.warnings(), Vec::<String>::new());
    assert_eq!(client.close().code, 1000);
}
