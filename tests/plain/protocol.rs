//! The protocol with the client (B1, B3, B5).

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc;

use tokio_tungstenite::tungstenite::Message;

use super::bridge_to;
use crate::support::{
    Client, DEADLINE, Head, Service, connect, echo_service, frame, read_frame, read_to_end,
    request, wait_until,
};

/// A key and its answer, RFC 6455 section 1.3.
const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
const ANSWER: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

fn handshake(port: u16, version: u8, more: &[&str]) -> (Head, TcpStream) {
    let version = format!("Sec-WebSocket-Version: {version}");
    let mut headers = vec!["Upgrade: websocket", "Connection: Upgrade", KEY, &version];
    headers.extend(more);
    request(port, "/", &headers)
}

#[test]
fn u10_a_named_sub_protocol_is_confirmed_and_its_frames_are_binary() {
    let service = echo_service();
    let (_websockify, port) = bridge_to(&service, "--subprotocol=mqtt,xmpp");
    for (offered, taken) in
        [("binary, mqtt", "mqtt"), ("base64, xmpp", "xmpp"), ("binary", "binary")]
    {
        let offer = format!("Sec-WebSocket-Protocol: {offered}");
        let (head, mut stream) = handshake(port, 13, &[&offer]);
        assert_eq!((head.status, head.header("sec-websocket-protocol")), (101, Some(taken)));
        stream.write_all(&frame(0x82, b"hello")).unwrap();
        let mut answer = [0; 7];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"\x82\x05hello", "{offered}");
    }
}

#[test]
fn b1_versions_7_8_and_13_are_spoken_and_others_told_so() {
    let service = echo_service();
    let (_websockify, port) = bridge_to(&service, "");
    for version in [7, 8, 13] {
        let (head, mut stream) = handshake(port, version, &[]);
        assert_eq!(head.status, 101, "version {version}");
        assert_eq!(head.header("sec-websocket-accept"), Some(ANSWER));
        assert_eq!(head.header("upgrade").map(str::to_lowercase).as_deref(), Some("websocket"));
        stream.write_all(&frame(0x82, b"hello")).unwrap();
        let mut answer = [0; 7];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"\x82\x05hello", "version {version}");
    }
    for version in [0, 6, 9, 14] {
        let (head, _) = handshake(port, version, &[]);
        assert_eq!(head.status, 426, "version {version}");
        let known = head.header("sec-websocket-version").unwrap();
        let known: Vec<_> = known.split(',').map(str::trim).collect();
        assert_eq!(known, ["13", "8", "7"]);
    }
}

#[test]
fn b1_of_the_offered_protocols_binary_is_taken_and_an_unknown_one_is_none() {
    let service = echo_service();
    let (_websockify, port) = bridge_to(&service, "");
    for (offered, taken) in [
        (&[][..], None),
        (&["Sec-WebSocket-Protocol: binary"][..], Some("binary")),
        (&["Sec-WebSocket-Protocol: base64, binary"], Some("binary")),
        (&["Sec-WebSocket-Protocol: chat", "Sec-WebSocket-Protocol: binary"], Some("binary")),
        (&["Sec-WebSocket-Protocol: chat, superchat"], None),
    ] {
        let (head, mut stream) = handshake(port, 13, offered);
        assert_eq!(head.status, 101);
        assert_eq!(head.header("sec-websocket-protocol"), taken, "{offered:?}");
        assert_eq!(head.header("sec-websocket-extensions"), None);
        stream.write_all(&frame(0x82, b"x")).unwrap();
        let mut answer = [0; 3];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"\x82\x01x");
    }
}

#[test]
fn h1_a_web_request_gets_405_without_web() {
    let service = echo_service();
    let (_websockify, port) = bridge_to(&service, "");
    assert_eq!(request(port, "/index.html", &[]).0.status, 405);
}

/// H3: reverse proxies use a connection for more than one request.
#[test]
fn h3_an_upgrade_may_follow_a_web_request_on_one_connection() {
    let service = echo_service();
    let (_websockify, port) = bridge_to(&service, "");
    let mut stream = connect(port);
    let common = "Host: localhost\r\nConnection:";
    write!(stream, "GET /a HTTP/1.1\r\n{common} keep-alive\r\n\r\n").unwrap();
    let upgrade = "Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13";
    write!(stream, "GET /b HTTP/1.1\r\n{common} {upgrade}\r\n{KEY}\r\n\r\n").unwrap();
    stream.write_all(&frame(0x82, b"hello")).unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\x82\x05hello") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
    }
    let text = String::from_utf8_lossy(&answer);
    assert!(text.starts_with("HTTP/1.1 405 ") && text.contains("HTTP/1.1 101 "), "{text}");
}

/// B3: the frame announces 2^40 bytes, and each part of it is forwarded when it arrives.
#[test]
fn b3_a_frame_is_forwarded_as_it_comes_whatever_it_claims_to_be() {
    let service = echo_service();
    let (websockify, port) = bridge_to(&service, "");
    let memory = || {
        let status = procfs::process::Process::new(websockify.pid()).unwrap().status().unwrap();
        status.vmhwm.unwrap()
    };
    let (_, mut stream) = handshake(port, 13, &[]);
    let before = memory();
    let mut head = vec![0x82, 0x80 + 127];
    head.extend((1_u64 << 40).to_be_bytes());
    head.extend([0; 4]);
    stream.write_all(&head).unwrap();
    // With a mask of zeroes the payload is sent as it is.
    let piece = vec![b'x'; 100_000];
    let mut back = stream.try_clone().unwrap();
    for _ in 0..100 {
        stream.write_all(&piece).unwrap();
        let mut left = piece.len();
        while left > 0 {
            left -= read_frame(&mut back).len();
        }
    }
    let grown = memory() - before;
    assert!(grown < 4096, "{grown} kB for 10 MB of a frame");
}

#[test]
fn b5_a_ping_is_answered_between_the_fragments_of_a_message() {
    let service = echo_service();
    let (_websockify, port) = bridge_to(&service, "");
    let mut client = Client::connect(port);
    let mut bytes = frame(0x02, b"hel");
    bytes.extend(frame(0x89, b"still there?"));
    client.stream().write_all(&bytes).unwrap();
    assert_eq!(client.next_control(), Message::Pong("still there?".into()));
    client.stream().write_all(&frame(0x80, b"lo")).unwrap();
    assert_eq!(client.read(5), b"hello");
    assert_eq!(client.close().code, 1000);
}

/// B5: each violation gets its code, and the target the end of its stream.
#[test]
fn b5_a_violation_gets_its_close_code() {
    let (tell, told) = mpsc::channel();
    let service = Service::new(move |mut stream| {
        let mut bytes = Vec::new();
        stream.write_all(b"x").unwrap();
        // What comes does not matter, only that the stream ends.
        let _ = stream.read_to_end(&mut bytes);
        tell.send(()).unwrap();
    });
    let (websockify, port) = bridge_to(&service, "");
    let table: [(&str, Vec<u8>, u16); 7] = [
        ("unmasked", vec![0x82, 0x01, b'x'], 1002),
        ("a reserved bit", frame(0xc2, b"x"), 1002),
        ("an unknown op code", frame(0x83, b"x"), 1002),
        ("a continuation of nothing", frame(0x80, b"x"), 1002),
        ("a fragmented ping", frame(0x09, b"x"), 1002),
        ("a close code of one byte", frame(0x88, b"x"), 1002),
        ("a close reason that is not UTF-8", frame(0x88, b"\x03\xe8\xff"), 1007),
    ];
    let cases = table.len();
    for (what, bytes, code) in table {
        let (_, mut stream) = handshake(port, 13, &[]);
        // Now the session has its target.
        let mut first = [0; 3];
        stream.read_exact(&mut first).unwrap();
        assert_eq!(&first, b"\x82\x01x");
        stream.write_all(&bytes).unwrap();
        let answer = read_to_end(&mut stream);
        assert_eq!(answer.first(), Some(&0x88), "{what}: {answer:?}");
        assert_eq!(answer.get(2..4), Some(&u16::to_be_bytes(code)[..]), "{what}");
        told.recv_timeout(DEADLINE).expect(what);
    }
    wait_until("all sessions ended", || websockify.logged(&["session", "ended"]).len() == cases);
}
