//! Headers that say which client a connection is of (A3), written by the tests: in ways that no well-behaved proxy has.

use std::fs;
use std::io::{Read, Write};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::websockify;
use super::whose::upgraded;
use crate::support::{
    Authority, Caller, SERVERS, UPGRADE, Websockify, ask, connect, connect_unix, dial_from,
    echo_service, read_to_end, wait_until, write_script,
};

/// A3: what an untrusted peer says of its address changes nothing, in whichever way it says it.
#[test]
fn a3_what_a_stranger_says_of_himself_changes_nothing() {
    let (websockify, port) = websockify("--trusted-proxy=127.0.0.9");
    let headers = ["X-Forwarded-For: 198.51.100.1", "Forwarded: for=198.51.100.1"];
    let mut stream = dial_from([127, 0, 0, 7], port);
    assert_eq!(upgraded(&mut stream, &headers), 101);
    let started = websockify.wait_for_log(&["session started: 1, 127.0.0.7:"]);
    assert!(!started.contains(" via "), "{started}");
    let (websockify, port) = self::websockify("--trusted-proxy=127.0.0.9 --proxy-protocol");
    let mut stream = dial_from([127, 0, 0, 7], port);
    stream.write_all(b"PROXY TCP4 198.51.100.1 203.0.113.1 1 2\r\n").unwrap();
    assert_eq!(upgraded(&mut stream, &[]), 400);
    assert_eq!(upgraded(&mut dial_from([127, 0, 0, 8], port), &headers), 101);
    let started = websockify.wait_for_log(&["session started: 1, 127.0.0.8:"]);
    assert!(!started.contains(" via "), "{started}");
    // With `--proxy-protocol` the headers of requests do not count, not even those of a trusted proxy.
    let mut stream = dial_from([127, 0, 0, 9], port);
    stream.write_all(b"PROXY TCP4 127.0.0.9 203.0.113.1 1 2\r\n").unwrap();
    assert_eq!(upgraded(&mut stream, &headers), 101);
    websockify.wait_for_log(&["session started: 2, 127.0.0.9:1 via 127.0.0.9:"]);
}

/// A3: the log says which client a recording is of.
#[test]
fn a3_the_record_of_a_recording_names_the_client() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("session");
    let options = format!("--trusted-proxy=127.0.0.9 --record={}", path.display());
    let (websockify, port) = websockify(&options);
    let mut stream = dial_from([127, 0, 0, 9], port);
    assert_eq!(upgraded(&mut stream, &["X-Forwarded-For: 198.51.100.1"]), 101);
    let file = format!(" to {}.1", path.display());
    websockify.wait_for_log(&["recording session 1 of 198.51.100.1 via 127.0.0.9:", &file]);
}

/// A3: a trusted proxy may pass on headers by which a client pretends to be another one.
#[test]
fn a3_headers_that_are_repeated_folded_or_malformed_change_nothing() {
    let (websockify, port) = websockify("--trusted-proxy=127.0.0.1 --verbose");
    let forged: [&[&str]; 7] = [
        &["X-Forwarded-For: 198.51.100.1", "X-Forwarded-For: 198.51.100.1"],
        &["Forwarded: for=198.51.100.1", "forwarded: for=198.51.100.1"],
        &["X-Forwarded-For: 198.51.100.1, x"],
        &["X-Forwarded-For: 198.51.100.1:x"],
        &["Forwarded: for=198.51.100.1;for=198.51.100.2"],
        &["Forwarded: for=\"198.51.100.1"],
        &["Forwarded: for=198.51.100.1", "X-Forwarded-For: 198.51.100.2"],
    ];
    for (number, headers) in forged.iter().enumerate() {
        assert_eq!(upgraded(&mut connect(port), headers), 101, "{headers:?}");
        let started = format!("session started: {}, 127.0.0.1:", number + 1);
        assert!(!websockify.wait_for_log(&[&started]).contains(" via "), "{headers:?}");
        let doubt = "cannot tell whose request a trusted proxy has passed on: 127.0.0.1: ";
        wait_until("a warning", || websockify.logged(&["WARN", doubt]).len() == number + 1);
    }
    // RFC 9112, section 5.2: a request with a folded line may be answered with 400, and is.
    let folded = ["X-Forwarded-For: 198.51.100.1,\r\n 198.51.100.2"];
    assert_eq!(upgraded(&mut connect(port), &folded), 400);
    assert_eq!(websockify.logged(&["198.51.100."]), Vec::<String>::new());
}

/// A3: a proxy uses one connection for the requests of many clients.
#[test]
fn a3_each_request_of_a_connection_has_its_own_client() {
    let (websockify, port) = websockify("--trusted-proxy=127.0.0.1 --verbose");
    let mut stream = connect(port);
    for client in ["198.51.100.1", "198.51.100.2"] {
        let head = ask(&mut stream, "/x", &[&format!("X-Forwarded-For: {client}")]);
        assert_eq!(head.status, 405);
        let mut body = vec![0; head.header("content-length").unwrap().parse().unwrap()];
        stream.read_exact(&mut body).unwrap();
        websockify.wait_for_log(&[&format!("web request: {client}, GET")]);
    }
    assert_eq!(upgraded(&mut stream, &["X-Forwarded-For: 2001:db8::3, 127.0.0.1"]), 101);
    websockify.wait_for_log(&["session started: 1, 2001:db8::3 via 127.0.0.1:"]);
}

/// A3, B2: the heads of the oldest handshakes are read by websockify's own parser, not by hyper.
#[test]
fn a3_hixie_sessions_have_their_client_too() {
    let (websockify, port) = websockify("--trusted-proxy=127.0.0.1");
    let mut stream = connect(port);
    let head = "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n\
        Origin: http://x\r\nForwarded: for=\"[2001:db8::3]:9\"\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    websockify.wait_for_log(&["session started: 1, [2001:db8::3]:9 via 127.0.0.1:", "hixie"]);
}

/// A3, T6: a trusted proxy must send its header, whole, and before the deadline of a request head.
#[test]
fn a3_a_trusted_proxy_must_send_its_header_in_time() {
    let (websockify, port) = websockify("--trusted-proxy=127.0.0.1 --proxy-protocol");
    let began = Instant::now();
    let mut silent = connect(port);
    let mut half = connect(port);
    half.write_all(b"PROXY TCP4 198.51").unwrap();
    for (bytes, why) in [
        (&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], "does not begin with a PROXY header"),
        (b"\x16\x03\x01", "does not begin with a PROXY header"),
        (b"PROXY TCP4 198.51.100.1 x 1 2\r\n", "the line of its PROXY header"),
        (b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c", "version or command"),
    ] {
        let mut stream = connect(port);
        stream.write_all(bytes).unwrap();
        assert_eq!(read_to_end(&mut stream), b"", "{bytes:?}");
        let line = "cannot tell whose connection a trusted proxy has passed on: 127.0.0.1: ";
        websockify.wait_for_log(&["WARN", line, why]);
    }
    assert!(began.elapsed() < Duration::from_secs(9));
    for staller in [&mut silent, &mut half] {
        staller.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        assert_eq!(read_to_end(staller), b"");
    }
    assert!(began.elapsed() >= Duration::from_secs(9), "not before their time");
}

/// A3: however the bytes are split, no byte behind a PROXY header is taken for a part of it.
#[test]
fn a3_a_header_ends_where_it_ends() {
    let directory = TempDir::new().unwrap();
    let certificate = directory.path().join("self.pem");
    fs::write(&certificate, SERVERS.issue("localhost").pem()).unwrap();
    let (websockify, port) = websockify(&format!(
        "--trusted-proxy=127.0.0.1 --proxy-protocol --cert={}",
        certificate.display()
    ));
    let addresses = [198, 51, 100, 1, 203, 0, 113, 1, 0, 9, 0, 80];
    let long = [&addresses[..], &[0xea, 0x03, 0xe8], &[7; 1000]].concat();
    let binary = |addresses: &[u8]| {
        let length = u16::try_from(addresses.len()).unwrap().to_be_bytes();
        [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11"[..], &length, addresses].concat()
    };
    let headers = [
        b"PROXY TCP4 198.51.100.1 203.0.113.1 9 80\r\n".to_vec(),
        binary(&addresses),
        binary(&long),
    ];
    let request = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n\r\n", UPGRADE.join("\r\n"));
    let mut number = 0;
    for header in headers {
        let mut whole = connect(port);
        whole.write_all(&[&header[..], request.as_bytes()].concat()).unwrap();
        let mut pieces = connect(port);
        pieces.set_nodelay(true).unwrap();
        for byte in &header {
            pieces.write_all(&[*byte]).unwrap();
        }
        pieces.write_all(request.as_bytes()).unwrap();
        let mut encrypted = connect(port);
        encrypted.write_all(&header).unwrap();
        let mut caller = Caller::anonymous().call_over(encrypted).unwrap();
        assert_eq!(caller.upgrade(13, &[]), Ok(101));
        number += 3;
        let named = || websockify.logged(&["session started", ", 198.51.100.1:9 via 127.0.0.1:"]);
        wait_until("three sessions more", || named().len() == number);
        drop((whole, pieces));
    }
}

/// A3, U3: a proxy on this machine may come through a Unix socket.
#[test]
fn a3_a_proxy_at_a_unix_socket_names_clients() {
    let directory = TempDir::new().unwrap();
    let socket = directory.path().join("socket");
    let target = echo_service().target();
    let listen = format!("--unix-listen={} {target} --trusted-proxy=unix", socket.display());
    let user = nix::unistd::geteuid();
    let via = format!(" via unix:uid={user},pid={}", std::process::id());
    let mut websockify = Websockify::start(&listen);
    websockify.wait_until_open();
    let mut stream = connect_unix(&socket).unwrap();
    let request = format!(
        "GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 198.51.100.1\r\n{}\r\n\r\n",
        UPGRADE.join("\r\n")
    );
    stream.write_all(request.as_bytes()).unwrap();
    websockify.wait_for_log(&["session started: 1, 198.51.100.1", &via]);
    drop(stream);
    assert_eq!(websockify.stop(), 0);
    let websockify = Websockify::start(&format!("{listen} --proxy-protocol"));
    websockify.wait_until_open();
    let mut stream = connect_unix(&socket).unwrap();
    let request = request.replace("198.51.100.1", "198.51.100.2");
    stream.write_all(b"PROXY TCP6 2001:db8::7 ::1 9 80\r\n").unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    websockify.wait_for_log(&["session started: 1, [2001:db8::7]:9", &via]);
}

/// A3, F11: a client that guesses passwords through a proxy has to wait, and no other client of the proxy does; denials
/// name the client.
#[test]
fn a3_penalties_and_denials_are_the_clients() {
    let options = "--trusted-proxy=127.0.0.1 --auth-plugin=BasicHTTPAuth --auth-source=a:b";
    let (websockify, port) = websockify(options);
    let asked = |client: &str, credentials: &str| {
        let named = format!("X-Forwarded-For: {client}");
        let credentials = format!("Authorization: Basic {credentials}");
        upgraded(&mut connect(port), &[&named, &credentials])
    };
    // After so many wrong passwords at once the address is refused for a while.
    let _guesses: Vec<_> = (0..10)
        .map(|_| {
            let guess = ["X-Forwarded-For: 198.51.100.1", "Authorization: Basic YTpj"];
            let lines: String =
                UPGRADE.into_iter().chain(guess).flat_map(|line| [line, "\r\n"]).collect();
            let mut stream = connect(port);
            write!(stream, "GET / HTTP/1.1\r\nHost: x\r\n{lines}\r\n").unwrap();
            stream
        })
        .collect();
    wait_until("ten denials", || {
        websockify.logged(&["denied a client: 198.51.100.1: "]).len() == 10
    });
    assert_eq!(asked("198.51.100.1", "YTpi"), 429, "even with the right one");
    assert_eq!(asked("198.51.100.2", "YTpi"), 101);
    websockify.wait_for_log(&["session started: 1, 198.51.100.2 via 127.0.0.1:"]);
}

/// A helper that lets in clients of one address only.
const HELPER: &str = r#"#!/bin/sh
while read -r line; do
    number=${line#*'"id":'} number=${number%%,*}
    case $line in
        *'"client":"198.51.100.1"'*) echo '{"id":'$number',"allowed":true}' ;;
        *) echo '{"id":'$number',"allowed":false}' ;;
    esac
done
"#;

/// A3, U9: a helper is told of the client.
#[test]
fn a3_a_helper_is_told_who_the_client_is() {
    let directory = TempDir::new().unwrap();
    let helper = directory.path().join("helper");
    write_script(&helper, HELPER);
    let (websockify, port) = websockify(&format!(
        "--trusted-proxy=127.0.0.1 --auth-plugin=Helper --auth-source={}",
        helper.display()
    ));
    let asked =
        |client: &str| upgraded(&mut connect(port), &[&format!("X-Forwarded-For: {client}")]);
    assert_eq!(asked("198.51.100.1"), 101);
    assert_eq!(asked("198.51.100.2"), 403);
    websockify.wait_for_log(&["denied a client: 198.51.100.2: the helper says"]);
}

/// A3, T3: the certificate is that of the TLS peer: of the proxy where it names clients in request headers, and of the
/// client behind a PROXY header.
#[test]
fn a3_t3_a_certificate_is_of_who_shakes_hands() {
    let directory = TempDir::new().unwrap();
    let at = |name: &str| directory.path().join(name);
    let clients = Authority::new("clients");
    fs::write(at("self.pem"), SERVERS.issue("localhost").pem()).unwrap();
    fs::write(at("ca.pem"), clients.pem()).unwrap();
    let options = format!(
        "--trusted-proxy=127.0.0.1 --cert={} --verify-client --cafile={}",
        at("self.pem").display(),
        at("ca.pem").display()
    );
    let joe = Caller::with(&clients.issue("Joe"), &[]);
    let named = ["X-Forwarded-For: 198.51.100.1"];
    let (websockify, port) = self::websockify(&options);
    assert_eq!(joe.call(port).unwrap().upgrade(13, &named), Ok(101));
    let started = websockify.wait_for_log(&["session started: 1, 198.51.100.1 via 127.0.0.1:"]);
    assert!(started.contains("name \"Joe\""), "{started}");
    assert!(Caller::anonymous().session(port, &named).is_err(), "whoever it names");
    let (websockify, port) = self::websockify(&format!("{options} --proxy-protocol"));
    let passed_on = || {
        let mut stream = connect(port);
        stream.write_all(b"PROXY TCP4 198.51.100.1 203.0.113.1 9 80\r\n").unwrap();
        stream
    };
    assert_eq!(joe.call_over(passed_on()).unwrap().upgrade(13, &[]), Ok(101));
    let started = websockify.wait_for_log(&["session started: 1, 198.51.100.1:9 via 127.0.0.1:"]);
    assert!(started.contains("name \"Joe\""), "{started}");
    let refused = Caller::anonymous().call_over(passed_on());
    assert!(refused.and_then(|mut connection| connection.upgrade(13, &[])).is_err());
    websockify.wait_for_log(&["refused", ": 198.51.100.1"]);
}
