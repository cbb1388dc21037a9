//! What systemd is told, and the sockets that it passes (D4). The test is the service manager;
//! `systemd-socket-activate` comes with systemd and needs no service manager.

use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use socket2::{Domain, SockAddr, Socket, Type};
use tempfile::TempDir;

use crate::support::{
    Actor, Client, DEADLINE, UPGRADE, WEBSOCKIFY, Websockify, ask, connect, echo_service,
    free_port, is_refused, needs, uninterrupted, wait_for, wait_until,
};

/// The socket by which a service manager receives notifications (sd_notify(3)).
pub(crate) struct Manager {
    socket: UnixDatagram,
    directory: TempDir,
}

impl Manager {
    pub(crate) fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let socket = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        Self { directory, ..Self::at(socket) }
    }

    fn at(socket: UnixDatagram) -> Self {
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        Self { socket, directory: TempDir::new().unwrap() }
    }

    pub(crate) fn start(&self, arguments: &str, prepare: impl FnOnce(&mut Command)) -> Websockify {
        Websockify::start_with(arguments, |command| {
            command.env("NOTIFY_SOCKET", self.directory.path().join("notify"));
            prepare(command);
        })
    }

    /// Gives a command the address of this socket.
    pub(crate) fn tell(&self, command: &mut Command) {
        command.env("NOTIFY_SOCKET", self.directory.path().join("notify"));
    }

    pub(crate) fn next(&self) -> String {
        let mut message = [0; 4096];
        let length = uninterrupted(|| self.socket.recv(&mut message));
        let length = length.expect("a notification in time");
        String::from_utf8(message[..length].to_vec()).unwrap().trim_end().to_owned()
    }

    /// All messages up to one that begins so, and with it.
    pub(crate) fn until(&self, start: &str) -> Vec<String> {
        let mut messages = vec![self.next()];
        while !messages.last().unwrap().starts_with(start) {
            messages.push(self.next());
        }
        messages
    }
}

#[test]
fn d4_a_bridge_is_ready_when_it_accepts_and_says_when_it_stops() {
    let (manager, service, port) = (Manager::new(), echo_service(), free_port());
    let mut websockify = manager.start(&format!("{port} {}", service.target()), |_| {});
    let messages = manager.until("READY=1");
    drop(connect(port));
    assert_eq!(messages[0], format!("STATUS=Bridging to {}", service.target()));
    assert_eq!(websockify.stop(), 0);
    assert_eq!(manager.until("STOPPING=1").len(), 1);
}

#[test]
fn d4_the_notify_socket_may_be_abstract() {
    let (service, port) = (echo_service(), free_port());
    let name = format!("websockify-test-notify-{port}");
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let manager = Manager::at(UnixDatagram::bind_addr(&address).unwrap());
    let _websockify = manager.start(&format!("{port} {}", service.target()), |command| {
        command.env("NOTIFY_SOCKET", format!("@{name}"));
    });
    manager.until("READY=1");
}

/// D4: READY waits for the program; STATUS says for what; nothing of this reaches the program (W1).
#[test]
fn d4_a_wrapped_program_is_ready_when_it_listens_and_not_before() {
    let (manager, port) = (Manager::new(), free_port());
    let go = manager.directory.path().join("go");
    let script = format!("await {} bind {port} listen serve", go.display());
    let mut websockify = manager.start(&format!("{port} -- {Actor} {script}"), |command| {
        command.env("WATCHDOG_USEC", "600000000");
    });
    assert_eq!(manager.next(), "STATUS=Waiting for the program to listen");
    let leader = websockify.leader();
    assert!(is_refused(Ipv4Addr::LOCALHOST, port));
    for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC"] {
        assert!(!leader.environment().contains_key(&std::ffi::OsString::from(name)), "{name}");
    }
    fs::write(go, "").unwrap();
    // The first WATCHDOG=1 may stand anywhere.
    let mut messages = manager.until("READY=1");
    drop(connect(port));
    messages.retain(|message| message != "WATCHDOG=1");
    assert_eq!(messages, ["STATUS=Bridging to the program", "READY=1"]);
    assert_eq!(websockify.stop(), 0);
    let messages = manager.until("STOPPING=1");
    assert!(messages.contains(&"STATUS=Stopping".to_owned()), "{messages:?}");
}

/// D4: websockify stays ready while the program is started again; STATUS says what the program does.
#[test]
fn d4_the_status_follows_the_program() {
    let (manager, port) = (Manager::new(), free_port());
    let script = format!("bind {port} listen accept");
    let arguments = format!("{port} --wrap-mode=respawn -- {Actor} {script}");
    let mut websockify = manager.start(&arguments, |_| {});
    manager.until("READY=1");
    // The program ends when it has accepted.
    Client::connect(port).closing();
    manager.until("STATUS=Waiting for the program to listen");
    manager.until("STATUS=Bridging to the program");
    assert_eq!(websockify.stop(), 0);
    let last = manager.until("STOPPING=1");
    assert!(!last.contains(&"READY=1".to_owned()), "{last:?}");
}

#[test]
fn d4_the_watchdog_is_fed_twice_as_often_as_it_asks() {
    let (manager, service, port) = (Manager::new(), echo_service(), free_port());
    let mut websockify = manager.start(&format!("{port} {}", service.target()), |command| {
        command.env("WATCHDOG_USEC", "2000000");
    });
    manager.until("WATCHDOG=1");
    let began = Instant::now();
    manager.until("WATCHDOG=1");
    manager.until("WATCHDOG=1");
    let time = began.elapsed().as_secs_f32();
    assert!((1.0..4.0).contains(&time), "twice in two seconds: {time} s");
    assert_eq!(websockify.stop(), 0);

    // A watchdog that is meant for another process is not fed.
    let mut websockify = manager.start(&format!("{port} {}", service.target()), |command| {
        command.env("WATCHDOG_USEC", "1000").env("WATCHDOG_PID", "1");
    });
    let mut messages = manager.until("READY=1");
    assert_eq!(websockify.stop(), 0);
    messages.extend(manager.until("STOPPING=1"));
    assert!(!messages.contains(&"WATCHDOG=1".to_owned()), "{messages:?}");
}

#[test]
fn d4_a_notify_socket_that_is_dead_is_one_warning() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("notify");
    drop(UnixDatagram::bind(&path).unwrap());
    for (socket, reason) in [(path.as_path(), "refused"), (Path::new("/nowhere"), "no such file")] {
        let (service, port) = (echo_service(), free_port());
        let arguments = format!("{port} {}", service.target());
        let mut websockify = Websockify::start_with(&arguments, |command| {
            command.env("NOTIFY_SOCKET", socket);
        });
        websockify.wait_until_open();
        websockify.wait_for_log(&["WARN", "cannot notify systemd", reason]);
        let mut client = Client::connect(port);
        client.send("hello");
        assert_eq!(client.read(5), b"hello");
        assert_eq!(websockify.stop(), 0);
        websockify.assert_logged(&["cannot notify systemd"], 1);
    }
}

/// D4: a manager that reads nothing holds up neither the program nor the end of websockify: here its queue is
/// full from the beginning.
#[test]
fn d4_a_notify_socket_that_nobody_reads_holds_up_nobody() {
    let (manager, port) = (Manager::new(), free_port());
    let filler = UnixDatagram::unbound().unwrap();
    filler.set_nonblocking(true).unwrap();
    while filler.send_to(b"x", manager.directory.path().join("notify")).is_ok() {}
    let arguments = format!("{port} --wrap-mode=respawn -- {Actor} bind {port} listen accept");
    let mut websockify = manager.start(&arguments, |_| {});
    for _ in 0..2 {
        Client::connect_once_open(port).closing();
    }
    assert_eq!(websockify.stop(), 0);
}

/// websockify as systemd-socket-activate(1) starts it, at the first connection to `socket`.
fn activated(socket: &[&str], arguments: &str) -> Websockify {
    let mut activate = Command::new("systemd-socket-activate");
    activate.args(socket);
    for name in ["TMPDIR", "WEBSOCKIFY_TEST", "PATH"] {
        activate.args(["-E", name]);
    }
    activate.arg(WEBSOCKIFY).args(arguments.split_whitespace());
    let websockify = Websockify::launch(&mut activate);
    websockify.wait_for_log(&["Listening on"]);
    websockify
}

/// D4: the session that starts the service is served by it, and so are the next.
#[test]
fn d4_a_socket_that_systemd_passes_takes_the_place_of_the_port() {
    if !needs(&["systemd-socket-activate"]) {
        return;
    }
    let (service, port, other) = (echo_service(), free_port(), free_port());
    let address = format!("127.0.0.1:{port}");
    let arguments = format!("{other} {}", service.target());
    let mut websockify = activated(&["-l", &address], &arguments);
    for _ in 0..2 {
        let mut client = Client::connect(port);
        client.send("hello");
        assert_eq!(client.read(5), b"hello");
        assert_eq!(client.close().code, 1000);
    }
    websockify.wait_for_log(&["listening on", &address]);
    assert!(is_refused(Ipv4Addr::LOCALHOST, other), "the passed socket alone");
    assert_eq!(websockify.stop(), 0);
}

/// D4, A3: behind the socket that systemd passes there may be a trusted proxy.
#[test]
fn d4_a3_a_trusted_proxy_names_clients_at_a_passed_socket() {
    if !needs(&["systemd-socket-activate"]) {
        return;
    }
    let (service, port) = (echo_service(), free_port());
    let arguments = format!("{port} --trusted-proxy=127.0.0.1 {}", service.target());
    let mut websockify = activated(&["-l", &format!("127.0.0.1:{port}")], &arguments);
    for (number, client) in [(1, "198.51.100.1"), (2, "2001:db8::2")] {
        let mut proxy = connect(port);
        let via = proxy.local_addr().unwrap();
        let named = format!("X-Forwarded-For: {client}");
        assert_eq!(ask(&mut proxy, "/", &[&UPGRADE[..], &[&named]].concat()).status, 101);
        websockify.wait_for_log(&[&format!("session started: {number}, {client} via {via} to ")]);
    }
    assert_eq!(websockify.stop(), 0);
}

/// D4, U3: a socket unit may have a path.
#[test]
fn d4_a_unix_socket_that_systemd_passes_is_served_too() {
    if !needs(&["systemd-socket-activate"]) {
        return;
    }
    let (service, port, directory) = (echo_service(), free_port(), TempDir::new().unwrap());
    let path = directory.path().join("socket");
    let arguments = format!("{port} {}", service.target());
    let mut websockify = activated(&["-l", path.to_str().unwrap()], &arguments);
    for _ in 0..2 {
        let mut client = Client::at(&path).unwrap();
        client.send("hello");
        assert_eq!(client.read(5), b"hello");
        assert_eq!(client.close().code, 1000);
    }
    websockify.wait_for_log(&["listening on", &format!("unix:{}", path.display())]);
    assert_eq!(websockify.stop(), 0);
    assert!(path.exists(), "it is systemd's");
}

/// D4: a client that comes before the program listens waits in the backlog; the port on the command
/// line is the program's.
#[test]
fn d4_early_clients_wait_in_the_backlog_of_a_passed_socket() {
    if !needs(&["systemd-socket-activate"]) {
        return;
    }
    let directory = TempDir::new().unwrap();
    let go = directory.path().join("go");
    let (public, port) = (free_port(), free_port());
    let script = format!("await {} bind {port} listen serve", go.display());
    let arguments = format!("{port} -- {Actor} {script}");
    let mut websockify = activated(&["-l", &format!("127.0.0.1:{public}")], &arguments);
    let early: Vec<_> =
        (0..3).map(|_| std::thread::spawn(move || Client::connect(public))).collect();
    websockify.wait_for_log(&["program started"]);
    assert!(websockify.logged(&["session started"]).is_empty());
    fs::write(go, "").unwrap();
    for client in early {
        let mut client = client.join().unwrap();
        client.read_line();
        client.send("hello");
        assert_eq!(client.read(5), b"hello");
    }
    assert!(is_refused(Ipv4Addr::LOCALHOST, port), "the program was moved");
    assert_eq!(websockify.stop(), 0);
}

#[test]
fn d4_a_passed_socket_that_cannot_be_listened_on_is_named() {
    if !needs(&["systemd-socket-activate"]) {
        return;
    }
    let directory = TempDir::new().unwrap();
    let port = free_port();
    let address = format!("127.0.0.1:{port}");
    let path = directory.path().join("socket");
    for (socket, reason) in [
        (&["-d", "-l", &address][..], "not a stream socket"),
        (&["--seqpacket", "-l", path.to_str().unwrap()], "not a stream socket"),
        (&["-a", "-l", &address], "not listening"),
    ] {
        let mut websockify = activated(socket, &format!("{port} localhost:9"));
        match socket[0] {
            "-d" => {
                let client = UdpSocket::bind("127.0.0.1:0").unwrap();
                client.send_to(b"x", &address).unwrap();
            }
            "--seqpacket" => {
                let client = Socket::new(Domain::UNIX, Type::SEQPACKET, None).unwrap();
                client.connect(&SockAddr::unix(&path).unwrap()).unwrap();
            }
            _ => drop(connect(port)),
        }
        let line = websockify.wait_for_log(&["websockify: cannot use descriptor 3 of LISTEN_FDS"]);
        assert!(line.contains(reason), "{line}");
        // With -a only a child of systemd-socket-activate has ended.
        if socket[0] != "-a" {
            assert_eq!(websockify.wait(), 1);
        }
    }
}

/// D4: the same without systemd's tools: descriptors that are no socket, or not there at all, and
/// a count that is no number.
#[test]
fn d4_listen_fds_that_make_no_sense_are_named() {
    for (script, reason) in [
        ("exec 3</dev/null; LISTEN_FDS=1", "descriptor 3 of LISTEN_FDS: not a socket"),
        ("exec 3>&-; LISTEN_FDS=1", "sockets of LISTEN_FDS: bad file descriptor"),
        ("LISTEN_FDS=many", "sockets of LISTEN_FDS: invalid LISTEN_FDS"),
    ] {
        let mut shell = Command::new("sh");
        let script = format!(
            "{script}; LISTEN_PID=$$; export LISTEN_FDS LISTEN_PID; exec {WEBSOCKIFY} {} a:1",
            free_port()
        );
        let output = Websockify::launch(shell.args(["-c", &script])).output();
        assert_eq!((output.status, output.err.len()), (1, 1), "{output:?}");
        assert!(output.err[0].contains(reason), "{output:?}");
    }
    // Variables that are meant for another process are ignored.
    let (service, port) = (echo_service(), free_port());
    let arguments = format!("{port} {}", service.target());
    let mut websockify = Websockify::start_with(&arguments, |command| {
        command.env("LISTEN_FDS", "1").env("LISTEN_PID", "1");
    });
    wait_for("an open port", || Client::dial((Ipv4Addr::LOCALHOST, port)).ok());
    assert_eq!(websockify.stop(), 0);
    wait_until("its end", || websockify.remnants().is_empty());
}
