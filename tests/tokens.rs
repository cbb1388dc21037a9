//! Tokens: one port with many targets (K); and targets at Unix sockets (U3).

pub(crate) mod helper;
mod json_web_tokens;
mod redis;
mod secrets;
mod sources;
mod web_servers;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::support::{Service, WEBSOCKIFY, Websockify, connect, echo, free_port, read_to_end};

/// A service that sends its name to each client, and nothing more.
pub(crate) fn named(name: &'static str) -> Service {
    Service::new(move |mut stream| {
        let _ = stream.write_all(name.as_bytes());
        // The client ends the session.
        let _ = stream.read(&mut [0]);
    })
}

/// The same at a Unix socket.
pub(crate) fn named_at(path: &Path, name: &'static str) {
    let listener = UnixListener::bind(path).unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let _ = stream.write_all(name.as_bytes());
                let _ = stream.read(&mut [0]);
            });
        }
    });
}

/// A websockify in `directory` that is open, and its port.
pub(crate) fn bridge(directory: &TempDir, options: &[&str]) -> (Websockify, u16) {
    let port = free_port();
    let mut command = std::process::Command::new(WEBSOCKIFY);
    command.arg(port.to_string()).args(options).current_dir(directory);
    let websockify = Websockify::launch(&mut command);
    websockify.wait_until_open();
    (websockify, port)
}

/// Sends a handshake for this path and host, with further headers. Gives what the target sends first; or of a refusal
/// the status and the text, or of a close frame the code and the reason.
pub(crate) fn handshake(
    port: u16,
    path: &str,
    host: &str,
    headers: &str,
) -> Result<String, (u16, String)> {
    let mut stream = connect(port);
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade, close\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    )
    .unwrap();
    let head = read_head(&mut stream);
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    if status != 101 {
        let text = String::from_utf8(read_to_end(&mut stream)).unwrap();
        return Err((status, text));
    }
    let mut start = [0; 2];
    stream.read_exact(&mut start).unwrap();
    let mut said = vec![0; usize::from(start[1])];
    stream.read_exact(&mut said).unwrap();
    if start[0] == 0x88 {
        let code = u16::from_be_bytes([said[0], said[1]]);
        return Err((code, String::from_utf8(said[2..].to_vec()).unwrap()));
    }
    Ok(String::from_utf8(said).unwrap())
}

pub(crate) fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

/// A handshake with this token in the query.
pub(crate) fn by_token(port: u16, token: &str) -> Result<String, (u16, String)> {
    handshake(port, &format!("/websockify?token={token}"), "localhost", "")
}

/// The status with which this token is refused.
pub(crate) fn refused(port: u16, token: &str) -> u16 {
    by_token(port, token).expect_err(token).0
}

#[test]
fn k1_a_token_chooses_the_target() {
    let (one, two) = (named("one"), named("two"));
    let directory = TempDir::new().unwrap();
    let at = |name: &str| directory.path().join(name);
    named_at(&at("socket"), "three");
    let text = format!(
        "# desks\n\ndesk-one: {}\ndesk two/2: {}\ndesk-three: unix_socket:{}\n",
        one.target(),
        two.target(),
        at("socket").display()
    );
    std::fs::write(at("tokens"), text).unwrap();
    let options = ["--token-plugin=TokenFile", "--token-source=tokens"];
    for options in
        [&options[..], &["--target-config", "tokens"], &["--target-config=./tokens", "-v"]]
    {
        let (websockify, port) = bridge(&directory, options);
        for (token, expected, target) in [
            ("desk-one", "one", one.target()),
            ("desk%20two%2F2", "two", two.target()),
            ("desk+two/2&token=desk-one", "two", two.target()),
            ("&token=desk-three", "three", format!("unix:{}", at("socket").display())),
        ] {
            assert_eq!(by_token(port, token), Ok(expected.to_owned()), "{token}");
            // The record names the target that this session was given, and no whole token.
            for record in ["session started", "session ended"] {
                websockify.wait_for_log(&[record]);
            }
            websockify.wait_for_log(&["session started", &format!(" to {target},")]);
        }
        let none = handshake(port, "/websockify", "localhost", "").unwrap_err();
        assert_eq!(none, (403, "forbidden\n".into()));
        for unknown in
            ["x", "desk-one%00", "DESK-ONE", "desk-on", "desk-one2", "%ff", "%23%20desks"]
        {
            assert_eq!(by_token(port, unknown).unwrap_err(), none, "{unknown}");
        }
        websockify.wait_for_log(&["refused a handshake", "it has no token (403"]);
        websockify.wait_for_log(&[
            "refused a handshake",
            "its token is unknown (403",
            "?token=desk…",
        ]);
        assert_eq!(websockify.logged(&["desk-one"]), Vec::<String>::new());
    }
}

/// K1, B2: a client of an old draft has its token in the same place.
#[test]
fn k1_old_clients_have_tokens_too() {
    let directory = TempDir::new().unwrap();
    let service = Service::new(echo);
    std::fs::write(directory.path().join("tokens"), format!("a: {}\n", service.target())).unwrap();
    let (_websockify, port) = bridge(&directory, &["--target-config=tokens"]);
    for (path, status) in [("/?token=a", "101"), ("/?token=b", "403"), ("/", "403")] {
        let mut stream = connect(port);
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: a\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\nOrigin: o\r\n\r\n"
        )
        .unwrap();
        let head = read_head(&mut stream);
        assert_eq!(head.split(' ').nth(1), Some(status), "{path}: {head}");
    }
}

#[test]
fn k1_the_host_may_be_the_token() {
    let (one, two) = (named("one"), named("two"));
    let directory = TempDir::new().unwrap();
    let text = format!("one.example: {}\nTwo.Example: {}\n", one.target(), two.target());
    std::fs::write(directory.path().join("tokens"), text).unwrap();
    let options = ["--token-plugin=TokenFile", "--token-source=tokens", "--host-token"];
    let (_websockify, port) = bridge(&directory, &options);
    for (host, expected) in
        [("one.example", "one"), ("ONE.example:6080", "one"), ("two.example:1", "two")]
    {
        let said = handshake(port, "/?token=two.example", host, "");
        assert_eq!(said, Ok(expected.to_owned()), "{host}");
    }
    for host in ["three.example", "", "one.example.", "[::1]:80"] {
        let refused = handshake(port, "/?token=one.example", host, "").unwrap_err();
        assert_eq!(refused.0, 403, "{host}");
    }
}

/// K1, T4: the token of a client that has not authenticated is not looked up: here a look-up would be a 503.
#[test]
fn k1_who_has_not_shown_what_is_asked_for_asks_for_no_token() {
    let directory = TempDir::new().unwrap();
    let options = ["--target-config=none", "--auth-plugin=BasicHTTPAuth", "--auth-source=a:b"];
    let (websockify, port) = bridge(&directory, &options);
    assert_eq!(refused(port, "x"), 401);
    assert_eq!(websockify.logged(&["cannot read tokens", "(503"]), Vec::<String>::new());
    let known = handshake(port, "/?token=x", "localhost", "Authorization: Basic YTpi\r\n");
    assert_eq!(known.unwrap_err().0, 503);
    websockify.wait_for_log(&[
        "WARN",
        "refused a handshake",
        "cannot read tokens",
        "no such file",
        "(503",
    ]);
}

/// K1, U1: the Python websockify took a target there until 0.8.0, and ignored it.
#[test]
fn k1_u1_a_target_beside_tokens_or_a_unix_target_is_not_used() {
    let (directory, one, other) = (TempDir::new().unwrap(), named("one"), named("other"));
    named_at(&directory.path().join("socket"), "one");
    std::fs::write(directory.path().join("tokens"), format!("vm1: {}\n", one.target())).unwrap();
    for option in ["--target-config=tokens", "--unix-target=socket"] {
        for target in [other.target().as_str(), "desktop"] {
            let (websockify, port) = bridge(&directory, &[option, target]);
            assert_eq!(by_token(port, "vm1").as_deref(), Ok("one"), "{option} {target}");
            let name = option.split('=').next().unwrap();
            let said = format!("target '{target}' is not used: option '{name}'");
            websockify.assert_logged(&["WARN", &said], 1);
        }
    }
}

#[test]
fn k1_what_is_wrong_is_named() {
    let run = |line: &str| crate::support::run(line);
    for (line, part) in [
        (
            "1 a:1 --target-config=x -- true",
            "target 'a:1' and option '--target-config' exclude each other",
        ),
        (
            "1 --target-config=x -- true",
            "option '--target-config' and a program after '--' exclude",
        ),
        (
            "1 --target-config=x --unix-target=y",
            "option '--unix-target' and option '--target-config' exclude each other",
        ),
        ("1 --token-plugin=Magic --token-source=x", "invalid value 'Magic' for '--token-plugin'"),
        ("1 --token-plugin=TokenFile", "'--token-plugin' needs '--token-source'"),
    ] {
        let output = run(line);
        assert_eq!((output.status, output.err.len()), (2, 1), "{line}: {:?}", output.err);
        assert!(output.err[0].contains(part), "{line}: {:?}", output.err);
    }
    let port = free_port();
    for (line, part) in [
        ("--token-plugin=TokenFileName --token-source=/dev/null", "/dev/null: not a directory"),
        ("--token-plugin=TokenFile --token-source-file=/nowhere/x", "/nowhere/x: no such file"),
        ("--token-plugin=TokenFile --token-source-file=/dev/null", "/dev/null: it is empty"),
    ] {
        let output = run(&format!("{port} {line}"));
        assert_eq!((output.status, output.err.len()), (1, 1), "{line}: {:?}", output.err);
        assert!(output.err[0].contains(part), "{line}: {:?}", output.err);
    }
}

#[test]
fn u3_a_target_may_be_a_unix_socket() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("socket");
    named_at(&path, "here");
    let (websockify, port) = bridge(&directory, &["--unix-target=socket"]);
    assert_eq!(handshake(port, "/", "localhost", ""), Ok("here".into()));
    websockify.wait_for_log(&["session started", &format!("to unix:{}", path.display())]);
    std::fs::remove_file(&path).unwrap();
    let (code, reason) = handshake(port, "/", "localhost", "").unwrap_err();
    assert_eq!((code, &*reason), (1011, "target cannot be reached: no such file or directory"));
    websockify.wait_for_log(&["WARN", "cannot connect to unix:", "no such file"]);
}

/// U3, B4: every byte both ways, and then the target's end.
#[test]
fn u3_bytes_pass_through_a_unix_socket_unharmed() {
    let directory = TempDir::new().unwrap();
    let listener = UnixListener::bind(directory.path().join("socket")).unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut bytes = vec![0; 1 << 20];
            stream.read_exact(&mut bytes).unwrap();
            stream.write_all(&bytes).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest);
        }
    });
    let (websockify, port) = bridge(&directory, &["--unix-target=socket"]);
    let bytes: Vec<_> = (0..1_u32 << 20).map(|at| u8::try_from(at % 251).unwrap()).collect();
    let mut client = crate::support::Client::connect(port);
    client.send(&bytes);
    let closing = client.closing();
    assert_eq!((closing.code, closing.bytes.len()), (1000, bytes.len()));
    assert!(closing.bytes == bytes, "other bytes");
    websockify.wait_for_log(&[
        "session ended",
        "1048576 bytes sent, 1048576 received",
        "code 1000",
    ]);
}

/// K1, F6: files of tokens in the directory that is served.
#[test]
fn k1_no_tokens_are_served_as_files() {
    let directory = TempDir::new().unwrap();
    let at = |name: &str| directory.path().join(name);
    std::fs::create_dir_all(at("many")).unwrap();
    for name in ["tokens", "source", "many/one", "page"] {
        std::fs::write(at(name), if name == "source" { "many\n" } else { "a: b:1\n" }).unwrap();
    }
    let status = |port: u16, path: &str| crate::support::request(port, path, &[]).0.status;
    for (options, hidden, shown) in [
        (&["--target-config=tokens"][..], &["/tokens"][..], &["/page", "/many/one"][..]),
        (&["--token-plugin=TokenFileName", "--token-source=many"], &["/many/one"], &["/page"]),
        (
            &["--token-plugin=TokenFile", "--token-source-file=source"],
            &["/source", "/many/one"],
            &["/page", "/tokens"],
        ),
    ] {
        let (_websockify, port) = bridge(&directory, &[options, &["--web=."]].concat());
        for path in hidden {
            assert_eq!(status(port, path), 404, "{path}");
        }
        let (_, mut listing) = crate::support::request(port, "/many/", &["Connection: close"]);
        let listing = String::from_utf8(read_to_end(&mut listing)).unwrap();
        assert_eq!(listing.contains("\"./one\""), !hidden.contains(&"/many/one"), "{listing}");
        for path in shown {
            assert_eq!(status(port, path), 200, "{path}");
        }
    }
}

/// K1, F6: neither the tokens from before a SIGHUP nor those that are read on it are served.
#[test]
fn k1_no_tokens_of_a_source_read_later_are_served_as_files() {
    let directory = TempDir::new().unwrap();
    let at = |name: &str| directory.path().join(name);
    for name in ["first", "second"] {
        std::fs::write(at(name), "a: b:1\n").unwrap();
    }
    let status = |port: u16, path: &str| crate::support::request(port, path, &[]).0.status;
    // At first the source is a FIFO, as with a shell's <(command).
    nix::unistd::mkfifo(&at("source"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let source = at("source");
    let writer = thread::spawn(move || std::fs::write(source, "first\n"));
    let options = ["--token-plugin=TokenFile", "--token-source-file=source", "--web=."];
    let (websockify, port) = bridge(&directory, &options);
    writer.join().unwrap().unwrap();
    assert_eq!((status(port, "/first"), status(port, "/second")), (404, 200));
    std::fs::remove_file(at("source")).unwrap();
    std::fs::write(at("source"), "second\n").unwrap();
    websockify.signal(Signal::SIGHUP);
    websockify.wait_for_log(&["tokens are read again"]);
    assert_eq!((status(port, "/first"), status(port, "/second")), (404, 404));
}

/// K1, K2: the file is read again on SIGHUP.
#[test]
fn k1_the_source_may_stand_in_a_file() {
    let (one, two) = (named("one"), named("two"));
    let directory = TempDir::new().unwrap();
    let write =
        |name: &str, text: String| std::fs::write(directory.path().join(name), text).unwrap();
    write("first", format!("a: {}\n", one.target()));
    write("second", format!("a: {}\n", two.target()));
    write("source", "first\n".into());
    let options = ["--token-plugin=TokenFile", "--token-source-file=source"];
    let (websockify, port) = bridge(&directory, &options);
    assert_eq!(by_token(port, "a"), Ok("one".into()));
    write("source", "second\n".into());
    assert_eq!(by_token(port, "a"), Ok("one".into()));
    websockify.signal(Signal::SIGHUP);
    websockify.wait_for_log(&["tokens are read again"]);
    assert_eq!(by_token(port, "a"), Ok("two".into()));
    for (text, why) in
        [("none", "none: no such file"), ("", "it is empty"), ("a\nb\n", "more than one line")]
    {
        write("source", text.into());
        websockify.signal(Signal::SIGHUP);
        websockify.wait_for_log(&["WARN", "the old tokens stay in use", why]);
        assert_eq!(by_token(port, "a"), Ok("two".into()));
    }
}
