//! Old clients: drafts Hixie-75 and -76, and base64 (B1, B2, B5).

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::mpsc;

use super::bridge_to;
use crate::support::{
    DEADLINE, Service, UPGRADE, connect, echo_service, field, frame, read_to_end, request, root,
    skip_even_in_ci,
};

/// The handshake of draft -76, section 1.2, with another path and sub-protocol, and with a port in `Host`.
pub(super) const HIXIE_76: &[u8] = b"GET /path?q=1 HTTP/1.1\r\nHost: example.com:8080\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key2: 12998 5 Y3 1  .P00\r\n\
    Sec-WebSocket-Protocol: base64\r\nUpgrade: WebSocket\r\n\
    Sec-WebSocket-Key1: 4 @1  46546xW%0l 1 5\r\nOrigin: http://example.com\r\n\r\n^n:ds[4U";
const HIXIE_75: &[u8] = b"GET /x HTTP/1.1\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n\
    Host: example.com\r\nOrigin: http://example.com\r\nWebSocket-Protocol: base64\r\n\r\n";

/// What websockify 0.3.0 answers.
pub(super) const ANSWER_76: &str = "HTTP/1.1 101 Web Socket Protocol Handshake\r\n\
    Upgrade: WebSocket\r\nConnection: Upgrade\r\nSec-WebSocket-Origin: http://example.com\r\n\
    Sec-WebSocket-Location: ws://example.com:8080/path?q=1\r\n\
    Sec-WebSocket-Protocol: base64\r\n\r\n8jKS'y:G*Co,Wxa-";
const ANSWER_75: &str = "HTTP/1.1 101 Web Socket Protocol Handshake\r\n\
    Upgrade: WebSocket\r\nConnection: Upgrade\r\nWebSocket-Origin: http://example.com\r\n\
    WebSocket-Location: ws://example.com/x\r\nWebSocket-Protocol: base64\r\n\r\n";

/// A head without its sub-protocol. If none is offered, or an unknown one, none is confirmed, and frames are base64 all
/// the same.
fn without_protocol(text: &str) -> String {
    let lines = text.split_inclusive("\r\n").filter(|line| !line.contains("WebSocket-Protocol"));
    lines.collect()
}

/// A session of an old client, after its handshake.
pub(super) fn connect_hixie(port: u16, head: &[u8], answer: &str) -> TcpStream {
    let mut stream = connect(port);
    stream.write_all(head).unwrap();
    expect(&mut stream, answer.as_bytes());
    stream
}

pub(super) fn expect(stream: &mut TcpStream, bytes: &[u8]) {
    let mut read = vec![0; bytes.len()];
    stream.read_exact(&mut read).unwrap();
    assert_eq!(String::from_utf8_lossy(&read), String::from_utf8_lossy(bytes));
}

#[test]
fn b2_hixie_75_and_76_are_answered_byte_for_byte_as_0_3_0_does() {
    let service = echo_service();
    let (websockify, port) = bridge_to(&service, "");
    for (head, answer) in [(HIXIE_76, ANSWER_76), (HIXIE_75, ANSWER_75)] {
        let head = str::from_utf8(head).unwrap();
        for (head, answer) in [
            (head.to_owned(), answer.to_owned()),
            (without_protocol(head), without_protocol(answer)),
            (head.replace("base64", "binary"), without_protocol(answer)),
        ] {
            let mut stream = connect_hixie(port, head.as_bytes(), &answer);
            stream.write_all(b"\x00aGVsbG8=\xff").unwrap();
            expect(&mut stream, b"\x00aGVsbG8=\xff");
        }
    }
    let line = websockify.wait_for_log(&["session started", "hixie-76"]);
    assert_eq!((field(&line, "version"), field(&line, "path")), ("hixie-76", "/path?q=1"));
    websockify.wait_for_log(&["session started", "hixie-75"]);
}

#[test]
fn b2_hixie_76_closes_in_order() {
    let (tell, told) = mpsc::channel();
    let service = Service::new(move |mut stream| {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        tell.send(bytes).unwrap();
    });
    let (_websockify, port) = bridge_to(&service, "");
    let mut stream = connect(port);
    // The eight bytes, a frame and the close in one write: websockify 0.3.0 loses the frame.
    stream.write_all(&[HIXIE_76, b"\x00aGVsbG8=\xff\xff\x00"].concat()).unwrap();
    expect(&mut stream, ANSWER_76.as_bytes());
    let rest = read_to_end(&mut stream);
    assert!(rest.ends_with(b"\xff\x00"), "{rest:?}");
    assert_eq!(told.recv_timeout(DEADLINE).unwrap(), b"hello");
}

/// websocket-client 0.4.1, which spoke Hixie-76, in Python 2.7. Debian has neither any more, so
/// this is an extra: the tests above say the same with bytes written by hand. It runs where
/// `PYTHON2` names an interpreter that can import it.
#[test]
fn b2_a_real_old_client() {
    let Some(python) = std::env::var_os("PYTHON2") else {
        skip_even_in_ci("PYTHON2 is not set (an extra)");
        return;
    };
    let service = echo_service();
    let (_websockify, port) = bridge_to(&service, "");
    let output = Command::new(python)
        .arg(root().join("tests/plain/scripts/hixie.py"))
        .arg(format!("ws://127.0.0.1:{port}/old"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "echoed\nclosed\n");
}

/// A session whose sub-protocol is base64.
pub(super) fn base64_session(port: u16) -> TcpStream {
    let headers = [&UPGRADE[..], &["Sec-WebSocket-Protocol: chat, base64"]].concat();
    let (head, stream) = request(port, "/", &headers);
    assert_eq!((head.status, head.header("sec-websocket-protocol")), (101, Some("base64")));
    stream
}

#[test]
fn b1_base64_where_binary_is_not_offered() {
    let service = echo_service();
    let (_websockify, port) = bridge_to(&service, "");
    let mut stream = base64_session(port);
    stream.write_all(&[frame(0x01, b"aGV"), frame(0x80, b"sbG8=")].concat()).unwrap();
    // The echo may come in two parts; each is complete by itself.
    let mut text = String::new();
    while !["aGVsbG8=", "aGU=bGxv", "aGU=bGw=bw==", "aGVsbA==bw=="].contains(&text.as_str()) {
        let mut head = [0; 2];
        stream.read_exact(&mut head).unwrap();
        assert_eq!(head[0], 0x81, "a text frame");
        let mut payload = vec![0; head[1].into()];
        stream.read_exact(&mut payload).unwrap();
        text.push_str(str::from_utf8(&payload).unwrap());
        assert!(text.len() <= 16, "{text}");
    }
    stream.write_all(&frame(0x81, b"not base64")).unwrap();
    let rest = read_to_end(&mut stream);
    assert_eq!(rest[2..4], 1007_u16.to_be_bytes(), "{rest:?}");
}
