//! The budget of all memory that clients make websockify hold (L5).

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, sleep};
use std::time::Duration;

use tempfile::TempDir;

use super::{Over, bridge_to, encrypted, exchange, is_open, say};
use crate::support::{
    Caller, Client, Footprint, MemoryLimit, UPGRADE, Websockify, echo_service, frame, free_port,
    request, try_ask, wait_for_within, wait_until,
};

/// So many clients that read nothing use up a megabyte, though each has little where memory is scarce.
const STUCK: usize = 40;

/// A service that sends each client as much as it takes. A client that has sent an `e` gets that back instead.
fn flood(is_over: &AtomicBool, listener: &TcpListener) {
    listener.set_nonblocking(true).unwrap();
    let (mut clients, piece) = (Vec::new(), vec![0; 65_536]);
    while !is_over.load(Relaxed) {
        while let Ok((client, _)) = listener.accept() {
            client.set_nonblocking(true).unwrap();
            clients.push(client);
        }
        clients.retain_mut(|client: &mut TcpStream| {
            let mut asked = [0];
            match client.read(&mut asked) {
                Ok(1) if asked == *b"e" => {
                    let _ = client.write_all(b"e");
                    return false;
                }
                Ok(0) => return false,
                _ => {}
            }
            while client.write(&piece).is_ok() {}
            true
        });
        sleep(Duration::from_millis(2));
    }
}

/// A client that has a session, or is refused one, and reads nothing of it.
fn reader(port: u16) -> TcpStream {
    let mut stream = super::connect(port);
    let _ = socket2::SockRef::from(&stream).set_recv_buffer_size(4096);
    if try_ask(&mut stream, "/", &UPGRADE).is_ok_and(|head| head.status == 101) {
        let _ = stream.write_all(&frame(0x82, b"g"));
    }
    stream
}

/// L5, B4: where memory is scarce sessions go on, in small pieces, and new clients are refused; when there is room
/// again all is as before.
#[test]
fn l5_where_memory_is_scarce_sessions_go_on_and_others_are_refused() {
    let service = echo_service();
    let (mut websockify, port) = bridge_to(&service, "--max-memory=1");
    let mut session = Client::connect(port);
    exchange(&mut session);
    // More than a megabyte waits for clients that read nothing. When a quarter is used, each of them has less.
    let stuck: Vec<_> = (0..STUCK).map(|_| reader(port)).collect();
    for client in &stuck {
        client.set_nonblocking(true).unwrap();
    }
    let message = frame(0x82, &[7; 100]).repeat(1000);
    let refused = || request(port, "/", &UPGRADE).0;
    wait_until("a refusal", || {
        for mut client in &stuck {
            // A part of a frame does as well here.
            let _ = client.write(&message);
        }
        let head = refused();
        let is_refused = head.status == 503;
        assert!(!is_refused || head.header("retry-after").is_some());
        is_refused
    });
    let sent: Vec<u8> = (0..400_000_u32).map(|number| number.to_le_bytes()[1]).collect();
    for piece in sent.chunks(50_000) {
        session.send(piece);
        assert_eq!(session.read(piece.len()), piece);
    }
    websockify.wait_for_log(&["refused a handshake", "too much is under way"]);
    drop(stuck);
    wait_until("room", || refused().status == 101);
    exchange(&mut session);
    assert_eq!(session.close().code, 1000);
    assert_eq!(websockify.stop(), 0);
}

/// L5: what TLS holds for a client that sends nothing counts, too, from the handshake on: the oldest connection is
/// closed.
#[test]
fn l5_encrypted_connections_count_before_they_ask_for_anything() {
    let (mut websockify, port, _directory) = encrypted("--max-memory=1");
    let caller = Caller::anonymous();
    let mut crowd: Vec<_> = (0..80).map(|_| caller.call(port).unwrap()).collect();
    assert_eq!(caller.session(port, &[]).err(), None, "nobody is refused");
    let mut ended = 0;
    for connection in &mut crowd {
        connection.0.sock.set_nonblocking(true).unwrap();
        // The connection may end with or without TLS's close_notify.
        let read = connection.0.read(&mut [0]);
        ended += usize::from(!read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock));
    }
    assert!((40..75).contains(&ended), "{ended}");
    let last = crowd.last_mut().unwrap();
    last.0.sock.set_nonblocking(false).unwrap();
    assert_eq!(last.upgrade(13, &[]), Ok(101));
    assert_eq!(websockify.stop(), 0);
}

/// L5: what is held between two requests counts, too, and what the kernel has of a ClientHello that is not whole.
#[test]
fn l5_what_idle_connections_and_half_a_hello_cost_counts() {
    let hello = [b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc\x03\x03".to_vec(), vec![7; 15_000]];
    let answered = |port| {
        let mut stream = say(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec())(port);
        let mut head = [0; 1024];
        assert!(stream.read(&mut head).unwrap() > 0);
        stream
    };
    let begun = say(hello.concat());
    for begin in [&answered as &dyn Fn(u16) -> TcpStream, &begun] {
        let (mut websockify, port, _directory) = encrypted("--max-memory=1 --web=.");
        let mut crowd: Vec<_> = (0..200).map(|_| begin(port)).collect();
        wait_for_within(Duration::from_secs(7), "few of them", || {
            let open = crowd.iter_mut().map(is_open).filter(|is_open| *is_open).count();
            (20..60).contains(&open).then_some(())
        });
        assert_eq!(Caller::anonymous().session(port, &[]).err(), None, "nobody is refused");
        drop(crowd);
        assert_eq!(websockify.stop(), 0);
    }
}

/// L5: websockify gives back the memory of a crowd that has gone.
#[test]
fn l5_the_memory_of_a_crowd_is_given_back_within_a_minute() {
    let (mut websockify, port, _directory) = encrypted("");
    let caller = Caller::anonymous();
    let crowd = || (0..1000).map(|_| caller.call(port).unwrap()).collect::<Vec<_>>();
    // What is allocated once does not count.
    drop((0..20).map(|_| caller.call(port).unwrap()).collect::<Vec<_>>());
    let memory = || Footprint::of(&websockify).memory;
    let before = memory();
    let there = crowd();
    let peak = memory() - before;
    assert!(peak > 8 << 20, "{peak}");
    drop(there);
    wait_for_within(Duration::from_secs(60), "half of it at most", || {
        (memory().saturating_sub(before) < peak / 2).then_some(())
    });
    assert_eq!(websockify.stop(), 0);
}

/// Starts a websockify that serves a large file, in a control group with a memory limit, and a crowd of `many`
/// connections; websockify must not be killed, and must serve clients afterwards.
fn survives(megabytes: u64, begin: impl Fn(u16) -> TcpStream, many: usize) {
    let Some(group) = MemoryLimit::new(megabytes << 20) else { return };
    let (directory, port) = (TempDir::new().unwrap(), free_port());
    std::fs::write(directory.path().join("big"), vec![1; 8 << 20]).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = listener.local_addr().unwrap();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let over = Over(&is_over);
        scope.spawn(|| flood(&is_over, &listener));
        let web = directory.path().display();
        let mut websockify: Websockify = group.start(&format!("{port} {target} --web={web}"));
        websockify.wait_until_open();
        let crowd: Vec<_> = (0..many).map(|_| begin(port)).collect();
        // A new client gets a session, or a 503.
        let head = request(port, "/", &UPGRADE).0;
        assert!([101, 503].contains(&head.status), "{}", head.status);
        sleep(Duration::from_millis(500));
        assert!(websockify.is_running(), "it was killed");
        drop(crowd);
        wait_until("a client that is served", || {
            let (head, mut stream) = request(port, "/", &UPGRADE);
            let mut answer = [0; 3];
            head.status == 101
                && stream.write_all(&frame(0x82, b"e")).is_ok()
                && stream.read_exact(&mut answer).is_ok()
        });
        assert_eq!(websockify.stop(), 0);
        drop(over);
    });
}

/// The memory limit in megabytes, and the sizes of three crowds.
fn size() -> (u64, [usize; 3]) {
    let is_large = std::env::var_os("CROWD").is_some();
    if is_large { (64, [3000, 1000, 1000]) } else { (36, [1500, 400, 400]) }
}

#[test]
fn l5_many_long_heads_kill_nobody_where_memory_is_limited() {
    let (megabytes, [heads, ..]) = size();
    let head = [b"GET / HTTP/1.1\r\nHost: a\r\nX: ".to_vec(), vec![b'a'; 15_800]].concat();
    survives(megabytes, say(head), heads);
}

#[test]
fn l5_many_slow_readers_kill_nobody_where_memory_is_limited() {
    let (megabytes, [_, readers, _]) = size();
    survives(megabytes, reader, readers);
}

#[test]
fn l5_many_slow_downloads_kill_nobody_where_memory_is_limited() {
    let (megabytes, [.., downloads]) = size();
    survives(megabytes, say(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()), downloads);
}
