//! The bytes: none is lost, none is kept in memory, none waits for another (B4, B7).

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use super::bridge_to;
use crate::support::{Client, DEADLINE, Service, echo_service, frame, wait_for, wait_until};

const MUCH: usize = 20_000_000;

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from((at * 31 + at / 251) % 256).unwrap()).collect()
}

#[test]
fn b4_all_that_the_target_sent_before_it_closed_reaches_the_client() {
    let service = Service::new(|mut stream| stream.write_all(&pattern(MUCH)).unwrap());
    let (_websockify, port) = bridge_to(&service, "");
    let closing = Client::connect(port).closing();
    assert_eq!((closing.code, closing.bytes.len()), (1000, MUCH));
    assert!(closing.bytes == pattern(MUCH));
}

#[test]
fn b4_all_that_the_client_sent_before_its_close_reaches_the_target() {
    let (sender, received) = mpsc::channel();
    let service = Service::new(move |mut stream| {
        let mut bytes = Vec::new();
        let end = stream.read_to_end(&mut bytes).map_err(|error| error.kind());
        sender.send((end.map(|_| ()), bytes)).unwrap();
    });
    let (_websockify, port) = bridge_to(&service, "");
    let mut client = Client::connect(port);
    for piece in pattern(MUCH).chunks(50_000) {
        client.send(piece);
    }
    assert_eq!(client.close().code, 1000);
    let (end, bytes) = received.recv_timeout(DEADLINE).unwrap();
    assert_eq!((end, bytes.len()), (Ok(()), MUCH));
    assert!(bytes == pattern(MUCH));
}

/// B4: the target ends its direction of the stream, and goes on reading.
#[test]
fn b4_the_clients_bytes_flow_on_after_the_targets_end() {
    let (sender, received) = mpsc::channel();
    let service = Service::new(move |mut stream| {
        stream.write_all(b"bye").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        sender.send(bytes).unwrap();
    });
    let (_websockify, port) = bridge_to(&service, "");
    let mut client = Client::connect(port);
    assert_eq!(client.read(3), b"bye");
    // Not by tungstenite, which sends nothing more once it has received a close frame.
    let stream = client.stream();
    stream.write_all(&frame(0x82, b"one more")).unwrap();
    stream.write_all(&frame(0x88, &1000_u16.to_be_bytes())).unwrap();
    assert_eq!(client.closing().code, 1000);
    assert_eq!(received.recv_timeout(DEADLINE).unwrap(), b"one more");
}

#[test]
fn b4_a_slow_reader_slows_the_sender_and_costs_no_memory() {
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = sent.clone();
    let service = Service::new(move |mut stream| {
        while stream.write_all(&[b'x'; 10_000]).is_ok() {
            counter.fetch_add(10_000, Ordering::Relaxed);
        }
    });
    let (websockify, port) = bridge_to(&service, "");
    let mut client = Client::connect(port);
    client.read(1);
    // When nothing moves for a while, the buffers of all four sockets are full.
    let mut before = (0, Instant::now());
    let stuck = wait_for("the sender to stop", || {
        let now = sent.load(Ordering::Relaxed);
        if now != before.0 {
            before = (now, Instant::now());
        }
        (before.1.elapsed() > Duration::from_millis(500)).then_some(now)
    });
    let status = procfs::process::Process::new(websockify.pid()).unwrap().status().unwrap();
    assert!(status.vmhwm.unwrap() < 64 * 1024, "{:?} kB", status.vmhwm);
    client.read(stuck / 2);
    wait_until("the sender to go on", || sent.load(Ordering::Relaxed) > stuck);
}

/// With Nagle's algorithm each second byte waits 40 ms for the delayed acknowledgement of the first, except at the
/// beginning of a connection. A busy machine delays some rounds too, but not all, so that only the quickest third counts.
fn assert_not_delayed(mut rounds: Vec<Duration>) {
    rounds.sort_unstable();
    let quick = rounds[rounds.len() / 3];
    assert!(quick < Duration::from_millis(35), "{rounds:?}");
}

/// B7: on the connection to the target.
#[test]
fn b7_small_writes_to_the_target_do_not_wait_for_each_other() {
    let (sender, received) = mpsc::channel();
    let service = Service::new(move |mut stream| {
        let mut byte = [0];
        while stream.read_exact(&mut byte).is_ok() {
            sender.send(byte[0]).unwrap();
            // Because of this answer the kernel treats the connection as interactive, and delays its acknowledgements.
            if byte == *b"b" {
                stream.write_all(b"!").unwrap();
            }
        }
    });
    let (_websockify, port) = bridge_to(&service, "");
    let mut client = Client::connect(port);
    let round = || {
        let began = Instant::now();
        for byte in [b'a', b'b'] {
            client.send([byte]);
            assert_eq!(received.recv_timeout(DEADLINE), Ok(byte));
        }
        client.read(1);
        began.elapsed()
    };
    assert_not_delayed(std::iter::repeat_with(round).take(100).collect());
}

/// B7: the same on the connection to the client.
#[test]
fn b7_small_writes_to_the_client_do_not_wait_for_each_other() {
    let (sender, orders) = mpsc::channel::<u8>();
    let orders = Arc::new(Mutex::new(orders));
    let service = Service::new(move |mut stream| {
        stream.set_nodelay(true).unwrap();
        while let Ok(byte) = orders.lock().unwrap().recv() {
            stream.write_all(&[byte]).unwrap();
        }
    });
    let (_websockify, port) = bridge_to(&service, "");
    let mut client = Client::connect(port);
    let round = || {
        let began = Instant::now();
        client.send("?");
        for byte in [b'a', b'b'] {
            sender.send(byte).unwrap();
            assert_eq!(client.read(1), [byte]);
        }
        began.elapsed()
    };
    assert_not_delayed(std::iter::repeat_with(round).take(100).collect());
}

/// B7: proc(5) shows the timer of a socket; 2 is keepalive.
#[test]
fn b7_both_legs_are_kept_alive() {
    let service = echo_service();
    let (_websockify, port) = bridge_to(&service, "");
    let mut client = Client::connect(port);
    client.send("x");
    client.read(1);
    let target = service.address.port();
    let timers = || -> Vec<(u16, u16, u8)> {
        let sockets =
            ["/proc/net/tcp", "/proc/net/tcp6"].map(|file| std::fs::read_to_string(file).unwrap());
        sockets.iter().flat_map(|text| text.lines().skip(1)).filter_map(timer).collect()
    };
    wait_until("a keepalive timer on both legs", || {
        let timers = timers();
        timers.iter().any(|(local, _, timer)| (*local, *timer) == (port, 2))
            && timers.iter().any(|(_, remote, timer)| (*remote, *timer) == (target, 2))
    });
}

/// Local port, remote port and timer of an established connection.
fn timer(line: &str) -> Option<(u16, u16, u8)> {
    let columns: Vec<_> = line.split_whitespace().collect();
    let port = |column: &str| u16::from_str_radix(column.rsplit(':').next()?, 16).ok();
    let timer = u8::from_str_radix(columns[5].split(':').next()?, 16).ok()?;
    (columns[3] == "01").then_some((port(columns[1])?, port(columns[2])?, timer))
}

/// B4: the target resets its connection: the client is told.
#[test]
fn b4_a_reset_by_the_target_is_told() {
    let service = Service::new(|mut stream| {
        stream.write_all(b"x").unwrap();
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        let reset = socket2::SockRef::from(&stream);
        reset.set_linger(Some(Duration::ZERO)).unwrap();
    });
    let (_websockify, port) = bridge_to(&service, "");
    let mut client = Client::connect(port);
    client.read(1);
    client.send("go");
    let closing = client.closing();
    assert_eq!(closing.code, 1011, "{closing:?}");
    assert!(closing.reason.contains("reset"), "{closing:?}");
}

/// B4: when a client vanishes, the target's stream ends, after everything that the client has sent.
#[test]
fn b4_a_client_that_vanishes_ends_the_targets_stream() {
    let (sender, received) = mpsc::channel();
    let service = Service::new(move |mut stream| {
        let mut bytes = Vec::new();
        let end = stream.read_to_end(&mut bytes);
        let kind = end.err().map(|error| error.kind());
        sender.send((kind, bytes)).unwrap();
    });
    let (_websockify, port) = bridge_to(&service, "");
    let mut client = Client::connect(port);
    client.send("last words");
    client.stream().shutdown(Shutdown::Both).unwrap();
    drop(client);
    let (kind, bytes) = received.recv_timeout(DEADLINE).unwrap();
    assert!(matches!(kind, None | Some(ErrorKind::ConnectionReset)), "{kind:?}");
    assert_eq!(bytes, b"last words");
}
