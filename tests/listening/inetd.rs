//! `--inetd` (U4): the test plays inetd, and so do systemd-socket-activate, socat and an inetd where they are
//! installed.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use socket2::Socket;
use tempfile::TempDir;

use crate::support::{
    Actor, Client, DEADLINE, OF_SYSTEMD, UPGRADE, WEBSOCKIFY, Websockify, ask, echo_service,
    free_port, is_refused, needs, needs_root, read_to_end, wait_for, wait_until,
};

/// A client, and its connection as inetd has accepted it.
fn accepted() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    (client, listener.accept().unwrap().0)
}

/// websockify as inetd starts it: the socket is its standard input, output and error.
struct Served {
    child: Child,
    directory: TempDir,
}

impl Served {
    fn start(socket: impl Into<OwnedFd>, arguments: &str) -> Self {
        let (socket, directory) = (socket.into(), TempDir::new().unwrap());
        let mut command = Command::new(WEBSOCKIFY);
        command.arg("--inetd").args(arguments.split_whitespace()).current_dir(&directory);
        command.env("TMPDIR", directory.path());
        for name in OF_SYSTEMD {
            command.env_remove(name);
        }
        let again = || Stdio::from(socket.try_clone().unwrap());
        let child = command.stdin(again()).stdout(again()).stderr(again()).spawn().unwrap();
        Self { child, directory }
    }

    /// The same, with a log file.
    fn logging(socket: impl Into<OwnedFd>, arguments: &str) -> Self {
        Self::start(socket, &format!("--log-file=log {arguments}"))
    }

    fn status(&mut self) -> Option<i32> {
        wait_for("its end", || self.child.try_wait().unwrap()).code()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("it said:\n{}", self.log());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn over(stream: TcpStream) -> Client {
    let address = (Ipv4Addr::LOCALHOST, 80).into();
    Client::over(stream, address).unwrap()
}

fn assert_echoes(client: &mut Client) {
    client.send("hello");
    assert_eq!(client.read(5), b"hello");
}

#[test]
fn u4_a_listening_socket_is_served_until_it_is_given_back() {
    let service = echo_service();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let mut command = Command::new(WEBSOCKIFY);
    command.args(["--inetd", "--idle-timeout=1", &service.target()]);
    let stdin = OwnedFd::from(listener.try_clone().unwrap());
    let mut websockify = Websockify::launch_with(stdin, &mut command);
    let mut clients: Vec<_> = (0..2).map(|_| Client::connect(address.port())).collect();
    clients.iter_mut().for_each(assert_echoes);
    websockify.wait_for_log(&[&format!("listening on {address}")]);
    websockify.wait_for_log(&[&format!("proxying from inetd to {}", service.target())]);
    for client in clients {
        assert_eq!(client.close().code, 1000);
    }
    assert_eq!(websockify.wait(), 0);
    websockify.wait_for_log(&["--idle-timeout reached"]);
    // The socket still listens for inetd, which starts the next websockify.
    assert!(!is_refused(Ipv4Addr::LOCALHOST, address.port()));
    assert_eq!(websockify.out.lines(), Vec::<String>::new());
}

/// U4, B8: there is one session, and the client gets nothing but its bytes, whatever is logged.
#[test]
fn u4_a_connection_is_served_and_ends_with_its_session() {
    let service = echo_service();
    for options in ["", "-v", "--traffic --timeout=100", "--run-once"] {
        let (client, connection) = accepted();
        let address = client.local_addr().unwrap();
        let line = format!("{options} {}", service.target());
        let mut served = Served::logging(connection, &line);
        let mut client = over(client);
        assert_echoes(&mut client);
        assert!(served.child.try_wait().unwrap().is_none());
        let closing = client.close();
        assert_eq!((closing.code, &*closing.bytes), (1000, &b""[..]), "{options}");
        assert_eq!(served.status(), Some(0), "{options}");
        let log = served.log();
        for part in [
            "serving the connection on standard input",
            &format!("proxying from inetd to {}", service.target()),
            &format!("session started: 1, {address} to {}", service.target()),
            "session ended: 1",
        ] {
            assert!(log.contains(part), "{part}: {log}");
        }
    }
}

/// U4: websockify also ends where the target or a signal ends the session.
#[test]
fn u4_the_other_ends_of_a_session_end_it_too() {
    let service = crate::support::Service::new(|mut stream| {
        let _ = stream.write_all(b"bye");
    });
    let (client, connection) = accepted();
    let mut served = Served::logging(connection, &service.target());
    assert_eq!(over(client).closing().bytes, b"bye");
    assert_eq!(served.status(), Some(0));
    let service = echo_service();
    let (client, connection) = accepted();
    let mut served = Served::logging(connection, &service.target());
    let mut client = over(client);
    assert_echoes(&mut client);
    kill(Pid::from_raw(served.child.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    assert_eq!(client.closing().code, 1001);
    assert_eq!(served.status(), Some(0));
}

#[test]
fn u4_a_connection_that_becomes_no_session_ends_well() {
    let service = echo_service();
    let web = TempDir::new().unwrap();
    fs::write(web.path().join("page"), "text").unwrap();
    let line = format!("--web={} {}", web.path().display(), service.target());
    // Pages, over one connection.
    let (mut client, connection) = accepted();
    let mut served = Served::logging(connection, &line);
    for _ in 0..2 {
        assert_eq!(ask(&mut client, "/page", &[]).status, 200);
        client.read_exact(&mut [0; 4]).unwrap();
    }
    client.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&mut client), b"");
    assert_eq!(served.status(), Some(0));
    // A client that sends nothing, half a head, or a request that is refused.
    for (sent, is_answered) in
        [("", false), ("GET / HTT", false), ("GET / HTTP/1.1\r\nConnection: close\r\n\r\n", true)]
    {
        let (mut client, connection) = accepted();
        let mut served = Served::logging(connection, &line);
        client.write_all(sent.as_bytes()).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let answer = String::from_utf8(read_to_end(&mut client)).unwrap();
        assert!(
            !is_answered && answer.is_empty() || answer.starts_with("HTTP/1.1 400"),
            "{sent:?}: {answer}"
        );
        assert_eq!(served.status(), Some(0), "{sent:?}");
    }
    // A client that is gone before websockify is started.
    let (client, connection) = accepted();
    let client = Socket::from(client);
    client.set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    assert_eq!(Served::logging(connection, &line).status(), Some(0));
}

/// U4, U3: the log names a client of a Unix socket by its user.
#[test]
fn u4_a_unix_connection_is_served_too() {
    let service = echo_service();
    let (client, connection) = UnixStream::pair().unwrap();
    let mut served = Served::logging(connection, &service.target());
    let mut client = over(TcpStream::from(OwnedFd::from(client)));
    assert_echoes(&mut client);
    client.close();
    assert_eq!(served.status(), Some(0));
    let shown = format!("session started: 1, unix:uid={}", nix::unistd::geteuid());
    assert!(served.log().contains(&shown), "{}", served.log());
}

/// U4, C4: the client is not sent websockify's errors.
#[test]
fn u4_a_client_gets_nothing_of_what_is_said_to_others() {
    for (line, status) in [
        ("--no-such-option a:1", 2),
        ("80 a:1", 2),
        ("--daemon a:1", 2),
        ("--web=/nowhere a:1", 1),
        ("--log-file=/nowhere/log a:1", 1),
        ("80 -- /nowhere/program", 127),
        ("--program-port=80 -- false", 1),
    ] {
        let (mut client, connection) = accepted();
        let mut served = Served::start(connection, line);
        assert_eq!(served.status(), Some(status), "{line}");
        assert_eq!(String::from_utf8(read_to_end(&mut client)), Ok(String::new()), "{line}");
    }
    // A log file gets the error.
    let (mut client, connection) = accepted();
    let mut served = Served::logging(connection, "--web=/nowhere a:1");
    assert_eq!(served.status(), Some(1));
    assert_eq!(read_to_end(&mut client), b"");
    assert!(served.log().contains("ERROR cannot serve files from /nowhere"), "{}", served.log());
}

#[test]
fn u4_standard_input_that_cannot_be_served_is_named() {
    let run = |stdin: Stdio, line: &str| {
        let mut command = Command::new(WEBSOCKIFY);
        command.args(line.split_whitespace());
        let output = Websockify::launch_with(stdin, &mut command).output();
        assert_eq!(output.err.len(), 1, "{output:?}");
        (output.status, output.err.into_iter().next().unwrap())
    };
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let unbound = Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    for (stdin, reason) in [
        (Stdio::null(), "it is not a socket"),
        (Stdio::piped(), "it is not a socket"),
        (OwnedFd::from(socket).into(), "it is not a stream socket"),
        (OwnedFd::from(unbound).into(), "it neither listens nor is connected"),
    ] {
        let (status, line) = run(stdin, "--inetd a:1");
        assert_eq!(status, 1);
        assert_eq!(line, format!("websockify: cannot serve standard input: {reason}"));
    }
    for (line, part) in [
        ("--inetd -D a:1", "'--daemon' and '--inetd' exclude each other"),
        ("--inetd --unix-listen=x a:1", "'--unix-listen' and '--inetd' exclude each other"),
        ("--inetd 80 a:1", "unexpected argument 'a:1': with '--inetd' there is no source port"),
        ("--inetd -- true", "the program's port is not given"),
    ] {
        let (status, said) = run(Stdio::null(), line);
        assert_eq!(status, 2, "{line}");
        assert!(said.contains(part), "{line}: {said}");
    }
}

/// U4, W1: inetd and a wrapped program together: a program for each client.
#[test]
fn u4_a_program_is_started_for_a_connection_and_ends_with_it() {
    let (client, connection) = accepted();
    let port = free_port();
    let line = format!("--log-file=log {port} -- {Actor} bind {port} listen serve");
    let mut served = Served::start(connection, &line);
    let mut client = over(client);
    client.read_line();
    assert_echoes(&mut client);
    client.close();
    assert_eq!(served.status(), Some(0));
    wait_until("the end of the program", || is_refused(Ipv4Addr::LOCALHOST, port));
}

/// U4: websockify behind systemd-socket-activate(1), which is given the options `socket`.
fn activated(socket: &[&str], target: &str) -> Websockify {
    let mut activate = Command::new("systemd-socket-activate");
    activate.args(["-E", "TMPDIR", "-E", "WEBSOCKIFY_TEST", "-E", "PATH", "--inetd"]);
    activate.args(socket).args([WEBSOCKIFY, "--inetd", target]);
    let websockify = Websockify::launch(&mut activate);
    websockify.wait_for_log(&["Listening on"]);
    websockify
}

#[test]
fn u4_systemd_may_be_the_inetd() {
    if !needs(&["systemd-socket-activate"]) {
        return;
    }
    let (service, port) = (echo_service(), free_port());
    let address = format!("127.0.0.1:{port}");
    // One websockify for all clients: systemd-socket-activate executes it.
    let mut websockify = activated(&["-l", &address], &service.target());
    for _ in 0..2 {
        assert_echoes(&mut Client::connect(port));
    }
    websockify.wait_for_log(&["listening on", &address]);
    assert_eq!(websockify.stop(), 0);
    // One websockify for each client.
    let port = free_port();
    let address = format!("127.0.0.1:{port}");
    let websockify = activated(&["-a", "-l", &address], &service.target());
    for _ in 0..2 {
        let mut client = Client::connect(port);
        assert_echoes(&mut client);
        client.close();
    }
    wait_until("the ends of both", || {
        websockify.tree().iter().all(|process| process.name != "websockify")
    });
    websockify.assert_logged(&["serving the connection on standard input"], 2);
}

#[test]
fn u4_socat_may_be_the_inetd() {
    if !needs(&["socat"]) {
        return;
    }
    let (service, port) = (echo_service(), free_port());
    let mut socat = Command::new("socat");
    socat.arg(format!("TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork"));
    // In socat's addresses a colon separates words.
    let target = service.target().replace(':', r"\:");
    socat.arg(format!("EXEC:{WEBSOCKIFY} --inetd {target},nofork"));
    let websockify = Websockify::launch(&mut socat);
    for _ in 0..2 {
        let mut client = Client::connect_once_open(port);
        assert_echoes(&mut client);
        client.close();
    }
    websockify.wait_for_log(&["session ended"]);
    assert_eq!(websockify.out.lines(), Vec::<String>::new());
}

#[test]
fn u4_an_inetd_starts_either_kind() {
    if !needs_root() || !needs(&["inetd"]) {
        return;
    }
    let (service, directory) = (echo_service(), TempDir::new().unwrap());
    let [nowait, wait] = [free_port(), free_port()];
    let line = |port: u16, kind: &str, log: &str| {
        let log = directory.path().join(log);
        format!(
            "127.0.0.1:{port} stream tcp {kind} root {WEBSOCKIFY} websockify --inetd --log-file={} --idle-timeout=1 {}\n",
            log.display(),
            service.target()
        )
    };
    let configuration = directory.path().join("inetd.conf");
    let text = line(nowait, "nowait", "one") + &line(wait, "wait", "all");
    fs::write(&configuration, text).unwrap();
    let mut inetd = Command::new("inetd");
    let _inetd = Websockify::launch(inetd.arg("-i").arg(&configuration));
    let logged = |name: &str, part: &str| {
        let log = fs::read_to_string(directory.path().join(name)).unwrap_or_default();
        log.matches(part).count()
    };
    for port in [nowait, wait] {
        // Both clients at once: with `wait`, websockify must not be idle between them.
        let mut clients = [(); 2].map(|()| Client::connect_once_open(port));
        clients.iter_mut().for_each(assert_echoes);
    }
    wait_until("one for each", || logged("one", "serving the connection on standard input") == 2);
    // inetd has its socket back, and starts the next websockify.
    wait_until("the end of the first", || logged("all", "--idle-timeout reached") == 1);
    assert_eq!(logged("all", "listening on"), 1);
    assert_echoes(&mut Client::connect(wait));
    wait_until("the next", || logged("all", "listening on") == 2);
}

/// U4, A3: a trusted proxy may connect by way of inetd, and names clients by a header of the request or by the PROXY
/// protocol.
#[test]
fn u4_a3_a_trusted_proxy_names_clients_to_whom_inetd_has_started() {
    let service = echo_service();
    for (protocol, said, named, client) in [
        ("", "", "X-Forwarded-For: 198.51.100.1", "198.51.100.1"),
        (
            "--proxy-protocol",
            "PROXY TCP4 198.51.100.1 203.0.113.1 9 80\r\n",
            "A: b",
            "198.51.100.1:9",
        ),
    ] {
        let (mut proxy, connection) = accepted();
        let via = proxy.local_addr().unwrap();
        let options = format!("--trusted-proxy=127.0.0.1 {protocol} {}", service.target());
        let mut served = Served::logging(connection, &options);
        proxy.write_all(said.as_bytes()).unwrap();
        let head = ask(&mut proxy, "/", &[&UPGRADE[..], &[named]].concat());
        assert_eq!(head.status, 101, "{protocol}");
        let started = format!("session started: 1, {client} via {via} to ");
        wait_until("a record", || served.log().contains(&started));
        drop(proxy);
        assert_eq!(served.status(), Some(0));
    }
}

/// U4, A4: the connection of a client that `--allow-from` does not let in is closed, as at a port.
#[test]
fn u4_a4_a_stranger_whom_inetd_has_accepted_is_closed() {
    let (mut stranger, connection) = accepted();
    let mut served = Served::logging(connection, "--allow-from=192.0.2.1 a:1");
    assert_eq!(read_to_end(&mut stranger), b"");
    served.status();
    let log = served.log();
    assert!(log.contains("closed a connection: 127.0.0.1: none of those who may"), "{log}");
}
