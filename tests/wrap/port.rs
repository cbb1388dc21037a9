//! The public port and the relocated one (W2, W3).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::Notes;
use crate::support::{
    Actor, Client, WEBSOCKIFY, Websockify, engine, free_port, has_ipv6, is_refused, listening,
    needs_root, stays, wait_until,
};

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// Long enough for websockify to look who listens, if no notification comes.
const LOOK: Duration = Duration::from_millis(400);

/// Those of the addresses whose family this machine has.
fn there_are(addresses: [IpAddr; 2]) -> impl Iterator<Item = IpAddr> {
    addresses.into_iter().filter(|address| address.is_ipv4() || has_ipv6())
}

/// W2: in a container, websockify may be root and still not see the descriptors of a program that has
/// changed its user.
#[test]
fn w2_a_program_that_changed_its_user_counts_where_its_descriptors_are_hidden() {
    if !needs_root() {
        return;
    }
    let port = free_port();
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set", "-sys_ptrace", "--inh-caps", "-sys_ptrace", WEBSOCKIFY]);
    command.arg(port.to_string()).arg("--").arg(Actor.to_string());
    command.args(["bind", &port.to_string(), "nobody", "listen", "serve"]);
    let _websockify = Websockify::launch(&mut command);
    let mut client = Client::connect_once_open(port);
    client.read_line();
    client.send("hello");
    assert_eq!(client.read(5), b"hello");
}

/// Checks that a program is served and that nothing of it is public; gives the addresses to which it was moved.
fn moved_by(what_binds: &str, port: u16) -> Vec<IpAddr> {
    let mut websockify = Websockify::start(&format!("{port} -v -- {Actor} {what_binds} serve"));
    let mut client = Client::connect_once_open(port);
    client.read_line();
    client.send("hello");
    assert_eq!(client.read(5), b"hello", "{what_binds}");
    let mut moved: Vec<_> =
        listening(websockify.relocated_port()).iter().map(SocketAddr::ip).collect();
    moved.sort_unstable();
    websockify.assert_alone_on(port);
    assert_eq!(websockify.stop(), 0);
    moved
}

#[test]
fn w2_a_program_is_moved_to_loopback_and_nothing_of_it_stays_public() {
    for (bind, expected) in
        [("bind", "127.0.0.1"), ("bind-dual", "::ffff:127.0.0.1"), ("bind-v6", "::1")]
    {
        if expected == "::1" && !has_ipv6() {
            continue;
        }
        let port = free_port();
        let moved = moved_by(&format!("{bind} {port} listen"), port);
        assert_eq!(moved, [expected.parse::<IpAddr>().unwrap()], "{bind}");
    }
}

/// R2, W14: both engines use the same rules for addresses: each IPv4 address becomes one of 127/8, also one that would
/// become 127.0.0.1.
#[test]
fn r2_w14_an_address_of_ipv4_becomes_one_of_loopback_under_either_engine() {
    for (wanted, expected) in
        [("192.0.2.7", "127.0.2.7"), ("10.0.0.1", "127.136.55.1"), ("127.0.0.9", "127.0.0.9")]
    {
        let port = free_port();
        let moved = moved_by(&format!("bind-at {wanted} {port} listen"), port);
        assert_eq!(moved, [expected.parse::<IpAddr>().unwrap()], "{wanted}");
    }
}

/// R2, W14: a program that asks which port it has, and binds the other family to that, is public in neither family.
#[test]
fn r2_w14_both_families_are_moved_under_either_engine_where_the_second_has_the_firsts_port() {
    if !has_ipv6() {
        return;
    }
    let port = free_port();
    assert_eq!(moved_by(&format!("bind {port} listen listen-beside"), port), [V4, V6]);
}

#[test]
fn w2_the_relocated_port_is_held_while_the_program_lives() {
    let notes = Notes::new();
    let port = free_port();
    let gate = notes.note("gate");
    let websockify =
        Websockify::start(&format!("{port} -v -- {Actor} await {gate} bind {port} listen serve"));
    let taken = websockify.relocated_port();
    let try_to_take = |address: IpAddr| {
        let address = SocketAddr::new(address, taken);
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        socket.bind(&address.into()).map_err(|error| error.kind())
    };
    let in_use = Err(std::io::ErrorKind::AddrInUse);
    let any = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    for address in there_are([V4, V6]).chain(there_are(any)) {
        assert_eq!(try_to_take(address), in_use, "{address} before the program listens");
    }
    notes.give("gate");
    websockify.wait_until_open();
    for address in there_are([V4, V6]) {
        assert_eq!(try_to_take(address), in_use, "{address} while it listens");
    }
}

/// W2: a process of websockify's user that is not the program's listens where the program should, and even
/// sends the notification.
#[test]
fn w2_a_strangers_listener_does_not_count() {
    if !has_ipv6() {
        return;
    }
    let notes = Notes::new();
    let port = free_port();
    let gate = notes.note("gate");
    let websockify =
        Websockify::start(&format!("{port} -v -- {Actor} await {gate} bind {port} listen serve"));
    let program = websockify.leader();
    let stranger = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
    stranger.set_reuse_port(true).unwrap();
    stranger.bind(&SocketAddr::new(V6, websockify.relocated_port()).into()).unwrap();
    stranger.listen(1).unwrap();
    stranger.set_nonblocking(true).unwrap();
    if engine().is_none() {
        let name = program.variable("REBIND_NOTIFY");
        let address = std::os::unix::net::SocketAddr::from_abstract_name(name).unwrap();
        let message = format!("{} 1", program.variable("REBIND_TOKEN"));
        UnixDatagram::unbound().unwrap().send_to_addr(message.as_bytes(), &address).unwrap();
    }
    stays(LOOK, "the port is closed", || is_refused(V4, port));
    notes.give("gate");
    let mut client = Client::connect_once_open(port);
    client.read_line();
    let nobody = stranger.accept().expect_err("nobody came");
    assert_eq!(nobody.kind(), std::io::ErrorKind::WouldBlock);
}

/// F1: where a process of websockify's user listens beside the program, the kernel would give it some of the
/// clients; so no client is let through until that process has ended.
#[test]
fn f1_w2_a_port_that_is_shared_with_a_stranger_is_not_bridged_to() {
    let notes = Notes::new();
    let port = free_port();
    let gate = notes.note("gate");
    let websockify =
        Websockify::start(&format!("{port} -v -- {Actor} await {gate} bind {port} listen serve"));
    let stranger = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    stranger.set_reuse_port(true).unwrap();
    stranger.bind(&SocketAddr::new(V4, websockify.relocated_port()).into()).unwrap();
    stranger.listen(1).unwrap();
    notes.give("gate");
    websockify.wait_for_log(&["WARN", "not the program's listens on its relocated port too"]);
    stays(LOOK, "the port is closed", || is_refused(V4, port));
    drop(stranger);
    Client::connect_once_open(port).read_line();
}

#[test]
fn w3_the_public_port_is_refused_until_the_program_listens() {
    let notes = Notes::new();
    let port = free_port();
    let (to_bind, bound, to_listen) =
        (notes.note("to-bind"), notes.note("bound"), notes.note("to-listen"));
    let websockify = Websockify::start(&format!(
        "{port} -- {Actor} await {to_bind} bind {port} note {bound} await {to_listen} listen serve"
    ));
    websockify.leader();
    let closed = || there_are([V4, V6]).all(|address| is_refused(address, port));
    assert!(closed(), "before the program binds");
    // The port is reserved all the same: no server can bind it.
    assert!(there_are([V4, V6]).all(|address| TcpListener::bind((address, port)).is_err()));
    notes.give("to-bind");
    notes.wait_for("bound");
    stays(LOOK, "a bare bind opens nothing", closed);
    notes.give("to-listen");
    websockify.wait_until_open();
    for address in there_are([V4, V6]) {
        Client::dial((address, port)).unwrap().read_line();
    }
}

/// W3: the program counts the connections to it.
#[test]
fn w3_the_program_is_never_probed_with_a_connection() {
    let notes = Notes::new();
    let port = free_port();
    let ledger = notes.note("accepted");
    let websockify = Websockify::start(&format!(
        "{port} --wrap-mode=respawn -- {Actor} ledger {ledger} bind {port} listen serve"
    ));
    websockify.wait_until_open();
    stays(LOOK, "nobody connects", || notes.lines("accepted").is_empty());
    for sessions in 1..=3 {
        Client::connect(port).read_line();
        assert_eq!(notes.lines("accepted").len(), sessions);
    }
}

/// W3: only sessions reach the program, not each connection to the public port.
#[test]
fn w3_a_client_without_a_handshake_does_not_reach_the_program() {
    let notes = Notes::new();
    let port = free_port();
    let ledger = notes.note("accepted");
    let websockify =
        Websockify::start(&format!("{port} -- {Actor} ledger {ledger} bind {port} listen serve"));
    websockify.wait_until_open();
    drop(TcpStream::connect((V4, port)).unwrap());
    assert_eq!(crate::support::request(port, "/", &[]).0.status, 405);
    Client::connect(port).read_line();
    wait_until("the session", || notes.lines("accepted").len() == 1);
}
