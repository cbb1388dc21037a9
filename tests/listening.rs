//! Other places for clients to connect than a port: a Unix socket (U3), or a socket from inetd (U4).

mod inetd;

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::support::{
    Actor, Caller, Client, SERVERS, UPGRADE, WEBSOCKIFY, Websockify, ask, connect_unix,
    echo_service, free_port, needs, needs_root, read_to_end, wait_for, wait_until,
};

/// A websockify in this directory.
fn start_in(directory: &TempDir, arguments: &str) -> Websockify {
    Websockify::start_with(arguments, |command| {
        command.current_dir(directory);
    })
}

fn assert_echoes(path: &Path) {
    let mut client = wait_for("a listener", || Client::at(path).ok());
    client.send("hello");
    assert_eq!(client.read(5), b"hello");
    assert_eq!(client.close().code, 1000);
}

#[test]
fn u3_sessions_and_pages_come_through_a_unix_socket() {
    let (service, directory) = (echo_service(), TempDir::new().unwrap());
    let path = directory.path().join("socket");
    fs::write(directory.path().join("page"), "text").unwrap();
    let target = service.target();
    let mut websockify = start_in(&directory, &format!("--unix-listen=socket --web=. {target}"));
    websockify.wait_for_log(&[&format!("listening on unix:{}", path.display())]);
    // The path as it was typed; a port's address is shown as it was typed, too.
    websockify.wait_for_log(&[&format!("proxying from socket to {target}")]);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);

    let mut client = Client::at(&path).unwrap();
    let bytes: Vec<_> = (0..1_u32 << 20).map(|at| u8::try_from(at % 251).unwrap()).collect();
    client.send(&bytes);
    assert!(client.read(bytes.len()) == bytes, "other bytes");
    assert_eq!(client.close().code, 1000);
    let user = nix::unistd::geteuid();
    let shown = format!("unix:uid={user},pid={}", std::process::id());
    websockify.wait_for_log(&["session started: 1", &shown, &target]);
    websockify.wait_for_log(&["session ended: 1", &shown, "1048576 received", "code 1000"]);

    for (name, status) in [("/page", 200), ("/socket", 404), ("/none", 404)] {
        let head = ask(&mut connect_unix(&path).unwrap(), name, &[]);
        assert_eq!(head.status, status, "{name}");
    }
    let mut stream = connect_unix(&path).unwrap();
    ask(&mut stream, "/", &["Connection: close"]);
    let listing = String::from_utf8(read_to_end(&mut stream)).unwrap();
    assert!(listing.contains("page") && !listing.contains("socket"), "F6: {listing}");
    assert_eq!(websockify.stop(), 0);
    assert!(!path.exists(), "removed at the end");
}

/// U3, T1, T4, K1: with TLS, a password and tokens.
#[test]
fn u3_encryption_authentication_and_tokens_are_as_on_a_port() {
    let (service, directory) = (echo_service(), TempDir::new().unwrap());
    let path = directory.path().join("socket");
    let certificate = SERVERS.issue("localhost").pem();
    fs::write(directory.path().join("self.pem"), certificate).unwrap();
    fs::write(directory.path().join("tokens"), format!("a: {}\n", service.target())).unwrap();
    let options = "--unix-listen=socket --unix-listen-mode=0640 --target-config=tokens --ssl-only \
                   --auth-plugin=BasicHTTPAuth --auth-source=a:b";
    let websockify = start_in(&directory, options);
    websockify.wait_until_open();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o640);
    let ask_tls = |path: &Path, request: &str, headers: &str| {
        let mut tls = Caller::anonymous().call_over(connect_unix(path).unwrap()).unwrap();
        let status = tls.request(&format!(
            "GET {request} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{headers}\r\n"
        ));
        (status.unwrap(), tls)
    };
    let known = "Authorization: Basic YTpi\r\n";
    assert_eq!(ask_tls(&path, "/?token=a", "").0, 401);
    assert_eq!(ask_tls(&path, "/?token=b", known).0, 403);
    let (status, mut tls) = ask_tls(&path, "/?token=a", known);
    assert_eq!(status, 101);
    tls.exchange(b"hello");
    // In the place of an address, the log names the user of a client that was refused.
    assert_eq!(ask(&mut connect_unix(&path).unwrap(), "/", &[]).status, 400);
    let user = format!("unix:uid={}", nix::unistd::geteuid());
    websockify.wait_for_log(&["WARN", "refused an unencrypted client", &user]);
    websockify.wait_for_log(&["asked a client for credentials", &format!("{user} (401")]);
    assert_eq!(ask_tls(&path, "/?token=a", "Authorization: Basic YTpj\r\n").0, 401);
    websockify.wait_for_log(&["denied a client", &user, "wrong credentials"]);
}

/// U3, A4, T6: the connections of a user are limited, and each has a deadline.
#[test]
fn u3_limits_are_as_on_a_port() {
    let (service, directory) = (echo_service(), TempDir::new().unwrap());
    let path = directory.path().join("socket");
    let options = "--unix-listen=socket --max-connections-per-client=1";
    let websockify = start_in(&directory, &format!("{options} {}", service.target()));
    websockify.wait_until_open();
    let began = Instant::now();
    let mut staller = connect_unix(&path).unwrap();
    staller.write_all(b"GET / HTTP/1.1\r\nHost:").unwrap();
    let head = ask(&mut connect_unix(&path).unwrap(), "/", &UPGRADE);
    assert_eq!((head.status, head.header("retry-after")), (429, Some("10")));
    assert_eq!(read_to_end(&mut staller), b"");
    let time = began.elapsed();
    assert!((Duration::from_secs(9)..Duration::from_secs(14)).contains(&time), "{time:?}");
    assert_echoes(&path);
}

/// U3: other users of this machine cannot connect to the socket, unless its mode lets them.
#[test]
fn u3_the_mode_says_who_can_connect() {
    if !needs_root() || !needs(&["curl"]) {
        return;
    }
    let (service, directory) = (echo_service(), TempDir::new().unwrap());
    fs::set_permissions(&directory, Permissions::from_mode(0o755)).unwrap();
    let path = directory.path().join("socket");
    for (option, is_let_in) in
        [("", false), ("--unix-listen-mode=660", false), ("--unix-listen-mode 666", true)]
    {
        let line = format!("--unix-listen=socket {option} --web=. {}", service.target());
        let mut websockify = start_in(&directory, &line);
        websockify.wait_until_open();
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--unix-socket"]).arg(&path).arg("http://localhost/");
        // As the user nobody, who is in no other group.
        let status = curl.uid(65534).gid(65534).stdout(Stdio::null()).status().unwrap();
        assert_eq!(status.success(), is_let_in, "{option}: {status}");
        assert_eq!(websockify.stop(), 0);
    }
}

#[test]
fn u3_a_stale_socket_is_replaced_and_whatever_else_is_there_is_named() {
    let (service, directory) = (echo_service(), TempDir::new().unwrap());
    let path = directory.path().join("socket");
    let target = service.target();
    let line = format!("--unix-listen=socket {target}");
    let websockify = start_in(&directory, &line);
    websockify.wait_until_open();
    let refused = |line: &str, reason: &str| {
        let output = start_in(&directory, line).output();
        assert_eq!((output.status, output.err.len()), (1, 1), "{line}: {output:?}");
        assert!(output.err[0].contains("cannot listen on Unix socket"), "{output:?}");
        assert!(output.err[0].contains(reason), "{output:?}");
    };
    for line in [line.clone(), format!("-D {line}")] {
        refused(&line, &format!("{}: somebody listens there already", path.display()));
    }
    assert_echoes(&path);
    // A websockify that is killed leaves its socket's file, and the next one replaces it.
    websockify.signal(Signal::SIGKILL);
    drop(websockify);
    assert!(fs::metadata(&path).unwrap().file_type().is_socket());
    let mut websockify = start_in(&directory, &line);
    assert_echoes(&path);
    // A socket of another process in its place is not removed.
    fs::remove_file(&path).unwrap();
    let others = UnixListener::bind(&path).unwrap();
    assert_eq!(websockify.stop(), 0);
    assert!(path.exists());
    drop(others);

    fs::write(directory.path().join("file"), "precious").unwrap();
    let _datagrams = UnixDatagram::bind(directory.path().join("datagrams")).unwrap();
    let long = "x".repeat(100);
    for (name, reason) in [
        ("file", "something else is there, which is no socket"),
        (".", "something else is there, which is no socket"),
        ("datagrams", "a socket of another type is there"),
        ("none/socket", "none/socket: no such file or directory"),
        (&long, "bytes, and 107 are the most"),
    ] {
        // For the dot, the path of the directory itself.
        let name = if name == "." { directory.path().to_str().unwrap() } else { name };
        refused(&format!("--unix-listen={name} {target}"), reason);
    }
    assert_eq!(fs::read(directory.path().join("file")).unwrap(), b"precious");
}

#[test]
fn u3_what_cannot_be_meant_is_a_usage_error() {
    for (line, part) in [
        ("--unix-listen=x 80 a:1", "unexpected argument 'a:1'"),
        ("--unix-listen=x 80", "'80'"),
        ("--unix-listen=x", "neither a target"),
        ("--unix-listen=x -- true", "the program's port"),
        ("--unix-listen=x --unix-listen-mode=8 a:1", "'8' for '--unix-listen-mode'"),
        ("--unix-listen=x --unix-listen-mode=-1 a:1", "'-1' for '--unix-listen-mode'"),
        ("--unix-listen=x --unix-listen-mode=99999 a:1", "'99999' for '--unix-listen-mode'"),
        ("--unix-listen=/ a:1", "'/' for '--unix-listen'"),
    ] {
        let output = crate::support::run(line);
        assert_eq!((output.status, output.err.len()), (2, 1), "{line}: {output:?}");
        assert!(output.err[0].contains(part), "{line}: {output:?}");
    }
}

/// U3, W3, W4: like a port, the socket is held and refuses clients until the program listens, and stays open while
/// the program is started again.
#[test]
fn u3_a_wrapped_program_is_behind_the_socket_for_all_its_lives() {
    let (directory, port) = (TempDir::new().unwrap(), free_port());
    let path = directory.path().join("socket");
    let go = directory.path().join("go");
    let program = format!("{Actor} await {} bind {port} listen serve", go.display());
    let line = format!("--unix-listen=socket --wrap-mode=respawn {port} -- {program}");
    let mut websockify = start_in(&directory, &line);
    let leader = websockify.leader();
    let error = connect_unix(&path).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    let output = start_in(&directory, "--unix-listen=socket a:1").output();
    assert_eq!(output.status, 1, "{output:?}");
    assert!(output.err[0].ends_with("socket: another process holds it"), "{output:?}");
    fs::write(&go, "").unwrap();
    let served = |client: &mut Client| {
        client.read_line();
        client.send("hello");
        assert_eq!(client.read(5), b"hello");
    };
    served(&mut wait_for("a listener", || Client::at(&path).ok()));
    websockify.wait_for_log(&["proxying from socket to", &format!("(port {port})")]);
    let inode = fs::metadata(&path).unwrap().ino();
    fs::remove_file(&go).unwrap();
    leader.signal(Signal::SIGKILL);
    websockify.nth_start(2);
    let mut held = Client::at(&path).unwrap();
    fs::write(&go, "").unwrap();
    served(&mut held);
    assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
    assert_eq!(websockify.stop(), 0);
    assert!(!path.exists());
}

/// U3, D1, B8: the path is relative to the directory of the caller of `-D`, and the file is removed after the one
/// session of `--run-once`.
#[test]
fn u3_a_daemon_has_its_socket_where_the_caller_is() {
    let (service, directory) = (echo_service(), TempDir::new().unwrap());
    let path = directory.path().join("socket");
    let line = format!(
        "umask 077; exec {WEBSOCKIFY} -D --run-once --log-file=log --unix-listen=socket \
         --unix-listen-mode=666 {}",
        service.target()
    );
    let mut shell = Command::new("sh");
    let mut websockify = Websockify::launch(shell.args(["-c", &line]).current_dir(&directory));
    assert_eq!(websockify.wait(), 0, "{:?}", websockify.err.lines());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o666);
    assert_echoes(&path);
    wait_until("the end of the daemon", || websockify.remnants().is_empty());
    assert!(!path.exists());
}

/// U3, W9: as over TCP, a stop sends sessions a close frame.
#[test]
fn u3_a_stop_closes_sessions_and_removes_the_socket() {
    let (service, directory) = (echo_service(), TempDir::new().unwrap());
    let path = directory.path().join("socket");
    let mut websockify =
        start_in(&directory, &format!("--unix-listen=socket {}", service.target()));
    let mut client = wait_for("a listener", || Client::at(&path).ok());
    client.send("hello");
    assert_eq!(client.read(5), b"hello");
    // Half a handshake is no session.
    let mut stray = connect_unix(&path).unwrap();
    stray.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    assert_eq!(websockify.stop(), 0);
    assert_eq!(client.closing().code, 1001);
    assert!(!matches!(stray.read(&mut [0]), Ok(1..)));
    assert!(!path.exists());
}
