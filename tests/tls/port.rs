//! One port for plain and encrypted clients (T1).

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use super::{bridge_in, directory};
use crate::support::{
    Caller, Client, Service, connect, echo_service, field, frame, needs, read_frame, read_to_end,
    request, wait_until,
};

#[test]
fn t1_plain_and_tls_clients_side_by_side() {
    let service = echo_service();
    let (directory, _) = directory();
    let (websockify, port) = bridge_in(&directory, &service, &[]);
    let mut plain = Client::connect(port);
    let mut new = Caller::anonymous().session(port, &[]).unwrap();
    let mut old = Caller::old().session(port, &[]).unwrap();
    for _ in 0..3 {
        plain.send("hello");
        assert_eq!(plain.read(5), b"hello");
        new.exchange(b"new");
        old.exchange(b"old");
    }
    assert_eq!(request(port, "/", &[]).0.status, 405);
    let web = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    assert_eq!(Caller::anonymous().call(port).unwrap().request(web), Ok(405));
    for (session, version) in [(2, "1.3"), (3, "1.2")] {
        let line = websockify.wait_for_log(&["session started", &format!(": {session}, ")]);
        assert_eq!(field(&line, "tls"), version);
    }
    assert!(!websockify.logged(&["session started", ": 1, "])[0].contains("tls"));
}

/// T1, B4: three megabytes, all of which the target has before it answers.
#[test]
fn t1_bulk_passes_unharmed_and_the_end_is_in_order() {
    let service = Service::new(|mut stream| {
        let mut all = vec![0; 3_000_000];
        let _ = stream.read_exact(&mut all).and_then(|()| stream.write_all(&all));
        let _ = stream.read(&mut [0]);
    });
    let (directory, _) = directory();
    let (websockify, port) = bridge_in(&directory, &service, &[]);
    let mut session = Caller::anonymous().session(port, &[]).unwrap().0;
    let payload: Vec<u8> =
        (0..60_000_u32).map(|index| u8::try_from(index % 251).unwrap()).collect();
    for _ in 0..50 {
        session.write_all(&frame(0x82, &payload)).unwrap();
    }
    let mut echoed = Vec::new();
    while echoed.len() < 50 * payload.len() {
        echoed.extend(read_frame(&mut session));
    }
    assert!(echoed.chunks(payload.len()).all(|piece| piece == payload));
    session.write_all(&frame(0x88, &[3, 0xe8])).unwrap();
    let mut rest = Vec::new();
    // Without a close_notify of the server's this is an error.
    session.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, [0x88, 2, 3, 0xe8]);
    let line = websockify.wait_for_log(&["session ended"]);
    assert!(line.contains(" 3000000 received, code 1000"), "{line}");
    // A client that sends no close_notify has ended like any other.
    drop(Caller::anonymous().session(port, &[]).unwrap());
    websockify.wait_for_log(&["session ended", "client ended without a close frame"]);
}

#[test]
fn t1_ssl_only_tells_plain_clients_so() {
    let service = echo_service();
    let (directory, _) = directory();
    let (websockify, port) = bridge_in(&directory, &service, &["--ssl-only"]);
    let upgrade = ["Upgrade: websocket", "Connection: Upgrade"];
    for headers in [&[][..], &upgrade] {
        let (head, mut stream) = request(port, "/", headers);
        assert_eq!(head.status, 400);
        let text = String::from_utf8(read_to_end(&mut stream)).unwrap();
        assert!(text.contains("encrypted"), "{text}");
    }
    websockify.wait_for_log(&["refused an unencrypted client", ": 127.0.0.1"]);
    Caller::anonymous().session(port, &[]).unwrap().exchange(b"hello");
}

#[test]
fn t1_an_sslv2_hello_gets_an_alert_and_a_line() {
    let service = echo_service();
    let (directory, _) = directory();
    let (websockify, port) = bridge_in(&directory, &service, &[]);
    let mut old = connect(port);
    // CLIENT-HELLO of SSLv2 that offers version 3.1, as OpenSSL 0.9.8 sent it.
    old.write_all(b"\x80\x2e\x01\x03\x01\x00\x15\x00\x00\x00\x10").unwrap();
    // protocol_version, fatal.
    assert_eq!(read_to_end(&mut old), b"\x15\x03\x03\x00\x02\x02\x46");
    websockify.wait_for_log(&["SSLv2"]);
}

#[test]
fn t1_garbage_behind_the_first_byte_ends_that_connection_only() {
    let service = echo_service();
    let (directory, _) = directory();
    let (_websockify, port) = bridge_in(&directory, &service, &[]);
    for garbage in [&b"\x16"[..], b"\x16\x03", &[0x16; 16_000], b"\x16\x03\x01\xff\xff\x01"] {
        let mut stream = connect(port);
        // The connection may be reset before all is written.
        let _ = stream.write_all(garbage);
        stream.shutdown(std::net::Shutdown::Write).unwrap_or_default();
        let answer = read_to_end(&mut stream);
        assert!(answer.is_empty() || answer[0] == 0x15, "{answer:?}");
    }
    Caller::anonymous().session(port, &[]).unwrap().exchange(b"hello");
}

/// T1: the tools that people try a port with.
#[test]
fn t1_curl_and_openssl_connect() {
    if !needs(&["curl", "openssl"]) {
        return;
    }
    let service = echo_service();
    let (directory, _) = directory();
    let (_websockify, port) = bridge_in(&directory, &service, &[]);
    let said = |command: &mut Command| {
        let output = command.stdin(Stdio::null()).output().unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    let url = format!("https://localhost:{port}/");
    let format = "%{http_code} %{http_version}";
    let curl = said(Command::new("curl").args(["-sk", "-o/dev/null", "-w", format, &url]));
    assert_eq!(curl, "405 1.1");
    for (option, version) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let address = format!("127.0.0.1:{port}");
        let openssl = said(Command::new("openssl").args([
            "s_client",
            "-connect",
            &address,
            "-alpn",
            "h2,http/1.1",
            option,
        ]));
        assert!(
            openssl.contains(version) && openssl.contains("ALPN protocol: http/1.1"),
            "{openssl}"
        );
    }
}

/// B2: the answer to an old client repeats the session's URL, which is another over TLS.
#[test]
fn b2_an_old_client_over_tls_is_answered_with_wss() {
    let service = echo_service();
    let (directory, _) = directory();
    let (_websockify, port) = bridge_in(&directory, &service, &[]);
    let mut session = Caller::anonymous().call(port).unwrap().0;
    let head = "GET /x HTTP/1.1\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n\
        Host: example.com\r\nOrigin: http://example.com\r\n\r\n";
    session.write_all(head.as_bytes()).unwrap();
    session.write_all(b"\x00aGVsbG8=\xff").unwrap();
    let expected = b"HTTP/1.1 101 Web Socket Protocol Handshake\r\nUpgrade: WebSocket\r\n\
        Connection: Upgrade\r\nWebSocket-Origin: http://example.com\r\n\
        WebSocket-Location: wss://example.com/x\r\n\r\n\x00aGVsbG8=\xff";
    let mut answer = vec![0; expected.len()];
    session.read_exact(&mut answer).unwrap();
    assert_eq!(String::from_utf8_lossy(&answer), String::from_utf8_lossy(expected));
}

/// A TLS 1.0 ClientHello (RFC 2246, section 7.4.1.2) with one cipher.
fn hello_of_tls_1_0() -> Vec<u8> {
    let hello = [&[3, 1][..], &[7; 32], &[0], &[0, 2, 0, 0x2f], &[1, 0]].concat();
    let length = u8::try_from(hello.len()).unwrap();
    [&[0x16, 3, 1, 0, length + 4, 1, 0, 0, length][..], &hello].concat()
}

#[test]
fn f25_a_handshake_that_fails_leaves_a_record_that_says_what_it_means() {
    let service = echo_service();
    let (directory, _) = directory();
    let (websockify, port) = bridge_in(&directory, &service, &[]);
    let failed = ["INFO", "TLS handshake failed", ": 127.0.0.1"];
    if needs(&["curl"]) {
        for version in ["1.2", "1.3"] {
            let mut curl = Command::new("curl");
            curl.args(["--silent", "--ipv4", "--tls-max", version, &format!("--tlsv{version}")]);
            let status = curl.arg(format!("https://localhost:{port}/")).status().unwrap();
            assert_eq!(status.code(), Some(60), "it does not know the authority");
        }
        wait_until("two records", || {
            let parts = [&failed[..], &["the client does not trust our certificate", "UnknownCA"]];
            websockify.logged(&parts.concat()).len() == 2
        });
    }
    for (bytes, meaning) in [
        (hello_of_tls_1_0(), "no version of TLS that we do"),
        (b"\x16\x03\x01\x00\x05noise".to_vec(), "is not TLS"),
        (b"\x16".to_vec(), "the client broke it off"),
    ] {
        let mut stream = connect(port);
        stream.write_all(&bytes).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        read_to_end(&mut stream);
        websockify.wait_for_log(&[&failed[..], &[meaning]].concat());
    }
    // A health check that sends nothing gets no line in the log.
    let lines = websockify.err.lines().len();
    drop(connect(port));
    Caller::anonymous().session(port, &[]).unwrap().exchange(b"hello");
    websockify.wait_for_log(&["session ended"]);
    assert_eq!(websockify.err.lines().len(), lines + 2);
}

/// F9, F25: strangers cannot fill the log: beyond ten, such records are counted only, unless `-v` is given.
#[test]
fn f25_f9_strangers_records_are_counted_when_they_are_many() {
    let service = echo_service();
    let (directory, _) = directory();
    for (options, each) in [(&[][..], false), (&["-v"], true)] {
        let (mut websockify, port) = bridge_in(&directory, &service, options);
        for _ in 0..30 {
            let mut stream = connect(port);
            stream.write_all(b"\x16\x03\x01\x00\x05noise").unwrap();
            read_to_end(&mut stream);
            let head = ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 9"];
            assert_eq!(request(port, "/", &head).0.status, 426);
        }
        assert_eq!(websockify.stop(), 0);
        wait_until("the end of the log", || websockify.err.ended());
        for record in [" TLS handshake failed", " refused a handshake"] {
            let lines = websockify.logged(&[record]);
            let (count, logged): (Vec<_>, Vec<_>) =
                lines.iter().partition(|line| line.contains("20 more like this were not logged:"));
            assert_eq!(logged.len(), if each { 30 } else { 10 }, "{lines:?}");
            assert_eq!(count.len(), usize::from(!each), "{lines:?}");
        }
    }
}
