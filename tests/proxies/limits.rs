//! Who may connect, and how often (A4).

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;

use tempfile::TempDir;

use super::websockify;
use super::whose::{haproxy, upgraded};
use crate::support::{
    Actor, Caller, Client, SERVERS, UPGRADE, Websockify, ask, connect, dial_from, free_port,
    has_ipv6, needs, read_to_end, text_of, try_ask, wait_until,
};

/// Whether 127.0.0.7 gets a session. While it has far too many connections, another one is closed without an answer.
fn has_place(port: u16) -> bool {
    let mut stream = dial_from([127, 0, 0, 7], port);
    try_ask(&mut stream, "/", &UPGRADE).is_ok_and(|head| head.status == 101)
}

/// A4: a client that may not connect is closed before anything is read, and costs no TLS handshake.
#[test]
fn a4_a_stranger_is_closed_before_tls() {
    let directory = TempDir::new().unwrap();
    let certificate = directory.path().join("self.pem");
    fs::write(&certificate, SERVERS.issue("localhost").pem()).unwrap();
    let options = "--allow-from=127.0.0.7 --verbose --cert=";
    let (websockify, port) = websockify(&format!("{options}{}", certificate.display()));
    assert_eq!(upgraded(&mut dial_from([127, 0, 0, 7], port), &[]), 101);
    // Closed although the client has sent nothing, so before any TLS handshake.
    let mut silent = dial_from([127, 0, 0, 8], port);
    assert_eq!(read_to_end(&mut silent), b"");
    websockify
        .wait_for_log(&["INFO closed a connection: 127.0.0.8: none of those who may connect"]);
    assert!(Caller::anonymous().call_over(dial_from([127, 0, 0, 9], port)).is_err());
    assert!(Caller::anonymous().call_over(dial_from([127, 0, 0, 7], port)).is_ok());
    // A header in which such a client names another address is not read either.
    let mut stream = dial_from([127, 0, 0, 9], port);
    let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 127.0.0.7\r\n\r\n");
    assert_eq!(read_to_end(&mut stream), b"");
    websockify.assert_logged(&["session started"], 1);
    assert_eq!(websockify.logged(&["TLS handshake failed"]), Vec::<String>::new());
}

/// A4: behind a proxy, a client that may not connect gets an answer, and others use the same connection.
#[test]
fn a4_behind_a_trusted_proxy_a_stranger_gets_403() {
    let directory = TempDir::new().unwrap();
    let certificate = directory.path().join("self.pem");
    fs::write(&certificate, SERVERS.issue("localhost").pem()).unwrap();
    let options = format!(
        "--trusted-proxy=127.0.0.1 --allow-from=198.51.100.0/25 --web={} --cert={}",
        directory.path().display(),
        certificate.display()
    );
    let (websockify, port) = websockify(&options);
    let mut stream = connect(port);
    for (client, status) in [("198.51.100.200", 403), ("198.51.100.1", 404), ("::1", 403)] {
        let head = ask(&mut stream, "/none", &[&format!("X-Forwarded-For: {client}")]);
        assert_eq!(head.status, status, "{client}");
        let length = head.header("content-length").map_or(0, |length| length.parse().unwrap());
        stream.read_exact(&mut vec![0; length]).unwrap();
    }
    websockify.wait_for_log(&[
        "INFO refused a client: 198.51.100.200: none of those who may connect (403 for \"/none\")",
    ]);
    // A proxy that names no client is refused: otherwise a client could hide behind it.
    for headers in [&[][..], &["X-Forwarded-For: 198.51.100.1", "X-Forwarded-For: 198.51.100.1"]] {
        assert_eq!(upgraded(&mut connect(port), headers), 403, "{headers:?}");
    }
    assert_eq!(upgraded(&mut stream, &["X-Forwarded-For: 198.51.100.1"]), 101);
    let (websockify, port) = self::websockify(&format!("{options} --proxy-protocol"));
    let introduced = |client: &str| {
        let mut stream = connect(port);
        write!(stream, "PROXY TCP4 {client} 203.0.113.1 1 2\r\n").unwrap();
        stream
    };
    assert_eq!(upgraded(&mut introduced("198.51.100.1"), &[]), 101);
    assert_eq!(upgraded(&mut introduced("198.51.100.200"), &[]), 403);
    let mut unknown = connect(port);
    unknown.write_all(b"PROXY UNKNOWN\r\n").unwrap();
    assert_eq!(upgraded(&mut unknown, &[]), 403);
    assert!(Caller::anonymous().call_over(introduced("198.51.100.1")).is_ok());
    assert!(Caller::anonymous().call_over(introduced("198.51.100.200")).is_err());
    websockify.wait_for_log(&[
        "WARN refused a TLS client that is none of those who may connect: 198.51.100.200",
    ]);
}

/// A4: connections without a request count too. A client with too many gets an answer; with far too many, further ones are
/// closed unread.
#[test]
fn a4_a_client_has_so_many_connections_and_others_have_theirs() {
    let directory = TempDir::new().unwrap();
    let certificate = directory.path().join("self.pem");
    fs::write(&certificate, SERVERS.issue("localhost").pem()).unwrap();
    let options = "--max-connections-per-client=3 --cert=";
    let (websockify, port) = websockify(&format!("{options}{}", certificate.display()));
    let half_open: Vec<_> = (0..2).map(|_| dial_from([127, 0, 0, 7], port)).collect();
    let mut session = dial_from([127, 0, 0, 7], port);
    assert_eq!(upgraded(&mut session, &[]), 101);
    let mut many = dial_from([127, 0, 0, 7], port);
    let head = ask(&mut many, "/", &UPGRADE);
    assert_eq!((head.status, head.header("retry-after")), (429, Some("10")));
    assert_eq!(head.header("connection"), Some("close"));
    assert_eq!(text_of(&read_to_end(&mut many)), "too many connections\n");
    websockify.wait_for_log(&["INFO refused a handshake: 127.0.0.7: too many connections (429 "]);
    assert_eq!(
        ask(&mut dial_from([127, 0, 0, 7], port), "/", &[]).status,
        429,
        "a web request, too"
    );
    let mut caller = Caller::anonymous().call_over(dial_from([127, 0, 0, 7], port)).unwrap();
    assert_eq!(caller.upgrade(13, &[]), Ok(429));
    drop(caller);
    assert_eq!(upgraded(&mut dial_from([127, 0, 0, 8], port), &[]), 101, "another");
    // Three connections beyond the limit get an answer, and a further one is closed at once. Fewer get one while others that
    // were answered are not closed yet.
    let mut told = Vec::new();
    wait_until("one that is closed at once", || {
        let mut further = dial_from([127, 0, 0, 7], port);
        further.set_read_timeout(Some(std::time::Duration::from_millis(500))).unwrap();
        let is_closed = matches!(further.read(&mut [0]), Ok(0));
        told.push(further);
        is_closed
    });
    let is_open = |stream: &TcpStream| {
        stream.set_nonblocking(true).unwrap();
        !matches!(stream.peek(&mut [0]), Ok(0))
    };
    wait_until("no more than three", || told.iter().filter(|one| is_open(one)).count() <= 3);
    let closed = "INFO closed a connection: 127.0.0.7: far too many connections of one client";
    websockify.wait_for_log(&[closed]);
    drop((half_open, told));
    wait_until("places again", || has_place(port));
    drop(session);
}

/// A4: through a proxy each client has its own limit, whichever of the proxy's connections it comes over.
#[test]
fn a4_clients_of_a_proxy_are_counted_each() {
    if !needs(&["haproxy"]) {
        return;
    }
    let directory = TempDir::new().unwrap();
    for (word, mode, directive) in
        [("", "http", "http-request set-header X-Forwarded-For %[src]"), ("send-proxy", "tcp", "")]
    {
        let protocol = if mode == "tcp" { "--proxy-protocol" } else { "" };
        let options = "--trusted-proxy=127.0.0.1 --max-connections-per-client=2";
        let (websockify, to) = websockify(&format!("{options} {protocol}"));
        let port = free_port();
        let text = format!(
            "listen bridge\n mode {mode}\n bind 127.0.0.1:{port}\n {directive}\n \
             server one 127.0.0.1:{to} {word}\n"
        );
        let _haproxy = haproxy(directory.path(), &text, port);
        let mut held: Vec<TcpStream> = Vec::new();
        for last in [7, 8] {
            for status in [101, 101, 429] {
                let mut stream = dial_from([127, 0, 0, last], port);
                assert_eq!(upgraded(&mut stream, &[]), status, "{mode} {last}");
                held.push(stream);
            }
        }
        websockify.wait_for_log(&["refused a handshake: 127.0.0.8: too many connections"]);
        held.clear();
        wait_until("places again", || has_place(port));
    }
}

/// A4: a network of IPv6 counts as one client, and not each of its addresses.
#[test]
fn a4_an_ipv6_network_is_one_client() {
    let options = "--trusted-proxy=127.0.0.1 --proxy-protocol --max-connections-per-client=1";
    let (_websockify, port) = websockify(options);
    let from = |client: &str| {
        let mut stream = connect(port);
        write!(stream, "PROXY TCP6 {client} ::1 1 2\r\n").unwrap();
        let status = upgraded(&mut stream, &[]);
        (stream, status)
    };
    let (_held, status) = from("2001:db8:0:1::1");
    assert_eq!(status, 101);
    assert_eq!(from("2001:db8:0:1:ffff::2").1, 429);
    assert_eq!(from("2001:db8:0:2::1").1, 101);
    if has_ipv6() {
        let (_websockify, port) = websockify("--allow-from=::1");
        let stream = TcpStream::connect(("::1", port)).unwrap();
        let mut client =
            Client::over(stream, (std::net::Ipv6Addr::LOCALHOST, port).into()).unwrap();
        client.send("hello");
        assert_eq!(client.read(5), b"hello");
        assert_eq!(read_to_end(&mut connect(port)), b"");
    }
}

/// A4, A3: a proxy that may connect itself lets in no client that it has not named. It can say that a request is its own.
#[test]
fn a4_whom_a_proxy_has_not_named_is_none_of_those_who_may_connect() {
    let options = "--trusted-proxy=127.0.0.1 --allow-from=127.0.0.1";
    let (_websockify, port) = websockify(options);
    let named = "X-Forwarded-For: 127.0.0.1";
    for (headers, status) in [
        (&[][..], 403),
        (&["X-Forwarded-For: x"], 403),
        (&[named, named], 403),
        (&["Forwarded: for=unknown"], 403),
        (&[named], 101),
    ] {
        assert_eq!(upgraded(&mut connect(port), headers), status, "{headers:?}");
    }
    let (_websockify, port) = self::websockify(&format!("{options} --proxy-protocol"));
    for (header, status) in [
        (&b"PROXY UNKNOWN\r\n"[..], 403),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\0\0\0", 403),
        (b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0", 101),
        (b"PROXY TCP4 127.0.0.1 127.0.0.1 9 80\r\n", 101),
    ] {
        let mut stream = connect(port);
        stream.write_all(header).unwrap();
        assert_eq!(upgraded(&mut stream, &[]), status, "{header:?}");
    }
}

/// A4, W4: a client that waits for the program counts.
#[test]
fn a4_a_client_that_is_held_counts() {
    let (port, directory) = (free_port(), TempDir::new().unwrap());
    let gate = directory.path().join("gate");
    let websockify = Websockify::start(&format!(
        "{port} --max-connections-per-client=1 --wrap-mode=respawn -- \
         {Actor} bind {port} listen accept greet close-listener await {} exit 0",
        gate.display()
    ));
    websockify.wait_until_open();
    let mut served = Client::connect(port);
    served.read_line();
    let mut held = dial_from([127, 0, 0, 7], port);
    assert_eq!(upgraded(&mut held, &[]), 101);
    assert_eq!(upgraded(&mut dial_from([127, 0, 0, 7], port), &[]), 429);
    assert_eq!(upgraded(&mut dial_from([127, 0, 0, 8], port), &[]), 101, "another is held too");
    websockify.assert_logged(&["program started"], 1);
    drop(held);
    wait_until("a place again", || upgraded(&mut dial_from([127, 0, 0, 7], port), &[]) == 101);
}

/// A4: behind a proxy that names clients in requests, a file counts for its client until it is sent.
#[test]
fn a4_a_file_that_is_being_sent_counts_for_its_client() {
    let directory = TempDir::new().unwrap();
    let file = fs::File::create(directory.path().join("large")).unwrap();
    file.set_len(64 << 20).unwrap();
    let (_websockify, port) = websockify(&format!(
        "--trusted-proxy=127.0.0.1 --max-connections-per-client=1 --web={}",
        directory.path().display()
    ));
    let status = |client: &str, path: &str| {
        let mut stream = connect(port);
        let head = ask(&mut stream, path, &[&format!("X-Forwarded-For: {client}")]);
        (head.status, stream)
    };
    let (first, stream) = status("198.51.100.1", "/large");
    assert_eq!(first, 200);
    assert_eq!(status("198.51.100.1", "/large").0, 429);
    assert_eq!(status("198.51.100.2", "/large").0, 200);
    drop(stream);
    wait_until("a place again", || status("198.51.100.1", "/none").0 == 404);
    // An answer that has been sent does not count any more.
    assert_eq!(status("198.51.100.1", "/none").0, 404);
}
