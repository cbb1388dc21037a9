//! Notifications that a process listens, without end (F14).

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::thread;

use super::share_until;
use crate::support::{Actor, Client, Footprint, Websockify, free_port};

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
