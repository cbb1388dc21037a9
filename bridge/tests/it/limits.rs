//! How many sessions and connections, for how long, and with how much memory: B8, L2, L5, W9.

use std::time::{Duration, Instant};

use bridge::{Config, Outcome, Shutdown};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::harness::*;

const SECOND: Duration = Duration::from_secs(1);

fn to(target: &TcpListener) -> Config {
    config(address_of(target))
}

/// A web request on a connection of its own, answered.
async fn web_request(bridge: &Bridge) {
    let mut stream = bridge.connect().await;
    within(stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")).await.unwrap();
    assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 405 "));
}

#[tokio::test]
async fn b8_run_once_is_one_session_and_then_the_end() {
    let listener = listener().await;
    let bridge = Bridge::start(Config { run_once: true, ..to(&listener) });
    web_request(&bridge).await;
    let mut staller = bridge.connect().await;
    within(staller.write_all(b"GET / HTTP/1.1\r\n")).await.unwrap();
    let mut client = bridge.client().await;
    let target = accept(&listener).await;
    bridge.stops_accepting().await;
    assert_eq!(read_to_end(&mut staller).await, b"", "other handshakes are closed");
    client.send(BINARY, b"x").await;
    drop(target);
    assert_eq!(client.receive_close().await.0, 1000);
    client.close(1000).await;
    client.ends().await;
    assert_eq!(bridge.outcome().await, Outcome::RunOnce);
}

#[tokio::test]
async fn b8_run_once_serves_one_of_many_who_come_at_once() {
    let listener = listener().await;
    let bridge = Bridge::start(Config { run_once: true, ..to(&listener) });
    let mut streams = Vec::new();
    for _ in 0..10 {
        streams.push(bridge.connect().await);
    }
    for stream in &mut streams {
        // A client that gets no session may be closed before it has sent its whole head.
        let _ = within(stream.write_all(HEAD.as_bytes())).await;
    }
    let target = accept(&listener).await;
    bridge.stops_accepting().await;
    drop(target);
    let mut served = 0;
    for stream in &mut streams {
        let mut answer = Vec::new();
        let _ = within(tokio::io::AsyncReadExt::read_to_end(
            &mut tokio::io::AsyncReadExt::take(&mut *stream, 12),
            &mut answer,
        ))
        .await;
        served += u32::from(answer == b"HTTP/1.1 101");
    }
    assert_eq!(served, 1);
    drop(streams);
    assert_eq!(bridge.outcome().await, Outcome::RunOnce);
}

#[tokio::test]
async fn b8_timeout_stops_accepting_and_waits_for_the_last_session() {
    let listener = listener().await;
    let bridge =
        Bridge::start(Config { timeout: Some(Instant::now() + 3 * SECOND), ..to(&listener) });
    let mut client = bridge.client().await;
    let mut target = accept(&listener).await;
    let mut undecided = bridge.connect().await;
    bridge.stops_accepting().await;
    assert_eq!(read_to_end(&mut undecided).await, b"");
    client.send(BINARY, b"still here").await;
    assert_eq!(read_exact(&mut target, 10).await, b"still here");
    drop(target);
    client.receive_close().await;
    drop(client);
    assert_eq!(bridge.outcome().await, Outcome::Timeout);
}

#[tokio::test]
async fn b8_timeout_without_a_session_is_the_end() {
    let listener = listener().await;
    let began = Instant::now();
    let bridge = Bridge::start(Config { timeout: Some(began + SECOND), ..to(&listener) });
    assert_eq!(bridge.outcome().await, Outcome::Timeout);
    assert!(began.elapsed() >= SECOND);
}

#[tokio::test]
async fn b8_idle_timeout_counts_sessions_and_nothing_else() {
    let listener = listener().await;
    let bridge = Bridge::start(Config { idle_timeout: Some(2 * SECOND), ..to(&listener) });
    let client = bridge.client().await;
    let target = accept(&listener).await;
    let began = Instant::now();
    // Longer than the timeout: the session keeps the bridge going.
    while began.elapsed() < 3 * SECOND {
        web_request(&bridge).await;
    }
    drop((client, target));
    let ended = Instant::now();
    let requests = async {
        // Web requests do not.
        while let Ok(mut stream) = tokio::net::TcpStream::connect(bridge.addr).await {
            let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        }
    };
    within(requests).await;
    assert_eq!(bridge.outcome().await, Outcome::IdleTimeout);
    let time = ended.elapsed();
    assert!(time >= 2 * SECOND, "{time:?}");
}

#[tokio::test]
async fn l2_connections_over_the_limit_wait_for_their_turn() {
    let listener = listener().await;
    let bridge = Bridge::start(Config { max_connections: 2, ..to(&listener) });
    let (first, second) = (bridge.client().await, bridge.client().await);
    let targets = (accept(&listener).await, accept(&listener).await);
    let mut third = bridge.connect().await;
    within(third.write_all(HEAD.as_bytes())).await.unwrap();
    let mut byte = [0];
    let silence = tokio::time::timeout(SECOND / 2, third.peek(&mut byte)).await;
    assert!(silence.is_err(), "the third is not served yet");
    drop((first, targets.0));
    assert!(read_head(&mut third).await.starts_with("HTTP/1.1 101 "));
    drop(second);
}

/// L5: where more than a quarter of the memory is used, and not all of it, a web request is answered, and no connection is
/// closed for it.
#[tokio::test]
async fn l5_a_web_request_is_answered_where_memory_is_scarce() {
    let listener = listener().await;
    let bridge = Bridge::start(Config { memory: 100_000, ..to(&listener) });
    let mut oldest = bridge.connect().await;
    let request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    within(oldest.write_all(request)).await.unwrap();
    let answer = read_head(&mut oldest).await;
    let body = answer.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    read_exact(&mut oldest, body.parse().unwrap()).await;
    // Its head uses more than a quarter of the memory.
    let mut long = bridge.connect().await;
    let head = format!("GET / HTTP/1.1\r\nX: {}", "a".repeat(15_000));
    within(long.write_all(head.as_bytes())).await.unwrap();
    tokio::time::sleep(SECOND / 5).await;
    within(oldest.write_all(request)).await.unwrap();
    assert!(read_head(&mut oldest).await.starts_with("HTTP/1.1 405 "));
    within(long.write_all(b"\r\n\r\n")).await.unwrap();
    assert!(read_head(&mut long).await.starts_with("HTTP/1.1 400 "), "it has no host");
}

/// All that the bridge answers to these bytes, until it closes the connection.
async fn answer_to(bridge: &Bridge, bytes: &[u8]) -> String {
    let mut stream = bridge.connect().await;
    within(stream.write_all(bytes)).await.unwrap();
    String::from_utf8(read_to_end(&mut stream).await).unwrap()
}

#[tokio::test]
async fn l5_what_begins_no_request_is_refused_at_once() {
    let listener = listener().await;
    let bridge = Bridge::to(&listener);
    let (method, blank) = ("~".repeat(65), "\r\n".repeat(33));
    for bytes in ["(GET", "GET\t/", "\0", "\r\n/ ", "\u{e4}", &method, &blank] {
        let answer = answer_to(&bridge, bytes.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{bytes:?}: {answer}");
    }
    // Any token is a method (RFC 9110, section 9.1), if it is not very long.
    for method in ["get", "M-SEARCH", "a!#$%&'*+.^_`|~1", &"A".repeat(64)] {
        let mut stream = bridge.connect().await;
        within(stream.write_all(method.as_bytes())).await.unwrap();
        tokio::time::sleep(SECOND / 20).await;
        within(stream.write_all(b" / HTTP/1.1\r\nHost: x\r\n\r\n")).await.unwrap();
        let answer = read_head(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 405 "), "{method}: {answer}");
    }
}

/// L5: where there is no memory for the rest of a head, the oldest connection without a session that uses memory is closed.
#[tokio::test]
async fn l5_where_heads_use_up_the_memory_the_oldest_of_them_gives_way() {
    let listener = listener().await;
    let bridge = Bridge::start(Config { memory: 100_000, ..to(&listener) });
    let head = format!("GET / HTTP/1.1\r\nX: {}", "a".repeat(15_000));
    let mut silent = bridge.connect().await;
    let mut begun = Vec::new();
    for _ in 0..6 {
        let mut stream = bridge.connect().await;
        within(stream.write_all(head.as_bytes())).await.unwrap();
        tokio::time::sleep(SECOND / 20).await;
        begun.push(stream);
    }
    let young = begun.split_off(3);
    for mut stream in begun {
        assert_eq!(read_to_end(&mut stream).await, b"");
    }
    for mut stream in young {
        within(stream.write_all(b"\r\nHost: x\r\n\r\n")).await.unwrap();
        assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 405 "));
    }
    within(silent.write_all(HEAD.as_bytes())).await.unwrap();
    assert!(read_head(&mut silent).await.starts_with("HTTP/1.1 101 "), "nothing was kept for it");
}

/// L5: where no other connection uses memory, the one that asks for more is refused.
#[tokio::test]
async fn l5_a_head_that_is_more_than_all_the_memory_is_refused() {
    let listener = listener().await;
    let bridge = Bridge::start(Config { memory: 20_000, ..to(&listener) });
    let head = format!("GET / HTTP/1.1\r\nX: {}", "a".repeat(15_000));
    let answer = answer_to(&bridge, head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("Retry-After: "), "{answer}");
}

/// L5: an answer that the kernel keeps, as its client does not read it, counts. Its connection is reset where others need
/// the memory.
#[tokio::test]
async fn l5_answers_that_nobody_reads_give_way() {
    let (listener, directory) = (listener().await, tempfile::tempdir().unwrap());
    std::fs::write(directory.path().join("page"), vec![1; 600_000]).unwrap();
    let web = Some(directory.path().to_owned());
    let bridge = Bridge::start(Config { memory: 2_000_000, web, ..to(&listener) });
    let get = async || {
        let mut stream = bridge.connect().await;
        within(stream.write_all(b"GET /page HTTP/1.1\r\nHost: x\r\n\r\n")).await.unwrap();
        within(stream.read_exact(&mut [0; 64])).await.unwrap();
        tokio::time::sleep(SECOND / 20).await;
        stream
    };
    let mut first = get().await;
    let mut others = Vec::new();
    for _ in 0..60 {
        others.push(get().await);
    }
    let mut session = bridge.connect().await;
    within(session.write_all(HEAD.as_bytes())).await.unwrap();
    assert!(read_head(&mut session).await.starts_with("HTTP/1.1 101 "));
    let read = within(first.read_to_end(&mut Vec::new())).await;
    assert_eq!(read.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    let mut last = others.pop().unwrap();
    within(last.read_exact(&mut vec![0; 600_000])).await.unwrap();
}

/// L5: the page of a large directory is in memory as a whole, until its client has taken all of it.
#[tokio::test]
async fn l5_h1_the_page_of_a_directory_counts_until_it_is_taken() {
    let (listener, directory) = (listener().await, tempfile::tempdir().unwrap());
    for number in 0..5000 {
        // In the page each `<` has seven bytes.
        std::fs::write(directory.path().join(format!("{number}{}", "<".repeat(250))), "").unwrap();
    }
    let web = Some(directory.path().to_owned());
    // Less than the page, and more than the kernel takes of it.
    let bridge = Bridge::start(Config { memory: 8_000_000, web, ..to(&listener) });
    let get = async |path: &str| {
        let mut stream = bridge.connect().await;
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        within(stream.write_all(request.as_bytes())).await.unwrap();
        let head = read_head(&mut stream).await;
        (stream, head)
    };
    let (mut slow, head) = get("/").await;
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let length: usize = length.parse().unwrap();
    assert!(length > 8_500_000, "{length}");
    let becomes = async |expected: &str| {
        within(async {
            while get("/missing").await.1[9..12] != *expected {
                tokio::time::sleep(SECOND / 50).await;
            }
        })
        .await;
    };
    becomes("503").await;
    read_exact(&mut slow, length).await;
    becomes("404").await;
}

/// L5: the head of a later request counts, too, on a connection that has had an answer.
#[tokio::test]
async fn l5_a_later_head_that_is_not_whole_counts() {
    let listener = listener().await;
    let bridge = Bridge::start(Config { memory: 50_000, ..to(&listener) });
    let [begun, end] = [&b"GET / HTTP/1.1\r\nX: "[..], b"\r\nHost: x\r\n\r\n"];
    let answered = async |stream: &mut tokio::net::TcpStream| {
        let head = read_head(stream).await;
        assert!(head.starts_with("HTTP/1.1 405 "), "{head}");
        let body = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        read_exact(stream, body.parse().unwrap()).await;
    };
    let mut both = Vec::new();
    for _ in 0..2 {
        let mut stream = bridge.connect().await;
        within(stream.write_all(&[begun, end].concat())).await.unwrap();
        answered(&mut stream).await;
        both.push(stream);
    }
    let closed = tokio::time::timeout(SECOND / 5, both[0].peek(&mut [0])).await;
    assert!(closed.is_err(), "there is room for both while they are idle");
    for stream in &mut both {
        within(stream.write_all(&[begun, &[b'a'; 5000]].concat())).await.unwrap();
        tokio::time::sleep(SECOND / 20).await;
    }
    assert_eq!(read_to_end(&mut both[0]).await, b"", "the older one");
    within(both[1].write_all(end)).await.unwrap();
    answered(&mut both[1]).await;
}

#[tokio::test]
async fn w9_shutdown_closes_handshakes_at_once() {
    let listener = listener().await;
    let bridge = Bridge::to(&listener);
    let mut undecided = bridge.connect().await;
    within(undecided.write_all(b"GET / HTTP/1.1\r\n")).await.unwrap();
    web_request(&bridge).await;
    bridge.shutdown.send(Shutdown::Now).unwrap();
    assert_eq!(read_to_end(&mut undecided).await, b"");
    assert_eq!(bridge.outcome().await, Outcome::Shutdown);
}
