//! Sessions that carry bulk, and one that has little to say, on one worker.

use std::io::{Read, Write};
use std::net::{Shutdown as Side, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use bridge::{Address, Shutdown, Target};
use tokio::sync::watch;

use crate::harness::{DEADLINE, HEAD, config};

const DOWNLOADS: usize = 10;

/// What all downloads may get while one small message goes there and back. A worker that lets every
/// download go on for as long as it can moves some 50 MB meanwhile.
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

/// A session that has said its first byte.
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

#[test]
fn b4_a_small_message_does_not_wait_behind_all_bulk() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let target = target();
    let target = Target::Address(Address { host: target.ip().to_string(), port: target.port() });
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let shutdown = watch::Sender::new(Shutdown::Run);
    let serving = runtime.spawn(bridge::serve(vec![listener], config(target).into(), shutdown));

    let moved = Arc::new(AtomicU64::new(0));
    let downloads: Vec<_> = (0..DOWNLOADS)
        .map(|_| {
            let (stream, moved) = (session(addr, b'b'), Arc::clone(&moved));
            let mut reader = stream.try_clone().unwrap();
            let counting = thread::spawn(move || {
                let mut buffer = vec![0; 65_536];
                while let Ok(length @ 1..) = reader.read(&mut buffer) {
                    moved.fetch_add(length as u64, Ordering::Relaxed);
                }
            });
            (stream, counting)
        })
        .collect();
    let mut small = session(addr, b'e');
    let mut answer = [0; 3];
    let mut meanwhile: Vec<u64> = (0..100)
        .map(|_| {
            small.read_exact(&mut answer).unwrap();
            assert_eq!(answer, [0x82, 1, b'e']);
            let before = moved.load(Ordering::Relaxed);
            say(&mut small, b'e');
            // Not read yet: only looked for.
            small.peek(&mut [0]).unwrap();
            moved.load(Ordering::Relaxed) - before
        })
        .collect();
    meanwhile.sort_unstable();
    let median = meanwhile[meanwhile.len() / 2];
    assert!(median < MEANWHILE, "{median} bytes of bulk went before a small message");
    assert!(*meanwhile.last().unwrap() > 0, "the downloads did carry bulk");

    for (stream, counting) in downloads {
        stream.shutdown(Side::Both).unwrap();
        counting.join().unwrap();
    }
    serving.abort();
}
