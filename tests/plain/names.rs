//! Targets that are named: names whose server never answers, and names of several addresses (C2).

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use procfs::process::Process;
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use crate::support::{
    Client, Service, WEBSOCKIFY, Websockify, echo, free_port, has_ipv6, needs, needs_root, request,
    skip_even_in_ci, wait_until,
};

/// How many sessions wait for the same name.
const MANY: usize = 40;

/// A name server on an address that nobody else uses; it receives queries and never answers.
fn deaf_server() -> UdpSocket {
    let [.., a, b] = free_port().to_be_bytes();
    let address = Ipv4Addr::new(127, 53, a, b.max(1));
    UdpSocket::bind((address, 53)).unwrap()
}

/// Whether files of /etc can be replaced for one process; if not, the test is reported as skipped.
fn can_replace_files() -> bool {
    if !needs_root() || !needs(&["unshare", "mount"]) {
        return false;
    }
    let can = Command::new("unshare").args(["-m", "true"]).output().unwrap().status.success();
    if !can {
        skip_even_in_ci("no mounts of our own here");
    }
    can
}

/// Starts a websockify that sees these files of `directory` in /etc.
fn start_with_files(directory: &TempDir, files: &[&str], arguments: &str) -> Websockify {
    let mount = |file: &&str| format!("mount --bind {file} /etc/{file}");
    let mounts = files.iter().map(mount).collect::<Vec<_>>().join(" && ");
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", &format!("{mounts} && exec \"$@\""), "sh", WEBSOCKIFY]);
    command.args(arguments.split(' ')).current_dir(directory);
    let websockify = Websockify::launch(&mut command);
    websockify.wait_until_open();
    websockify
}

fn threads(websockify: &Websockify) -> u64 {
    Process::new(websockify.pid()).unwrap().status().unwrap().threads
}

#[test]
fn f8_a_name_whose_server_never_answers_holds_up_nothing_else() {
    if !can_replace_files() {
        return;
    }
    let (server, directory) = (deaf_server(), TempDir::new().unwrap());
    let address = server.local_addr().unwrap().ip();
    let write = |name: &str, text: String| fs::write(directory.path().join(name), text).unwrap();
    // The longest timeout that a resolver has, and one attempt.
    write("resolv.conf", format!("nameserver {address}\noptions timeout:30 attempts:1\n"));
    write("nsswitch.conf", "hosts: files dns\n".into());
    write("page.html", "hello".into());
    let port = free_port();
    let arguments = format!("{port} internal.example:80 --web=.");
    let websockify = start_with_files(&directory, &["resolv.conf", "nsswitch.conf"], &arguments);
    assert_eq!(request(port, "/page.html", &[]).0.status, 200);
    let before = threads(&websockify);
    let began = Instant::now();
    let clients: Vec<_> = (0..MANY).map(|_| Client::connect(port)).collect();
    wait_until("as many sessions", || websockify.logged(&["session started"]).len() == MANY);
    server.recv(&mut [0; 512]).unwrap();
    assert!(threads(&websockify) <= before + 1, "{} threads more", threads(&websockify) - before);
    assert_eq!(request(port, "/page.html", &[]).0.status, 200);
    // Every session has the whole time limit, and its close reason names no target (F60).
    for client in clients {
        let closing = client.closing();
        assert_eq!((closing.code, &*closing.reason), (1011, "target cannot be reached: timed out"));
    }
    assert!(began.elapsed() >= Duration::from_secs(10), "{:?}", began.elapsed());
    wait_until("an end for each", || websockify.logged(&["session ended"]).len() == MANY);
    let told = websockify.logged(&["WARN", "cannot connect to internal.example:80: timed out"]);
    assert_eq!(told.len(), 10, "the others are counted");
    // One look-up, which asks for both families.
    server.set_nonblocking(true).unwrap();
    let questions = std::iter::from_fn(|| server.recv(&mut [0; 512]).ok()).count();
    assert!(questions <= 1, "{} questions", questions + 1);
}

/// A listener whose queue is full: a connection to it gets no answer.
fn hanging(address: SocketAddr) -> (Socket, Vec<TcpStream>) {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    if address.is_ipv6() {
        socket.set_only_v6(true).unwrap();
    }
    socket.bind(&address.into()).unwrap();
    socket.listen(0).unwrap();
    let wait = Duration::from_millis(500);
    let queue = std::iter::from_fn(|| TcpStream::connect_timeout(&address, wait).ok());
    let queue = queue.take(10).collect();
    (socket, queue)
}

#[test]
fn f15_an_address_that_hangs_costs_a_quarter_of_a_second() {
    if !can_replace_files() || !has_ipv6() {
        return;
    }
    let directory = TempDir::new().unwrap();
    let path = directory.path();
    fs::write(path.join("hosts"), "::1 both.example\n127.0.0.1 both.example\n").unwrap();
    fs::write(path.join("nsswitch.conf"), "hosts: files\n").unwrap();
    let target = free_port();
    let _hanging = hanging((Ipv6Addr::LOCALHOST, target).into());
    let _service = Service::at((Ipv4Addr::LOCALHOST, target), echo);
    let port = free_port();
    let arguments = format!("{port} both.example:{target}");
    let mut websockify = start_with_files(&directory, &["hosts", "nsswitch.conf"], &arguments);
    let began = Instant::now();
    let mut client = Client::connect(port);
    client.send("hello");
    assert_eq!(client.read(5), b"hello");
    // Not the ten seconds that one address has.
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(client.close().code, 1000);
    assert_eq!(websockify.stop(), 0);
}

/// F60: the log says where the target is, for whoever runs websockify; clients are not told.
#[test]
fn f60_a_target_that_cannot_be_reached_is_named_in_the_log_alone() {
    let (port, target) = (free_port(), free_port());
    let websockify = Websockify::start(&format!("{port} localhost:{target}"));
    websockify.wait_until_open();
    let closing = Client::connect(port).closing();
    let expected = (1011, "target cannot be reached: connection refused");
    assert_eq!((closing.code, &*closing.reason), expected);
    let line = format!("cannot connect to localhost:{target}: connection refused");
    websockify.wait_for_log(&["WARN", &line]);
}
