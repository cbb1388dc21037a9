//! Sessions that carry bulk data, and one with small messages, on one worker.

use std::io::{Read, Write};
use std::net::{Shutdown as Side, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use bridge::{Address, Destination, Shutdown};
use tokio::sync::watch;

use crate::harness::{DEADLINE, HEAD, config};

const BULK: usize = 10;

/// How many bytes the bulk sessions together may move while one small message goes there and back. A worker that
/// lets each of them go on for as long as it can moves some 50 MB meanwhile.
const MEANWHILE: u64 = 12_000_000;

/// A server that sends without end to whoever says `b`, and gives back what others say.
fn target() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || attend(stream));
        }
    });
    addr
}

fn attend(mut stream: TcpStream) {
    let mut buffer = vec![b'x'; 65_536];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        if buffer[0] == b'b' {
            while stream.write_all(&buffer).is_ok() {}
            return;
        }
        if stream.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}

/// A session whose client has sent its first byte.
fn session(addr: SocketAddr, first: u8) -> TcpStream {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(HEAD.as_bytes()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", head.escape_ascii());
    say(&mut stream, first);
    stream
}

/// A frame of one byte, its mask zeroes.
fn say(stream: &mut TcpStream, byte: u8) {
    stream.write_all(&[0x82, 0x81, 0, 0, 0, 0, byte]).unwrap();
}

/// Begins a session whose threads count the bytes that they move in `moved`.
type Bulk = fn(SocketAddr, Arc<AtomicU64>) -> TcpStream;

/// A session that reads all it can get.
fn download(addr: SocketAddr, moved: Arc<AtomicU64>) -> TcpStream {
    let stream = session(addr, b'b');
    let mut reader = stream.try_clone().unwrap();
    thread::spawn(move || {
        let mut buffer = vec![0; 65_536];
        while let Ok(length @ 1..) = reader.read(&mut buffer) {
            moved.fetch_add(length as u64, Ordering::Relaxed);
        }
    });
    stream
}

/// A session that is over, whose client goes on sending all the same.
fn flood(addr: SocketAddr, moved: Arc<AtomicU64>) -> TcpStream {
    let mut stream = session(addr, b'e');
    stream.write_all(&[0x88, 0x80, 0, 0, 0, 0]).unwrap();
    send_on(&stream, vec![0; 65_536], moved);
    stream
}

/// A session whose client sends pongs without end, which carry nothing.
fn pongs(addr: SocketAddr, moved: Arc<AtomicU64>) -> TcpStream {
    let stream = session(addr, b'e');
    send_on(&stream, [0x8a, 0x80, 0, 0, 0, 0].repeat(10_000), moved);
    stream
}

/// Sends the same again and again, whole.
fn send_on(stream: &TcpStream, bytes: Vec<u8>, moved: Arc<AtomicU64>) {
    let mut writer = stream.try_clone().unwrap();
    thread::spawn(move || {
        while writer.write_all(&bytes).is_ok() {
            moved.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
    });
}

/// How many bytes of bulk are moved while each of some small messages goes there and back, in ascending order.
fn bulk_before_small_messages(bulk: Bulk, messages: usize) -> Vec<u64> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let target = target();
    let target = Destination::from(Address { host: target.ip().to_string(), port: target.port() });
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let shutdown = watch::Sender::new(Shutdown::Run);
    let serving =
        runtime.spawn(bridge::serve(vec![listener.into()], config(target).into(), shutdown));

    let mut small = session(addr, b'e');
    let moved = Arc::new(AtomicU64::new(0));
    let all: Vec<_> = (0..BULK).map(|_| bulk(addr, Arc::clone(&moved))).collect();
    let mut answer = [0; 3];
    let mut before: Vec<u64> = (0..messages)
        .map(|_| {
            small.read_exact(&mut answer).unwrap();
            assert_eq!(answer, [0x82, 1, b'e']);
            let before = moved.load(Ordering::Relaxed);
            say(&mut small, b'e');
            // The answer is only waited for; the next round reads it.
            small.peek(&mut [0]).unwrap();
            moved.load(Ordering::Relaxed) - before
        })
        .collect();
    before.sort_unstable();
    for stream in all {
        // The bridge may have cut it off already.
        let _ = stream.shutdown(Side::Both);
    }
    serving.abort();
    before
}

#[test]
fn b4_a_small_message_does_not_wait_behind_all_bulk() {
    for (bulk, messages) in [(download as Bulk, 100), (flood as Bulk, 30), (pongs as Bulk, 30)] {
        // On a busy machine the threads that move the bulk may get no time meanwhile.
        let mut measured = (0..5).map(|_| bulk_before_small_messages(bulk, messages));
        let before = measured.find(|before| before[messages - 1] > 0);
        let median = before.expect("there was bulk")[messages / 2];
        assert!(median < MEANWHILE, "{median} bytes of bulk went before a small message");
    }
}
