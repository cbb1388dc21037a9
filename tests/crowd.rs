//! Many clients without a session, some of which never want one, beside a few that have one (L5). `tests/crowd/run`
//! has the crowd as large as it is on the open internet.

mod memory;

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};

use tempfile::TempDir;

use crate::support::{
    Authority, Caller, Client, Footprint, Identity, SERVERS, Service, TlsConnection, WEBSOCKIFY,
    Websockify, connect, echo_service, free_port, read_to_end, stays, wait_for_within, wait_until,
};

/// How many slow clients there are where `CROWD` is not set.
const SLOW: u64 = 400;

/// How long a good client may wait, also on a busy machine. If the crowd kept it out, it would wait ten seconds, the
/// deadline of a request head.
const PATIENCE: Duration = Duration::from_secs(8);

fn exchange(client: &mut Client) {
    client.send("hello");
    assert_eq!(client.read(5), b"hello");
}

fn bridge_to(service: &Service, options: &str) -> (Websockify, u16) {
    let port = free_port();
    let websockify = Websockify::start(&format!("{port} {} {options}", service.target()));
    websockify.wait_until_open();
    (websockify, port)
}

fn connect_from(address: &str, port: u16) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let [from, to] = [(address, 0), ("127.0.0.1", port)]
        .map(|(address, port)| SocketAddr::from((address.parse::<Ipv4Addr>().unwrap(), port)));
    socket.bind(&from.into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(crate::support::DEADLINE)).unwrap();
    stream
}

/// A connection that has begun a request.
fn begun(port: u16) -> TcpStream {
    let mut stream = connect(port);
    stream.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    stream
}

#[test]
fn l5_the_oldest_without_a_session_ends_for_others_and_no_session_does() {
    let service = echo_service();
    let (mut websockify, port) = bridge_to(&service, "--max-connections=4");
    let mut sessions = [Client::connect(port), Client::connect(port)];
    sessions.iter_mut().for_each(exchange);
    let mut oldest = begun(port);
    // Neither is closed before the third client comes.
    stays(Duration::from_millis(100), "it waits", || is_open(&mut oldest));
    let mut older = begun(port);
    stays(Duration::from_millis(100), "both wait", || is_open(&mut oldest) && is_open(&mut older));
    websockify.wait_for_log(&[" WARN ", "4 connections are open, as many as may be"]);
    let mut third = Client::connect(port);
    exchange(&mut third);
    assert_eq!(read_to_end(&mut oldest), b"");
    assert!(is_open(&mut older));
    let mut fourth = Client::connect(port);
    exchange(&mut fourth);
    assert_eq!(read_to_end(&mut older), b"");
    // Now all four have a session, and the next client waits.
    let waiting = thread::spawn(move || exchange(&mut Client::connect(port)));
    stays(Duration::from_millis(300), "it waits", || !waiting.is_finished());
    sessions.iter_mut().chain([&mut third, &mut fourth]).for_each(exchange);
    assert_eq!(third.close().code, 1000);
    waiting.join().unwrap();
    sessions.iter_mut().for_each(exchange);
    assert_eq!(websockify.stop(), 0);
}

/// L5: a client that reads its answer gets all of it, while others wait; a client that reads nothing of its answer is
/// closed for them.
#[test]
fn l5_an_answer_that_is_taken_is_whole_and_one_that_is_not_gives_way() {
    let directory = TempDir::new().unwrap();
    let length = 12 << 20;
    std::fs::write(directory.path().join("big"), vec![1; length]).unwrap();
    let service = echo_service();
    let web = directory.path().display();
    let (mut websockify, port) = bridge_to(&service, &format!("--max-connections=2 --web={web}"));
    let get = || {
        let mut stream = connect(port);
        socket2::SockRef::from(&stream).set_recv_buffer_size(65_536).unwrap();
        stream.write_all(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        stream.read_exact(&mut [0; 9]).unwrap();
        stream
    };
    let mut reader = get();
    let mut oldest = begun(port);
    let mut session = Client::connect(port);
    exchange(&mut session);
    assert_eq!(read_to_end(&mut oldest), b"", "it has come later, and is not being answered");
    let (sender, waiting) = std::sync::mpsc::channel();
    let next = thread::spawn(move || {
        let mut client = Client::connect(port);
        exchange(&mut client);
        sender.send(()).unwrap();
        client
    });
    // Reads slowly, for longer than a client may read nothing, however fast the machine is.
    let (mut read, mut piece, began) = (0, vec![0; 131_072], Instant::now());
    while read < length {
        if began.elapsed() < Duration::from_secs(14) {
            assert!(waiting.try_recv().is_err(), "it waits");
            sleep(Duration::from_millis(250));
        }
        // When the kernel has the rest of the answer, the connection may be closed for the next client. The reader must get that
        // rest all the same.
        sleep(Duration::from_millis(50));
        match reader.read(&mut piece).unwrap() {
            0 => panic!("{read} bytes came, and then the end"),
            length => read += length,
        }
    }
    let next = next.join().unwrap();
    assert_eq!(next.close().code, 1000);
    let _stuck = get();
    // What the client's kernel takes at first counts as reading, and is seen ten seconds later.
    sleep(Duration::from_secs(8));
    let late = thread::spawn(move || exchange(&mut Client::connect(port)));
    stays(Duration::from_secs(2), "it waits", || !late.is_finished());
    late.join().unwrap();
    exchange(&mut session);
    assert_eq!(websockify.stop(), 0);
}

/// L5: a client with many answers under way does not keep others out, however slowly it reads each of them.
#[test]
fn l5_slow_downloads_of_one_client_keep_nobody_out() {
    let directory = TempDir::new().unwrap();
    std::fs::write(directory.path().join("big"), vec![1; 12 << 20]).unwrap();
    let service = echo_service();
    let web = directory.path().display();
    let (mut websockify, port) = bridge_to(&service, &format!("--max-connections=8 --web={web}"));
    let mut downloads: Vec<_> = (0..8)
        .map(|_| {
            let mut stream = connect_from("127.0.0.2", port);
            stream.write_all(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
            stream.read_exact(&mut [0; 4096]).unwrap();
            stream
        })
        .collect();
    let mut good = Client::connect(port);
    exchange(&mut good);
    let mut other = Client::connect(port);
    exchange(&mut other);
    let last = downloads.last_mut().unwrap();
    last.read_exact(&mut vec![0; (12 << 20) - 4096]).unwrap();
    assert_eq!(websockify.stop(), 0);
}

/// L5, A4: no connection is closed to make room for a client that `--allow-from` does not let in.
#[test]
fn l5_nobody_gives_way_to_a_stranger() {
    let service = echo_service();
    let (mut websockify, port) =
        bridge_to(&service, "--max-connections=2 --allow-from=127.0.0.1/32");
    let mut session = Client::connect(port);
    exchange(&mut session);
    let mut begins = begun(port);
    for _ in 0..5 {
        assert_eq!(read_to_end(&mut connect_from("127.0.0.9", port)), b"");
    }
    assert!(is_open(&mut begins));
    write!(begins, "Host: a\r\n\r\n").unwrap();
    begins.read_exact(&mut [0; 9]).unwrap();
    assert_eq!(websockify.stop(), 0);
}

/// Whether a connection on which nothing arrives is still open.
fn is_open(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let read = stream.read(&mut [0]);
    stream.set_nonblocking(false).unwrap();
    matches!(read, Err(error) if error.kind() == ErrorKind::WouldBlock)
}

/// A websockify with a certificate, its port and its directory.
type Encrypted = (Websockify, u16, TempDir);

fn encrypted(options: &str) -> Encrypted {
    encrypted_with(options, "")
}

/// A websockify with a certificate, and with these authorities in `ca.pem`.
fn encrypted_with(options: &str, authorities: &str) -> Encrypted {
    let (port, directory) = (free_port(), TempDir::new().unwrap());
    std::fs::write(directory.path().join("ca.pem"), authorities).unwrap();
    std::fs::write(directory.path().join("self.pem"), SERVERS.issue("localhost").pem()).unwrap();
    let websockify = Websockify::start_with(&format!("{port} 127.0.0.1:1 {options}"), |command| {
        command.current_dir(&directory);
    });
    websockify.wait_until_open();
    // When the certificate is watched, websockify opens no further descriptor of its own.
    let descriptors = format!("/proc/{}/fd", websockify.pid());
    wait_until("the certificate's watch", || {
        let mut all = std::fs::read_dir(&descriptors).unwrap().flatten();
        all.any(|one| {
            std::fs::read_link(one.path()).is_ok_and(|what| what.ends_with("anon_inode:inotify"))
        })
    });
    (websockify, port, directory)
}

/// How many bytes of memory each of many connections costs that `begin` makes.
fn cost<T>(begin: impl Fn(u16) -> T) -> u64 {
    cost_with(encrypted(""), begin)
}

fn cost_with<T>(server: Encrypted, begin: impl Fn(u16) -> T) -> u64 {
    const MANY: u64 = 400;
    let (mut websockify, port, _directory) = server;
    // What is allocated once does not count.
    let _first: Vec<_> = (0..40).map(|_| begin(port)).collect();
    sleep(Duration::from_millis(200));
    let Footprint { memory: before, descriptors, .. } = Footprint::of(&websockify);
    let many: Vec<_> = (0..MANY).map(|_| begin(port)).collect();
    let more = || Footprint::of(&websockify).descriptors - descriptors;
    wait_until("all of them", || more() as u64 >= MANY);
    sleep(Duration::from_millis(300));
    let after = Footprint::of(&websockify);
    drop(many);
    assert_eq!(websockify.stop(), 0);
    after.memory.saturating_sub(before) / MANY
}

fn say(bytes: Vec<u8>) -> impl Fn(u16) -> TcpStream {
    move |port| {
        let mut stream = connect(port);
        // websockify may have closed the connection by now.
        let _ = stream.write_all(&bytes);
        stream
    }
}

/// L5, T1: a head or a ClientHello that is not whole stays in the kernel.
#[test]
fn l5_who_is_not_let_in_yet_costs_little_whatever_he_says() {
    // The futures of a build for tests are somewhat larger.
    let bound = if cfg!(debug_assertions) { 5_000 } else { 4_096 };
    let long = [b"GET / HTTP/1.1\r\nHost: a\r\nX: ".to_vec(), vec![b'a'; 15_800]].concat();
    let post = [b"POST".to_vec(), long[3..].to_vec()].concat();
    let hello = [b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc\x03\x03".to_vec(), vec![7; 15_900]];
    for (what, bytes) in [
        ("nothing", vec![]),
        ("little", b"GET /".to_vec()),
        ("a long head", long),
        ("another", post),
        ("a byte of a hello", vec![0x16]),
        ("a long hello", hello.concat()),
    ] {
        let cost = cost(say(bytes));
        eprintln!("{what}: {cost} bytes");
        assert!(cost <= bound, "{what}: {cost} bytes");
    }
}

/// The beginning of a request head, `length` bytes of it.
fn head(length: usize) -> Vec<u8> {
    let mut head = b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ".to_vec();
    head.resize(length, b'a');
    head
}

/// The same after a TLS handshake, where a client completes neither a record nor a head.
#[test]
fn l5_t1_who_is_not_let_in_yet_costs_little_behind_a_handshake_too() {
    for (what, begun, of_record) in [
        ("a handshake", 0, 0),
        ("a record that is not whole", 0, 16_300),
        ("a head that is not whole", 7_000, 0),
        ("neither is whole", 7_000, 16_300),
    ] {
        for caller in [Caller::anonymous(), Caller::old()] {
            let cost = cost(|port| {
                let mut connection = caller.call(port).unwrap();
                for piece in head(begun).chunks(500) {
                    connection.send_but(piece, 0);
                }
                if of_record > 0 {
                    connection.send_but(&head(of_record), 1);
                }
                connection
            });
            eprintln!("{what}: {cost} bytes");
            assert!(cost <= 24_576, "{what}: {cost} bytes");
        }
    }
}

/// L5, T1: there is room for a few long heads that are not whole, and for one more that its client soon completes.
#[test]
fn l5_t1_long_heads_behind_a_handshake_have_room_for_a_few_at_a_time() {
    have_room_for_a_few(&head(15_800));
    // This head is whole, and what is missing are the eight bytes after it (Hixie-76).
    let old = b"\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\nOrigin: http://localhost\r\n\
        Sec-WebSocket-Key1: 4 @1  46546xW%0l 1 5\r\nSec-WebSocket-Key2: 12998 5 Y3 1  .P00\r\n\r\n";
    have_room_for_a_few(&[&head(15_000)[..], old].concat());
}

fn have_room_for_a_few(said: &[u8]) {
    const ROOM: usize = 64;
    let (mut websockify, port, _directory) = encrypted("");
    let before = Footprint::of(&websockify);
    let caller = Caller::anonymous();
    let begin = |from| {
        let mut connection = caller.call_over(connect_from(from, port)).unwrap();
        connection.send_but(said, 0);
        connection
    };
    let mut many: Vec<_> = (0..2 * ROOM).map(|_| begin("127.0.0.1")).collect();
    let mut good = begin("127.0.0.2");
    many.extend((0..10).map(|_| begin("127.0.0.1")));
    // Before the deadline of their heads and handshakes.
    wait_for_within(Duration::from_secs(7), "the others' end", || {
        (Footprint::of(&websockify).descriptors <= before.descriptors + ROOM).then_some(())
    });
    let is_whole = said.ends_with(b"\r\n\r\n");
    let (rest, status) = if is_whole { ("^n:ds[4U", 101) } else { ("\r\n\r\n", 405) };
    assert_eq!(good.request(rest), Ok(status));
    assert_eq!(websockify.stop(), 0);
}

/// L5: a connection whose long head was answered has no long head any more, whatever was asked: it is not closed for
/// others' long heads.
#[test]
fn l5_t1_who_has_had_an_answer_gives_way_to_no_long_head() {
    const ROOM: usize = 64;
    let (mut websockify, port, _directory) = encrypted("--web=.");
    let caller = Caller::anonymous();
    let before = Footprint::of(&websockify);
    let mut oldest = caller.call(port).unwrap();
    oldest.send_but(&[b"HEAD", &head(8_000)[3..]].concat(), 0);
    // Now websockify waits for the rest of the head.
    sleep(Duration::from_millis(200));
    assert_eq!(oldest.request("\r\n\r\n"), Ok(200));
    let long = |_| {
        let mut connection = caller.call(port).unwrap();
        connection.send_but(&head(8_000), 0);
        connection
    };
    let _many: Vec<_> = (0..ROOM + 10).map(long).collect();
    // Before the deadline of their heads and handshakes.
    wait_for_within(Duration::from_secs(7), "the others' end", || {
        let open = before.descriptors + 1 + ROOM;
        (Footprint::of(&websockify).descriptors <= open).then_some(())
    });
    assert_eq!(oldest.request("HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n"), Ok(200));
    assert_eq!(websockify.stop(), 0);
}

/// A websockify that asks its clients for certificates, and the certificates of two clients.
fn asking() -> (Encrypted, [Identity; 2]) {
    let authority = Authority::new("authority");
    let server = encrypted_with("--verify-client --cafile=ca.pem", &authority.pem());
    (server, ["Joe", "Jane"].map(|name| authority.issue(name)))
}

/// The first client begins to send a chain of certificates of `length` bytes, and keeps back the last `kept_back`
/// bytes of its handshake; gives the connection and these bytes.
fn says_certificates(
    socket: TcpStream,
    [joe, jane]: &[Identity; 2],
    length: usize,
    kept_back: usize,
) -> (TlsConnection, Vec<u8>) {
    let mut chain = vec![joe.certificate.der().clone()];
    chain.resize(length / chain[0].len(), jane.certificate.der().clone());
    let caller = Caller::showing(chain, &joe.key).in_records_of(1_000);
    let mut connection = caller.call_without_last_flight(socket);
    let rest = connection.send_but(b"", kept_back);
    (connection, rest)
}

/// L5, T3: also while a client sends its certificates.
#[test]
fn l5_t3_who_has_not_said_its_certificates_yet_costs_little() {
    let (server, clients) = asking();
    let cost = cost_with(server, |port| says_certificates(connect(port), &clients, 6_500, 1_500));
    eprintln!("{cost} bytes");
    assert!(cost <= 24_576, "{cost} bytes");
}

/// L5, T3: a chain of certificates that is longer than most counts as a long head, too.
#[test]
fn l5_t3_long_chains_of_certificates_have_room_for_a_few_at_a_time() {
    const ROOM: usize = 64;
    let ((mut websockify, port, _directory), clients) = asking();
    let begin = |from, length| says_certificates(connect_from(from, port), &clients, length, 1);
    let before = Footprint::of(&websockify);
    let usual: Vec<_> = (0..10).map(|_| begin("127.0.0.1", 4_000)).collect();
    let many: Vec<_> = (0..ROOM + 20).map(|_| begin("127.0.0.1", 19_000)).collect();
    let good: Vec<_> = (0..2).map(|_| begin("127.0.0.2", 19_000)).collect();
    // Before the deadline of their heads and handshakes.
    wait_for_within(Duration::from_secs(7), "the others' end", || {
        let open = before.descriptors + usual.len() + ROOM;
        (Footprint::of(&websockify).descriptors == open).then_some(())
    });
    for (mut connection, rest) in usual.into_iter().chain(good) {
        connection.0.sock.write_all(&rest).unwrap();
        assert_eq!(connection.request("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"), Ok(405));
    }
    drop(many);
    assert_eq!(websockify.stop(), 0);
}

/// A crowd of clients that goes on until `is_over`.
struct Crowd<'a> {
    port: u16,
    is_over: &'a AtomicBool,
    /// How many connections were begun.
    begun: &'a AtomicU64,
}

impl Crowd<'_> {
    /// Begins one more connection, and does not wait until it is made.
    fn dial(&self) -> Option<Socket> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None).ok()?;
        let _ = socket.connect(&SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)).into());
        self.begun.fetch_add(1, Relaxed);
        Some(socket)
    }

    fn goes_on(&self) -> bool {
        !self.is_over.load(Relaxed)
    }

    /// Each client sends a letter every `pause`, and connects again when its connection was closed.
    fn is_slow(&self, clients: u64, pause: Duration) {
        let mut held: Vec<_> = (0..clients).map(|_| self.dial()).collect();
        while self.goes_on() {
            sleep(pause);
            for client in &mut held {
                let is_there = client.as_ref().is_some_and(|client| match client.send(b"G") {
                    Ok(_) => true,
                    Err(error) => error.kind() == ErrorKind::WouldBlock,
                });
                if !is_there {
                    *client = self.dial();
                }
            }
        }
    }

    /// Opens `clients` connections at once and closes them, again and again.
    fn comes_again(&self, clients: u64) {
        while self.goes_on() {
            let held: Vec<_> = (0..clients).map(|_| self.dial()).collect();
            // Some of them are accepted.
            sleep(Duration::from_millis(5));
            drop(held);
        }
    }
}

/// Ends the crowd, also where an assertion has failed.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Twenty good clients, one after the other: how long each has waited from its connect until its first message came
/// back.
fn good_clients(port: u16, pause: Duration) -> Vec<Duration> {
    let visit = || {
        let began = Instant::now();
        let mut good = Client::connect(port);
        exchange(&mut good);
        let time = began.elapsed();
        good.close();
        sleep(pause);
        time
    };
    (0..20).map(|_| visit()).collect()
}

/// L5: slow clients for which there is room keep nobody out either; in the large crowd each sends a byte every five
/// seconds.
#[test]
fn l5_slow_clients_who_are_all_held_keep_nobody_out() {
    let large: Option<u64> = std::env::var("CROWD").ok().map(|number| number.parse().unwrap());
    let slow = large.unwrap_or(SLOW);
    let (beat, pause, patience) = if large.is_some() {
        (Duration::from_secs(5), Duration::from_secs(1), Duration::from_secs(1))
    } else {
        (Duration::from_millis(500), Duration::from_millis(50), PATIENCE)
    };
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    let service = echo_service();
    let (mut websockify, port) = bridge_to(&service, &format!("--max-connections={}", slow + 100));
    let (is_over, dials) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let over = Over(&is_over);
        let crowd = Crowd { port, is_over: &is_over, begun: &dials };
        scope.spawn(move || crowd.is_slow(slow, beat));
        let held = || Footprint::of(&websockify).descriptors as u64;
        wait_for_within(PATIENCE, "all of them", || (held() >= slow).then_some(()));
        let times = good_clients(port, pause);
        eprintln!("{} connections of the crowd; served after {times:.1?}", dials.load(Relaxed));
        assert!(times.iter().all(|time| *time < patience), "{times:?}");
        drop(over);
    });
    assert_eq!(websockify.stop(), 0);
}

/// L5, T6: what all of them cost is bounded by the limit on open files.
#[test]
fn l5_slow_clients_and_one_that_comes_again_and_again_keep_nobody_out() {
    let large: Option<u64> = std::env::var("CROWD").ok().map(|number| number.parse().unwrap());
    let (slow, at_once) = large.map_or((SLOW, SLOW / 4), |slow| (slow, 1000));
    let (files, patience) = large.map_or((256, PATIENCE), |_| (1024, Duration::from_secs(1)));
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    let service = echo_service();
    let port = free_port();
    let mut command = Command::new("prlimit");
    command.args([&format!("--nofile={files}:{files}"), WEBSOCKIFY]);
    let mut websockify = Websockify::launch(command.args([&port.to_string(), &service.target()]));
    websockify.wait_until_open();
    let mut session = Client::connect(port);
    exchange(&mut session);
    let (is_over, dials) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let over = Over(&is_over);
        let crowd = || Crowd { port, is_over: &is_over, begun: &dials };
        let (patient, restless) = (crowd(), crowd());
        scope.spawn(move || patient.is_slow(slow, Duration::from_millis(200)));
        scope.spawn(move || restless.comes_again(at_once));
        websockify.wait_for_log(&["connections are open, as many as may be"]);
        let times = good_clients(port, Duration::from_millis(20));
        eprintln!("{} connections of the crowd; served after {times:.1?}", dials.load(Relaxed));
        assert!(times.iter().all(|time| *time < patience), "{times:?}");
        assert!(dials.load(Relaxed) > slow + at_once);
        drop(over);
    });
    exchange(&mut session);
    assert_eq!(session.close().code, 1000);
    assert_eq!(websockify.stop(), 0);
}
