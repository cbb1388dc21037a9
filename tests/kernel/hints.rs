//! Notifications that a process listens, without end (F14).

use std::io::{IoSlice, Read};
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::fchown;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};
use std::thread;

use nix::sys::signal::Signal;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use super::share_until;
use crate::support::{
    Actor, Client, Footprint, Process, Websockify, free_port, needs_root, wait_until,
};

/// F14: websockify once used 74 % of a processor for such a program.
#[test]
fn f14_a_program_that_calls_listen_without_end_costs_little() {
    let port = free_port();
    let mut websockify =
        Websockify::start(&format!("{port} -- {Actor} bind {port} listen-without-end"));
    websockify.wait_until_open();
    let program = websockify.leader();
    let began = program.cpu_seconds();
    // Not compared with the program's share: on a busy machine the program gets as little as websockify.
    let share = share_until(&websockify, || program.cpu_seconds() - began > 0.5);
    assert!(share < 0.4, "{share:.2} of a processor");
    assert_eq!(websockify.stop(), 0);
}

/// L6, F14: notification socket flooded: it costs little, whether the token is known or not, and the program is served. (It
/// was 39 % of a processor.)
#[test]
fn f14_a_flood_of_datagrams_costs_little() {
    let port = free_port();
    let mut websockify = Websockify::start(&format!("{port} -- {Actor} bind {port} listen serve"));
    Client::connect_once_open(port).read_line();
    let program = websockify.leader();
    let before = Footprint::at_rest(&websockify);
    let address = SocketAddr::from_abstract_name(program.variable("REBIND_NOTIFY")).unwrap();
    let token = program.variable("REBIND_TOKEN");
    for message in ["x".repeat(32), format!("{token} 1")] {
        let flood = UnixDatagram::unbound().unwrap();
        flood.connect_addr(&address).unwrap();
        flood.set_nonblocking(true).unwrap();
        let mut sent = 0_u32;
        let share = share_until(&websockify, || {
            for _ in 0..20_000 {
                sent += u32::from(flood.send(message.as_bytes()).is_ok());
                thread::yield_now();
            }
            true
        });
        assert!(sent > 100, "{sent} were sent");
        assert!(share < 0.25, "{share:.2} of a processor for {message}");
    }
    Client::connect(port).read_line();
    before.wait_until_back(&websockify);
    assert_eq!(websockify.stop(), 0);
}

/// F14: somebody with the token, and none of the program's, asks many times for a socket of another user to be bound. The
/// processes are not looked for again for each request.
#[test]
fn f14_requests_to_bind_that_come_together_cost_no_more_than_one() {
    if !needs_root() {
        return;
    }
    let arguments = format!("{} --rebind-engine=preload -- {Actor} sleep", free_port());
    let mut websockify = Websockify::start(&arguments);
    let program = websockify.leader();
    let address = SocketAddr::from_abstract_name(program.variable("REBIND_NOTIFY")).unwrap();
    let text = [program.variable("REBIND_TOKEN").as_bytes(), b" 1 \x7f\0\0\x01"].concat();
    let sender = UnixDatagram::unbound().unwrap();
    sender.connect_addr(&address).unwrap();
    sender.set_nonblocking(true).unwrap();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    fchown(&socket, Some(61_997), None).unwrap();
    let us = Process::find(websockify.pid()).unwrap();
    let reads_for = |most: usize| {
        // It finds as many as there is room for when it goes on.
        websockify.signal(Signal::SIGSTOP);
        wait_until("a stop", || us.stat().state == 'T');
        let before = us.proc().io().unwrap().syscr;
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let sockets = [socket.as_raw_fd(), theirs.as_raw_fd()];
        let ask = || {
            let (text, sockets) = ([IoSlice::new(&text)], [ControlMessage::ScmRights(&sockets)]);
            sendmsg::<()>(sender.as_raw_fd(), &text, &sockets, MsgFlags::empty(), None).is_ok()
        };
        let sent = (0..most).take_while(|_| ask()).count();
        drop(theirs);
        websockify.signal(Signal::SIGCONT);
        // The end of the last copy.
        assert_eq!(ours.read(&mut [0]).unwrap(), 0);
        (sent, us.proc().io().unwrap().syscr - before)
    };
    let ((_, for_one), (sent, for_many)) = (reads_for(1), reads_for(32));
    assert!(sent > 8, "{sent} were sent");
    // To look for each of them again would take eight times as many, of which a look unasked is a small part.
    assert!(for_many < 3 * for_one, "{for_many} reads for {sent} requests, {for_one} for one");
    assert_eq!(websockify.stop(), 0);
}
