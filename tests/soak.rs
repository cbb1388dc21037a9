//! The soak test: for a while, two hundred clients talk, stall, vanish and come again, and the program crashes at
//! random (L7). `tests/soak/run` runs it for half an hour.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use socket2::SockRef;
use tempfile::TempDir;

use crate::numbers::Numbers;
use crate::support::{
    Client, Footprint, Websockify, compile, connect, frame, free_port, text_of, wait_for,
    wait_until,
};

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/soak/program.c");

const CLIENTS: u64 = 200;

/// How long it lasts where `SOAK_SECONDS` is not set, seconds. It then runs beside all other tests, so its clients
/// pause longer.
const SECONDS: u64 = 120;
const LEISURE: Pace = Pace { message: 400, visit: 4_000 };

/// The pace where `SOAK_SECONDS` is set: the clients hardly pause.
const HASTE: Pace = Pace { message: 30, visit: 500 };

/// How many bytes of memory all clients together may need at any time, beyond what is needed without clients.
const BUSY: u64 = 16 << 20;

/// The most bytes that are sent at once.
const PIECE: usize = 60_000;

/// The port that the clients go to, and their pace.
#[derive(Clone, Copy)]
struct Crowd {
    port: u16,
    pace: Pace,
}

/// How long a client pauses at most, after a message and after a visit, milliseconds.
#[derive(Clone, Copy)]
struct Pace {
    message: usize,
    visit: usize,
}

/// How often each thing has happened.
#[derive(Default)]
struct Counts {
    /// Sessions that were closed in order, with every byte back.
    whole: AtomicU64,
    /// Sessions in which the program crashed.
    cut: AtomicU64,
    stalled: AtomicU64,
    vanished: AtomicU64,
    /// Clients that left during their handshake.
    left_in_handshake: AtomicU64,
    bytes: AtomicU64,
}

fn count(number: &AtomicU64) {
    number.fetch_add(1, Relaxed);
}

/// Bytes that no other session has.
fn bytes(numbers: &mut Numbers, longest: usize) -> Vec<u8> {
    let length = 1 + numbers.below(longest);
    let mut bytes = Vec::with_capacity(length + 3);
    while bytes.len() < length {
        bytes.extend(&numbers.below(1 << 24).to_le_bytes()[..3]);
    }
    bytes.truncate(length);
    bytes
}

/// Sends bytes and reads them back; `None` where the session ends before that. What came back must be right in any
/// case.
fn echo(client: &mut Client, sent: &[u8], pause: Duration, counts: &Counts) -> Option<()> {
    let is_sent = sent.chunks(PIECE).all(|piece| client.try_send(piece));
    sleep(pause);
    let (received, is_all) = client.read_if_it_comes(sent.len());
    assert!(sent.starts_with(&received), "a wrong byte among {}", received.len());
    counts.bytes.fetch_add(received.len() as u64, Relaxed);
    (is_sent && is_all).then_some(())
}

/// Sends some messages, one after the other, and then a close frame.
fn talk(mut client: Client, pace: Pace, numbers: &mut Numbers, counts: &Counts) -> Option<()> {
    for _ in 0..=numbers.below(20) {
        let longest = [100, 3_000, 40_000][numbers.below(3)];
        let sent = bytes(numbers, longest);
        echo(&mut client, &sent, Duration::ZERO, counts)?;
        sleep(pause(numbers, pace.message));
    }
    // The program may crash during the close, too.
    (client.try_close() == 1000).then_some(())
}

/// Sends much, and reads nothing of what comes back for a while.
fn stall(mut client: Client, numbers: &mut Numbers, counts: &Counts) -> Option<()> {
    count(&counts.stalled);
    let sent = bytes(numbers, 200_000);
    echo(&mut client, &sent, pause(numbers, 1_000), counts)?;
    (client.try_close() == 1000).then_some(())
}

/// Leaves in the middle of a frame, and does not read what comes back; in about half of the cases by a reset.
fn vanish(mut client: Client, numbers: &mut Numbers) {
    let sent = frame(0x82, &bytes(numbers, 20_000));
    let stream = client.stream();
    let _ = stream.write_all(&sent[..=numbers.below(sent.len())]);
    if numbers.below(2) == 0 {
        SockRef::from(&*stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

fn pause(numbers: &mut Numbers, milliseconds: usize) -> Duration {
    Duration::from_millis(numbers.below(milliseconds) as u64)
}

fn visit(Crowd { port, pace }: Crowd, numbers: &mut Numbers, counts: &Counts) {
    let kind = numbers.below(10);
    if kind == 0 {
        count(&counts.left_in_handshake);
        let _ = connect(port).write_all(b"GET / HTTP/1.1\r\nHost: h\r\nUpgr");
        return;
    }
    let client = Client::dial((Ipv4Addr::LOCALHOST, port)).expect("the port stays open");
    let end = match kind {
        1 => {
            count(&counts.vanished);
            return vanish(client, numbers);
        }
        2 => stall(client, numbers, counts),
        _ => talk(client, pace, numbers, counts),
    };
    count(if end.is_some() { &counts.whole } else { &counts.cut });
}

/// Runs all clients for this time; gives the most memory that was seen.
fn soak(websockify: &Websockify, crowd: Crowd, seed: u64, time: Duration, counts: &Counts) -> u64 {
    let (is_over, began) = (AtomicBool::new(false), Instant::now());
    thread::scope(|scope| {
        for number in 0..CLIENTS {
            let mut numbers = Numbers(seed.wrapping_mul(CLIENTS).wrapping_add(number));
            let is_over = &is_over;
            scope.spawn(move || {
                while !is_over.load(Relaxed) {
                    visit(crowd, &mut numbers, counts);
                    sleep(pause(&mut numbers, crowd.pace.visit));
                }
            });
        }
        let mut most = 0;
        while began.elapsed() < time {
            most = most.max(Footprint::of(websockify).memory);
            sleep(Duration::from_millis(100));
        }
        is_over.store(true, Relaxed);
        most
    })
}

/// The body of the admin address's answer for this path.
fn said(admin: &Path, path: &str) -> String {
    let mut stream = UnixStream::connect(admin).unwrap();
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).unwrap();
    let mut said = Vec::new();
    stream.read_to_end(&mut said).unwrap();
    text_of(&said).split_once("\r\n\r\n").unwrap().1.trim().to_owned()
}

/// The number in this environment variable, if it is set.
fn asked_for(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|number| number.parse().expect("a number"))
}

#[test]
fn l7_two_hundred_clients_and_a_program_that_crashes_leave_nothing_behind() {
    let asked = asked_for("SOAK_SECONDS");
    let (seconds, pace) = asked.map_or((SECONDS, LEISURE), |seconds| (seconds, HASTE));
    let seed = asked_for("SEED").unwrap_or_else(|| RandomState::new().hash_one(0) % 1_000_000);
    let directory = TempDir::new().unwrap();
    let (crash, admin) = (directory.path().join("crash"), directory.path().join("admin"));
    let program = compile(PROGRAM, "soak", &[]);
    let port = free_port();
    let mut websockify = Websockify::start(&format!(
        "{port} --admin=unix:{} --wrap-mode=respawn -- {} {port} {seed} {}",
        admin.display(),
        program.display(),
        crash.display()
    ));
    websockify.wait_until_open();
    // Waits until the program has served a client, and all clients have left.
    let rest = || {
        let _ = fs::remove_file(&crash);
        let served = || {
            let mut client = Client::dial((Ipv4Addr::LOCALHOST, port)).ok()?;
            echo(&mut client, b"hello", Duration::ZERO, &Counts::default())?;
            (client.try_close() == 1000).then_some(())
        };
        wait_for("a session", served);
        wait_until("the end of all sessions", || said(&admin, "/sessions") == "[]");
        wait_until("the end of all connections", || {
            said(&admin, "/metrics").contains("\nwebsockify_open_connections 0\n")
        });
    };
    // What is allocated once has been allocated after a fifth of the time.
    let (counts, mut most, crowd) = (Counts::default(), 0, Crowd { port, pace });
    let mut stretch = |number: u64, time: Duration| {
        fs::write(&crash, "").unwrap();
        most = soak(&websockify, crowd, seed + number, time, &counts).max(most);
        rest();
    };
    let fifth = Duration::from_secs(seconds) / 5;
    stretch(0, fifth);
    let before = Footprint::at_rest(&websockify);
    stretch(1, 4 * fifth);
    before.wait_until_back(&websockify);
    let after = Footprint::of(&websockify);
    let of = |number: &AtomicU64| number.load(Relaxed);
    let starts = websockify.logged(&["program started"]).len();
    // Not by `eprintln!`: the test harness would keep it to itself.
    let _ = writeln!(
        std::io::stderr(),
        "soak: {seconds} s, SEED={seed}: {} sessions whole, {} cut by a crash, {} stalled, {} vanished, {} looked in; \
         {} MB back, none wrong; the program started {starts} times; memory {} kB at first, {} kB at most, {} kB in the end",
        of(&counts.whole),
        of(&counts.cut),
        of(&counts.stalled),
        of(&counts.vanished),
        of(&counts.left_in_handshake),
        of(&counts.bytes) / 1_000_000,
        before.memory / 1024,
        most / 1024,
        after.memory / 1024,
    );
    assert!(most <= before.memory + BUSY, "memory is not flat");
    assert!(of(&counts.whole) > 0 && of(&counts.cut) > 0 && starts > 2, "little has happened");
    assert_eq!(websockify.stop(), 0);
    assert_eq!(websockify.remnants(), []);
}
