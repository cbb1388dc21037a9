//! Peers that nothing comes back from, as behind a cable that was cut. What matters is what was under
//! way: nothing (keepalive finds them, B7), bytes, or bytes that they had no room for (both: websockify looks).
//!
//! It takes a minute, for which the tests wait. For a target of which nothing is under way, what websockify has set is read off its
//! own socket, and then the kernel's clock is put forward.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use procfs::net::{TcpNetEntries, TcpNetEntry};
use procfs::process::{FDTarget, Process};
use procfs::{FromReadSI, current_system_info};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use socket2::{SockRef, TcpKeepalive};

use super::{PATIENCE, wait_for_the_end};
use crate::support::{
    Client, Footprint, Lan, Service, Websockify, echo, frame, free_port, wait_for_within,
    wait_until,
};

/// What is under way when the peer goes; the first byte of a session says it.
const IDLE: u8 = b'i';
const BUSY: u8 = b'b';
const STUCK: u8 = b's';

/// A target that sends the address it is connected to, a line, and then does this.
fn target(then: fn(u8, TcpStream)) -> impl Fn(TcpStream) + Clone + Send + 'static {
    move |mut stream| {
        let mut order = [0];
        stream.read_exact(&mut order).unwrap();
        let peer = stream.peer_addr().unwrap();
        stream.write_all(format!("{peer}\n").as_bytes()).unwrap();
        then(order[0], stream);
    }
}

/// A client that has begun such a session, and what the target calls websockify.
fn begin(order: u8, port: u16, host: Ipv4Addr) -> (Client, SocketAddr) {
    let mut client = Client::dial((host, port)).unwrap();
    client.send([order]);
    let address = client.read_line().parse().unwrap();
    (client, address)
}

/// Sends the same again and again, until that fails.
fn flood(mut stream: TcpStream, piece: &[u8]) {
    while stream.write_all(piece).is_ok() {}
}

fn read_on(mut stream: TcpStream) {
    while let Ok(1..) = stream.read(&mut [0; 16384]) {}
}

/// websockify in this network, and what it holds without a session.
fn bridge_in(lan: &Lan, target: &Service) -> (Websockify, u16, Footprint) {
    let (websockify, port) = lan.here.run(|| {
        let port = free_port();
        (Websockify::start(&format!("{port} {}", target.target())), port)
    });
    websockify.wait_until_open();
    let before = Footprint::at_rest(&websockify);
    (websockify, port, before)
}

/// websockify's own socket that has this address, or leads there.
fn socket_of(websockify: &Websockify, end: SocketAddr) -> OwnedFd {
    let pid = websockify.pid();
    let pidfd = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap();
    let has_end = |socket: &OwnedFd| ends(socket).is_some_and(|ends| ends.contains(&end));
    let descriptors = Process::new(pid).unwrap().fd().unwrap().flatten();
    descriptors
        .filter(|one| matches!(one.target, FDTarget::Socket(_)))
        .map(|one| pidfd_getfd(&pidfd, one.fd, PidfdGetfdFlags::empty()).unwrap())
        .find(has_end)
        .unwrap()
}

/// Our address and the peer's.
fn ends(socket: &OwnedFd) -> Option<[SocketAddr; 2]> {
    let socket = SockRef::from(socket);
    let ends = [socket.local_addr().ok()?.as_socket()?, socket.peer_addr().ok()?.as_socket()?];
    Some(ends.map(|end| SocketAddr::new(end.ip().to_canonical(), end.port())))
}

/// B7: given up a minute after the last sign of life; now two seconds after it.
fn hasten_keepalive(socket: &OwnedFd) {
    let socket = SockRef::from(socket);
    let is = (
        socket.keepalive().unwrap(),
        socket.tcp_keepalive_time().unwrap(),
        socket.tcp_keepalive_interval().unwrap(),
        socket.tcp_keepalive_retries().unwrap(),
    );
    assert_eq!(is, (true, Duration::from_secs(30), Duration::from_secs(10), 3));
    let second = Duration::from_secs(1);
    let sooner = TcpKeepalive::new().with_time(second).with_interval(second).with_retries(1);
    socket.set_tcp_keepalive(&sooner).unwrap();
}

/// Waits until this socket's peer takes no more: some bytes are left, the same for a while.
fn wait_until_stuck(lan: &Lan, socket: &OwnedFd) {
    let [ours, peer] = ends(socket).unwrap();
    let mut before = (0, Instant::now());
    wait_until("bytes that have no room", || {
        // Of this thread's network.
        let sockets = lan.here.run(|| {
            let table = "/proc/thread-self/net/tcp";
            TcpNetEntries::from_file(table, current_system_info()).unwrap().0
        });
        let is_it =
            |entry: &TcpNetEntry| (entry.local_address, entry.remote_address) == (ours, peer);
        let now = sockets.into_iter().find(is_it).map_or(0, |entry| entry.tx_queue);
        if now != before.0 {
            before = (now, Instant::now());
        }
        now > 0 && before.1.elapsed() > Duration::from_millis(500)
    });
}

/// L6, L4, B7: client gone in silence: it is given up a minute after its last sign of life, whatever was under way to it; a client
/// that is there and does not read never.
#[test]
fn l4_b7_blackholed_clients_end_their_sessions() {
    let Some(lan) = Lan::new() else { return };
    let service = lan.here.run(|| {
        Service::new(target(|order, stream| match order {
            IDLE => echo(stream),
            _ => flood(stream, &[b'x'; 10_000]),
        }))
    });
    let (mut websockify, port, before) = bridge_in(&lan, &service);
    let [_idle, mut busy, mut stuck] =
        [IDLE, BUSY, STUCK].map(|order| lan.there.run(|| begin(order, port, Lan::HERE).0));
    let mut lazy = lan.here.run(|| begin(STUCK, port, Lan::HERE).0);
    let reading = busy.stream().try_clone().unwrap();
    thread::spawn(|| read_on(reading));
    let socket_to = |client: &mut Client| {
        let address = client.stream().local_addr().unwrap();
        socket_of(&websockify, address)
    };
    wait_until_stuck(&lan, &socket_to(&mut stuck));
    wait_until_stuck(&lan, &socket_to(&mut lazy));
    let cut_at = Instant::now();
    lan.swallow();
    wait_for_within(2 * PATIENCE, "the end of those who are gone", || {
        (websockify.logged(&["session ended"]).len() == 3).then_some(())
    });
    // Looks are ten seconds apart, and so are the kernel's questions: noticed after a minute, the session has ten seconds more for
    // what was sent before.
    let time = cut_at.elapsed();
    assert!((Duration::from_secs(40)..Duration::from_secs(90)).contains(&time), "{time:?}");
    assert_eq!(lazy.read(10_000), [b'x'; 10_000], "it is there");
    drop(lazy);
    wait_for_the_end(&websockify, 4, &before);
    for line in websockify.logged(&["session ended", "timed out"]) {
        assert!(line.contains(" code 1006 "), "{line}");
    }
    websockify.assert_logged(&["session ended", "timed out"], 3);
    assert_eq!(websockify.stop(), 0);
}

/// L6, L4, B7: target gone in silence: the client hears 1011, by the same clocks.
#[test]
fn l4_b7_blackholed_targets_end_their_sessions_with_1011() {
    let Some(lan) = Lan::new() else { return };
    let service = lan.there.run(|| {
        let then = |order, stream| match order {
            IDLE => echo(stream),
            BUSY => read_on(stream),
            _ => loop {
                thread::park();
            },
        };
        Service::at((Lan::THERE, 0), target(then))
    });
    let (mut websockify, port, before) = bridge_in(&lan, &service);
    let [(idle, idle_end), (mut busy, _), (mut stuck, stuck_end)] =
        [IDLE, BUSY, STUCK].map(|order| lan.here.run(|| begin(order, port, Ipv4Addr::LOCALHOST)));
    for client in [&mut busy, &mut stuck] {
        let sending = client.stream().try_clone().unwrap();
        thread::spawn(|| flood(sending, &frame(0x82, &[b'x'; 10_000])));
    }
    wait_until_stuck(&lan, &socket_of(&websockify, stuck_end));
    hasten_keepalive(&socket_of(&websockify, idle_end));
    lan.swallow();
    let late = lan.here.run(|| Client::dial((Ipv4Addr::LOCALHOST, port)).unwrap());
    let closings = [idle, busy, stuck, late].map(|mut client| {
        client.be_patient(2 * PATIENCE);
        thread::spawn(|| client.closing())
    });
    for closing in closings.map(|closing| closing.join().unwrap()) {
        assert_eq!(closing.code, 1011, "{closing:?}");
        assert!(closing.reason.contains("timed out"), "{closing:?}");
    }
    wait_for_the_end(&websockify, 4, &before);
    assert_eq!(websockify.stop(), 0);
}
