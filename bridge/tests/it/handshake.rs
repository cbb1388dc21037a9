//! From accept to 101, or why not: B1, H1, H3, L2, T6.

use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;

use crate::harness::*;

fn bridge() -> Bridge {
    let (port, addr) = closed_port();
    // No other test gets the port.
    std::mem::forget(port);
    let target = bridge::Address { host: addr.ip().to_string(), port: addr.port() };
    Bridge::start(config(target))
}

/// A good handshake but for a body that it announces.
fn with_body(header: &str) -> String {
    HEAD.replace("Host:", &format!("{header}\r\nHost:"))
}

/// The status line and headers of the answer to a request.
async fn answer(bridge: &Bridge, request: &str) -> String {
    let mut stream = bridge.connect().await;
    within(stream.write_all(request.as_bytes())).await.unwrap();
    read_head(&mut stream).await.to_ascii_lowercase()
}

#[tokio::test]
async fn b1_the_101_confirms_binary_and_no_extension() {
    let offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n\
        Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Protocol: base64, binary\r\nHost:";
    let head = answer(&bridge(), &HEAD.replace("Host:", offer)).await;
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    for header in [
        "upgrade: websocket\r\n",
        "connection: upgrade\r\n",
        "sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n",
        "sec-websocket-protocol: binary\r\n",
    ] {
        assert!(head.contains(header), "{header} in {head}");
    }
    assert!(!head.contains("extensions"), "{head}");
}

#[tokio::test]
async fn b1_without_a_known_sub_protocol_there_is_a_101_without_the_header() {
    let bridge = bridge();
    for offer in ["Host:", "Sec-WebSocket-Protocol: chat\r\nHost:"] {
        let head = answer(&bridge, &HEAD.replace("Host:", offer)).await;
        assert!(head.starts_with("http/1.1 101 "), "{head}");
        assert!(!head.contains("sec-websocket-protocol"), "{head}");
    }
}

#[tokio::test]
async fn b1_h1_what_is_no_handshake_of_ours_is_refused() {
    let bridge = bridge();
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), "405"),
        ("POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".to_owned(), "405"),
        (HEAD.replace("GET", "POST"), "400"),
        (HEAD.replace("Version: 13", "Version: 9"), "426"),
        (HEAD.replace("Sec-WebSocket-Version: 13\r\n", ""), "426"),
        (HEAD.replace("Sec-WebSocket-Key", "X"), "400"),
        (HEAD.replace("Host:", "Sec-WebSocket-Key: second\r\nHost:"), "400"),
        (with_body("Content-Length: 5"), "400"),
        (with_body("Transfer-Encoding: chunked"), "400"),
        ("no HTTP at all\r\n\r\n".to_owned(), "400"),
        ("GET / HTTP/1.1\r\nbad header\r\n\r\n".to_owned(), "400"),
    ] {
        let head = answer(&bridge, &request).await;
        assert!(head.starts_with(&format!("http/1.1 {status} ")), "{request}: {head}");
        assert_eq!(head.contains("sec-websocket-version: 13, 8, 7\r\n"), status == "426", "{head}");
    }
}

/// B1: the connection is closed behind the answer, so that the body is taken for nothing else.
#[tokio::test]
async fn b1_a_handshake_with_a_body_is_refused_and_its_connection_closed() {
    let bridge = bridge();
    for (header, body) in [
        ("Content-Length: 34", "GET / HTTP/1.1\r\nHost: smuggled\r\n\r\n"),
        ("Transfer-Encoding: chunked", "3\r\nabc\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n"),
        ("Content-Length: 1000000000", "abc"),
    ] {
        let mut stream = bridge.connect().await;
        within(stream.write_all(with_body(header).as_bytes())).await.unwrap();
        within(stream.write_all(body.as_bytes())).await.unwrap();
        let answer = String::from_utf8(read_to_end(&mut stream).await).unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 "), "{header}: {answer}");
        assert!(answer.contains("connection: close\r\n"), "{header}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{header}: {answer}");
    }
    let head = answer(&bridge, &with_body("Content-Length: 0")).await;
    assert!(head.starts_with("http/1.1 101 "), "{head}");
}

#[tokio::test]
async fn l2_a_head_over_16_kib_is_a_431_that_arrives() {
    let bridge = bridge();
    let request = HEAD.replace("Host:", &format!("X-Filling: {}\r\nHost:", "x".repeat(20_000_000)));
    let head = answer(&bridge, &request).await;
    assert!(head.starts_with("http/1.1 431 "), "{head}");
    let request = HEAD.replace("Host:", &format!("X-Filling: {}\r\nHost:", "x".repeat(16_000)));
    let head = answer(&bridge, &request).await;
    assert!(head.starts_with("http/1.1 101 "), "{head}");
}

#[tokio::test]
async fn h3_an_upgrade_may_follow_requests_on_one_connection() {
    let target = listener().await;
    let bridge = Bridge::to(&target);
    let mut stream = bridge.connect().await;
    for _ in 0..3 {
        within(stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")).await.unwrap();
        let head = read_head(&mut stream).await;
        assert!(head.starts_with("HTTP/1.1 405 "), "{head}");
        let body = b"WebSocket only\n";
        assert_eq!(read_exact(&mut stream, body.len()).await, body);
    }
    let mut client = Client::over(stream).await;
    client.send(BINARY, b"hello").await;
    assert_eq!(read_exact(&mut accept(&target).await, 5).await, b"hello");
}

#[tokio::test]
async fn b4_frames_sent_right_behind_the_head_are_not_lost() {
    let target = listener().await;
    let bridge = Bridge::to(&target);
    let mut stream = bridge.connect().await;
    let bytes = [HEAD.as_bytes(), &frame(0x82, &vec![7; 100_000])].concat();
    let (mut reader, mut writer) = stream.split();
    within(writer.write_all(&bytes)).await.unwrap();
    within(writer.shutdown()).await.unwrap();
    assert_eq!(read_to_end(&mut accept(&target).await).await, vec![7; 100_000]);
    let mut head = [0; 12];
    within(tokio::io::AsyncReadExt::read_exact(&mut reader, &mut head)).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 101");
}

#[tokio::test]
async fn b4_a_client_that_shuts_down_right_behind_the_head_has_its_101() {
    let bridge = bridge();
    let mut stream = bridge.connect().await;
    within(stream.write_all(HEAD.as_bytes())).await.unwrap();
    within(stream.shutdown()).await.unwrap();
    assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 101 "));
}

#[tokio::test]
async fn b4_what_a_client_sent_before_it_left_is_delivered() {
    // The client has left before the target is connected.
    let close = frame(0x88, &1000_u16.to_be_bytes());
    for farewell in [close, frame(0x82, b""), frame(0xff, b"")] {
        let target = listener().await;
        let bridge = Bridge::to(&target);
        let mut stream = bridge.connect().await;
        let bytes = [HEAD.as_bytes(), &frame(0x82, b"last words"), &farewell].concat();
        within(stream.write_all(&bytes)).await.unwrap();
        within(stream.shutdown()).await.unwrap();
        assert_eq!(read_to_end(&mut accept(&target).await).await, b"last words");
    }
}

#[tokio::test]
async fn t6_a_staller_is_cut_off_at_the_deadline_and_holds_up_nobody() {
    let target = listener().await;
    let config =
        bridge::Config { head_timeout: Duration::from_secs(3), ..config(address_of(&target)) };
    let bridge = Bridge::start(config);
    let began = Instant::now();
    let mut silent = bridge.connect().await;
    let mut slow = bridge.connect().await;
    let mut idle = bridge.connect().await;
    within(idle.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET ")).await.unwrap();
    within(slow.write_all(b"GET / HTTP/1.1\r\n")).await.unwrap();
    bridge.client().await;
    assert!(began.elapsed() < Duration::from_secs(3), "the others do not wait for them");
    // A byte now and then does not extend the deadline.
    let trickle = async {
        while slow.write_all(b"X").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let ((), silence) = within(async { tokio::join!(trickle, read_to_end(&mut silent)) }).await;
    assert_eq!(silence, b"");
    assert!(began.elapsed() >= Duration::from_secs(3));
}

/// F16: the time of a head begins with its first byte, whatever packet that came in.
#[tokio::test]
async fn f16_a_head_begun_behind_another_has_its_time_and_no_more() {
    let target = listener().await;
    let head_timeout = Duration::from_secs(1);
    let bridge = Bridge::start(bridge::Config { head_timeout, ..config(address_of(&target)) });
    let head = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    for begun in [format!("{head}GET "), format!("{head}{head}G")] {
        let mut stream = bridge.connect().await;
        within(stream.write_all(begun.as_bytes())).await.unwrap();
        let answer = String::from_utf8(read_to_end(&mut stream).await).unwrap();
        let answers = answer.matches("HTTP/1.1 405 ").count();
        assert_eq!(answers, begun.matches("Host").count(), "{answer}");
    }
    // Heads that come whole are served, wherever the bytes are split.
    let both = [head.as_bytes(), head.as_bytes(), HEAD.as_bytes(), &frame(0x82, b"hello")].concat();
    for split in [1, head.len() - 1, head.len(), head.len() + 1, both.len() - 5] {
        let mut stream = bridge.connect().await;
        within(stream.write_all(&both[..split])).await.unwrap();
        tokio::task::yield_now().await;
        within(stream.write_all(&both[split..])).await.unwrap();
        for _ in 0..2 {
            read_head(&mut stream).await;
            read_exact(&mut stream, b"WebSocket only\n".len()).await;
        }
        assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 101 "));
        assert_eq!(read_exact(&mut accept(&target).await, 5).await, b"hello");
    }
}

#[tokio::test]
async fn f19_a_request_says_once_which_host_it_is_for() {
    let bridge = bridge();
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), "1.1 400"),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_owned(), "1.1 400"),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n".to_owned(), "1.1 400"),
        ("GET / HTTP/1.0\r\n\r\n".to_owned(), "1.0 405"),
        (HEAD.replace("Host: x\r\n", ""), "1.1 400"),
        (HEAD.replace("Host: x\r\n", "Host: x\r\nHost: x\r\n"), "1.1 400"),
        (HEAD.replace("Host: x\r\n", "Host: [::1]:80\r\n"), "1.1 101"),
    ] {
        let head = answer(&bridge, &request).await;
        assert!(head.starts_with(&format!("http/{status} ")), "{request}: {head}");
        assert_eq!(head.contains("connection: close"), status == "1.1 400", "{head}");
    }
}

#[tokio::test]
async fn f21_a_handshake_in_http_1_0_becomes_a_session() {
    let target = listener().await;
    let bridge = Bridge::to(&target);
    for connection in ["upgrade", "Upgrade, keep-alive", "close, upgrade"] {
        let mut stream = bridge.connect().await;
        let head = HEAD.replace("HTTP/1.1", "HTTP/1.0");
        let head = head.replace("Connection: Upgrade", &format!("Connection: {connection}"));
        let bytes = [head.as_bytes(), &frame(0x82, b"hello")].concat();
        within(stream.write_all(&bytes)).await.unwrap();
        let head = read_head(&mut stream).await.to_ascii_lowercase();
        assert!(head.split(' ').nth(1) == Some("101"), "{head}");
        assert!(head.contains("connection: upgrade\r\n"), "{head}");
        assert!(head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"), "{head}");
        let mut target = accept(&target).await;
        assert_eq!(read_exact(&mut target, 5).await, b"hello");
        let mut client = Client(stream);
        within(target.write_all(b"and back")).await.unwrap();
        assert_eq!(client.receive().await, (BINARY, b"and back".to_vec()));
        client.send(BINARY, b"again").await;
        assert_eq!(read_exact(&mut target, 5).await, b"again");
    }
}

#[tokio::test]
async fn f22_a_key_of_13_bytes_is_answered() {
    let head =
        answer(&bridge(), &HEAD.replace("dGhlIHNhbXBsZSBub25jZQ==", "SGVsbG8sIHdvcmxkIQ==")).await;
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    // The key with the GUID of RFC 6455, section 1.3, through openssl dgst -sha1 -binary | base64, in lower case.
    assert!(head.contains("sec-websocket-accept: qgegh3en71di5rrssaztmtrtyfk=\r\n"), "{head}");
}

#[tokio::test]
async fn f24_a_handshake_without_upgrade_hears_that_a_proxy_dropped_it() {
    let bridge = bridge();
    let no_upgrade = HEAD.replace("Upgrade: websocket\r\n", "");
    for (request, dropped) in [
        (
            no_upgrade.replace("Connection: Upgrade", "Connection: close"),
            &["Upgrade", "Connection"][..],
        ),
        (no_upgrade, &["Upgrade"]),
        (HEAD.replace("Connection: Upgrade", "Connection: close"), &["Connection"]),
    ] {
        let request =
            request.replace("HTTP/1.1", "HTTP/1.0").replace("Host", "Connection: close\r\nHost");
        let mut stream = bridge.connect().await;
        within(stream.write_all(request.as_bytes())).await.unwrap();
        let answer = String::from_utf8(read_to_end(&mut stream).await).unwrap();
        assert!(answer.split(' ').nth(1) == Some("426"), "{answer}");
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        for name in ["Upgrade", "Connection"] {
            assert_eq!(body.contains(&format!("`{name}: ")), dropped.contains(&name), "{body}");
        }
        assert!(body.contains("a proxy before us dropped"), "{body}");
    }
}
