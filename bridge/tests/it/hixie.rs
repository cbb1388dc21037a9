//! Clients of the old drafts, and base64: B1, B2, B5.

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::harness::*;

const TEXT: u8 = 1;

/// The handshake of draft -76, section 1.2, but for its sub-protocol; [`KEY3`] has the eight bytes behind it.
pub(crate) const HEAD_76: &str = "GET /demo HTTP/1.1\r\nHost: example.com\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key2: 12998 5 Y3 1  .P00\r\nSec-WebSocket-Protocol: base64\r\n\
    Upgrade: WebSocket\r\nSec-WebSocket-Key1: 4 @1  46546xW%0l 1 5\r\n\
    Origin: http://example.com\r\n\r\n";
pub(crate) const KEY3: &[u8] = b"^n:ds[4U";
pub(crate) const HEAD_75: &str = "GET /demo HTTP/1.1\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n\
    Host: example.com\r\nOrigin: http://example.com\r\nWebSocket-Protocol: base64\r\n\r\n";

/// What websockify 0.3.0 answers to them.
pub(crate) const ANSWER_76: &str = "HTTP/1.1 101 Web Socket Protocol Handshake\r\nUpgrade: WebSocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Origin: http://example.com\r\n\
    Sec-WebSocket-Location: ws://example.com/demo\r\nSec-WebSocket-Protocol: base64\r\n\r\n\
    8jKS'y:G*Co,Wxa-";
pub(crate) const ANSWER_75: &str = "HTTP/1.1 101 Web Socket Protocol Handshake\r\nUpgrade: WebSocket\r\n\
    Connection: Upgrade\r\nWebSocket-Origin: http://example.com\r\n\
    WebSocket-Location: ws://example.com/demo\r\nWebSocket-Protocol: base64\r\n\r\n";

async fn send(stream: &mut TcpStream, bytes: &[u8]) {
    within(stream.write_all(bytes)).await.unwrap();
}

async fn expect(stream: &mut TcpStream, bytes: &[u8]) {
    let read = read_exact(stream, bytes.len()).await;
    assert_eq!(String::from_utf8_lossy(&read), String::from_utf8_lossy(bytes));
}

/// A session of an old draft: the client, which has had its answer, and the target.
async fn old_session(
    bridge_head: &str,
    key: &[u8],
    answer: &str,
) -> (Bridge, TcpStream, TcpStream) {
    let target = listener().await;
    let bridge = Bridge::to(&target);
    let mut stream = bridge.connect().await;
    send(&mut stream, &[bridge_head.as_bytes(), key].concat()).await;
    expect(&mut stream, answer.as_bytes()).await;
    (bridge, stream, accept(&target).await)
}

/// The key comes in the head's segment, later, or together with the first frame; here every split
/// of all the client sends is tried.
#[tokio::test]
async fn b2_a_hixie_76_session_however_its_bytes_are_split() {
    let target = listener().await;
    let bridge = Bridge::to(&target);
    let input = [HEAD_76.as_bytes(), KEY3, b"\x00aGVs\xff\x00bG8=\xff\xff\x00"].concat();
    for at in 1..input.len() {
        let mut stream = bridge.connect().await;
        stream.set_nodelay(true).unwrap();
        send(&mut stream, &input[..at]).await;
        // The bridge has a chance to see the first part by itself.
        tokio::task::yield_now().await;
        send(&mut stream, &input[at..]).await;
        expect(&mut stream, ANSWER_76.as_bytes()).await;
        let mut target = accept(&target).await;
        assert_eq!(read_to_end(&mut target).await, b"hello", "split at {at}");
        drop(target);
        assert_eq!(read_to_end(&mut stream).await, b"\xff\x00", "split at {at}");
    }
}

#[tokio::test]
async fn b2_each_way_and_the_orderly_close_of_hixie_76() {
    let (_bridge, mut stream, mut target) = old_session(HEAD_76, KEY3, ANSWER_76).await;
    for byte in b"\x00aGVsbG8=\xff" {
        send(&mut stream, &[*byte]).await;
    }
    expect(&mut target, b"hello").await;
    send(&mut target, b"\x00\xff").await;
    expect(&mut stream, b"\x00AP8=\xff").await;
    // The target ends: the client is told, and answers.
    within(target.shutdown()).await.unwrap();
    expect(&mut stream, b"\xff\x00").await;
    send(&mut stream, b"\x00IQ==\xff\xff\x00").await;
    assert_eq!(read_to_end(&mut target).await, b"!");
    assert_eq!(read_to_end(&mut stream).await, b"");
}

#[tokio::test]
async fn b2_a_hixie_75_session_ends_with_its_connection() {
    let (_bridge, mut stream, mut target) = old_session(HEAD_75, b"", ANSWER_75).await;
    send(&mut stream, b"\x00aGVsbG8=\xff").await;
    expect(&mut target, b"hello").await;
    send(&mut target, b"bye").await;
    drop(target);
    assert_eq!(read_to_end(&mut stream).await, b"\x00Ynll\xff", "at once, there is no close frame");
}

#[tokio::test]
async fn b2_b4_bytes_up_arrive_whole_before_the_close() {
    let (_bridge, mut stream, mut target) = old_session(HEAD_76, KEY3, ANSWER_76).await;
    // "MDEyMzQ1Njc4" is "012345678".
    let up = [b"\x00".as_slice(), &b"MDEyMzQ1Njc4".repeat(100_000), b"\xff\xff\x00"].concat();
    let sending = tokio::spawn(async move {
        send(&mut stream, &up).await;
        stream
    });
    assert!(read_to_end(&mut target).await == b"012345678".repeat(100_000));
    drop(target);
    assert_eq!(read_to_end(&mut sending.await.unwrap()).await, b"\xff\x00");
}

#[tokio::test]
async fn b2_bytes_down_are_frames_of_complete_base64() {
    let (_bridge, mut stream, mut target) = old_session(HEAD_76, KEY3, ANSWER_76).await;
    let sent = pattern(1_000_000);
    let copy = sent.clone();
    let serving = tokio::spawn(async move {
        within(target.write_all(&copy)).await.unwrap();
        target
    });
    let mut received = Vec::new();
    let mut unread = Vec::new();
    while received.len() < sent.len() {
        unread.extend(read_exact(&mut stream, 1).await);
        if unread.last() == Some(&0xff) {
            assert_eq!(unread[0], 0);
            received.extend(decoded(&unread[1..unread.len() - 1]));
            unread.clear();
        }
    }
    assert!(received == sent);
    drop(serving.await.unwrap());
    expect(&mut stream, b"\xff\x00").await;
}

/// The bytes of a complete base64 string.
fn decoded(text: &[u8]) -> Vec<u8> {
    assert_eq!(text.len() % 4, 0, "complete");
    let value = |digit: &u8| match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        other => panic!("{other}"),
    };
    let digits: Vec<u8> = text.iter().filter(|byte| **byte != b'=').map(value).collect();
    let bits = |quad: &[u8]| quad.iter().fold(0_u32, |bits, digit| bits << 6 | u32::from(*digit));
    let bytes = digits.chunks(4).flat_map(|quad| {
        let bits = bits(quad) << (6 * (4 - quad.len()));
        bits.to_be_bytes()[1..quad.len()].to_vec()
    });
    bytes.collect()
}

#[tokio::test]
async fn b2_a_hixie_head_later_on_a_connection_or_a_bad_one_is_a_400() {
    let (_port, addr) = closed_port();
    let target = bridge::Address { host: addr.ip().to_string(), port: addr.port() };
    let bridge = Bridge::start(config(target));
    let mut stream = bridge.connect().await;
    send(&mut stream, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 405 "));
    read_exact(&mut stream, b"WebSocket only\n".len()).await;
    send(&mut stream, &[HEAD_76.as_bytes(), KEY3].concat()).await;
    let answer = String::from_utf8(read_to_end(&mut stream).await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "the key is no request: {answer}");
    for bad in
        [HEAD_76.replace("Origin:", "X-Origin:"), HEAD_76.replace("4 @1  46546xW%0l 1 5", "12345")]
    {
        let mut stream = bridge.connect().await;
        send(&mut stream, bad.as_bytes()).await;
        assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 400 "), "{bad}");
    }
}

#[tokio::test]
async fn b2_t6_the_eight_bytes_must_come_in_time_and_count_as_no_session() {
    let (_port, addr) = closed_port();
    let target = bridge::Address { host: addr.ip().to_string(), port: addr.port() };
    let mut config = config(target);
    config.head_timeout = std::time::Duration::from_secs(2);
    config.run_once = true;
    let bridge = Bridge::start(config);
    let mut stream = bridge.connect().await;
    send(&mut stream, HEAD_76.as_bytes()).await;
    assert_eq!(read_to_end(&mut stream).await, b"");
    let mut stream = bridge.connect().await;
    send(&mut stream, &[HEAD_76.as_bytes(), KEY3].concat()).await;
    expect(&mut stream, ANSWER_76.as_bytes()).await;
    assert_eq!(read_to_end(&mut stream).await, b"\xff\x00", "the target cannot be reached");
    drop(stream);
    assert_eq!(bridge.outcome().await, bridge::Outcome::RunOnce);
}

/// A session whose sub-protocol is base64, and its target.
async fn base64_session() -> (Bridge, Client, TcpStream) {
    let target = listener().await;
    let bridge = Bridge::to(&target);
    let mut stream = bridge.connect().await;
    let head = HEAD.replace("Host:", "Sec-WebSocket-Protocol: chat, base64\r\nHost:");
    send(&mut stream, head.as_bytes()).await;
    let answer = read_head(&mut stream).await.to_ascii_lowercase();
    assert!(answer.contains("\r\nsec-websocket-protocol: base64\r\n"), "{answer}");
    (bridge, Client(stream), accept(&target).await)
}

#[tokio::test]
async fn b1_a_base64_session_is_text_both_ways() {
    let (_bridge, mut client, mut target) = base64_session().await;
    client.send(TEXT, b"aGVsbG8=").await;
    expect(&mut target, b"hello").await;
    // A quad spans the fragments of a message; the bytes that are complete do not wait for the rest.
    client.write(&frame(TEXT, b"IHd")).await;
    expect(&mut target, b" w").await;
    client.send(PING, b"?").await;
    client.write(&[frame(0, b"v"), frame(0x80, b"")].concat()).await;
    expect(&mut target, b"o").await;
    client.send(BINARY, b"cmxk").await;
    expect(&mut target, b"rld").await;
    assert_eq!(client.receive().await, (PONG, b"?".to_vec()));
    send(&mut target, &[0, 0xff, 0x10, 0x83]).await;
    assert_eq!(client.receive().await, (TEXT, b"AP8Qgw==".to_vec()));
    client.close(1000).await;
    assert_eq!(client.receive_close().await.0, 1000);
}

#[tokio::test]
async fn b1_b4_bytes_down_a_base64_session_arrive_whole() {
    let (_bridge, mut client, mut target) = base64_session().await;
    let sent = pattern(1_000_000);
    let copy = sent.clone();
    let serving = tokio::spawn(async move { within(target.write_all(&copy)).await.unwrap() });
    let mut received = Vec::new();
    while received.len() < sent.len() {
        let (opcode, payload) = client.receive().await;
        assert_eq!(opcode, TEXT);
        received.extend(decoded(&payload));
    }
    assert!(received == sent);
    serving.await.unwrap();
    assert_eq!(client.receive_close().await.0, 1000);
}

#[tokio::test]
async fn b5_what_is_no_base64_gets_1007() {
    for bytes in [
        frame(0x81, b"!!!!"),
        frame(0x81, b"aGVsbG8"),
        [frame(0x81, b"aG"), frame(0x81, b"Vs")].concat(),
        [frame(0x01, b"aGV"), frame(0x80, b"")].concat(),
    ] {
        let (_bridge, mut client, _target) = base64_session().await;
        client.write(&bytes).await;
        assert_eq!(client.receive_close().await.0, 1007, "{bytes:?}");
    }
}

/// Bytes that were read together with a long head are put back in their order.
#[tokio::test]
async fn b4_frames_behind_heads_of_every_length() {
    let target = listener().await;
    let bridge = Bridge::to(&target);
    for length in (0..16_000).step_by(509).chain(7_900..7_990) {
        let filling = format!("X-Filling: {}\r\nHost:", "x".repeat(length));
        let mut stream = bridge.connect().await;
        let head = HEAD.replace("Host:", &filling);
        send(&mut stream, &[head.as_bytes(), &frame(0x82, &pattern(3000))].concat()).await;
        let received = read_exact(&mut accept(&target).await, 3000).await;
        assert!(received == pattern(3000), "a head of {length} more");
    }
}

/// T4: clients of old drafts need the same credentials as others.
#[tokio::test]
async fn t4_an_old_client_is_asked_for_its_credentials() {
    let target = listener().await;
    let mut config = config(address_of(&target));
    let auth = bridge::Auth::Basic(bridge::Credentials::new("user:password"));
    config.access.auth = Some(tokio::sync::watch::channel(auth).1);
    let bridge = Bridge::start(config);
    for head in [HEAD_76, HEAD_75] {
        for lines in ["", "Authorization: Basic eDp5\r\n"] {
            let mut stream = bridge.connect().await;
            let head = head.replace("Host:", &format!("{lines}Host:"));
            send(&mut stream, &[head.as_bytes(), KEY3].concat()).await;
            let answer = String::from_utf8(read_to_end(&mut stream).await).unwrap();
            assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
            assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
        }
    }
    let mut stream = bridge.connect().await;
    let line = "Authorization: Basic dXNlcjpwYXNzd29yZA==\r\nHost:";
    send(&mut stream, &[HEAD_76.replace("Host:", line).as_bytes(), KEY3].concat()).await;
    expect(&mut stream, ANSWER_76.as_bytes()).await;
}
