//! Heartbeats, and limits on how long a session lasts: B12, B13.

use std::time::{Duration, Instant};

use bridge::{Config, Readiness, Upkeep};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::harness::*;

const SECOND: Duration = Duration::from_secs(1);
const BEAT: Duration = Duration::from_millis(200);

fn start(target: &TcpListener, upkeep: Upkeep) -> Bridge {
    Bridge::start(Config { upkeep, ..config(address_of(target)) })
}

fn heartbeat(interval: Duration) -> Upkeep {
    Upkeep { heartbeat: Some(interval), ..Upkeep::default() }
}

#[tokio::test]
async fn b12_an_idle_client_is_sent_pings_and_so_is_a_busy_one() {
    let listener = listener().await;
    let bridge = start(&listener, heartbeat(BEAT));
    let (mut idle, mut busy) = (bridge.client().await, bridge.client().await);
    let _idle_target = accept(&listener).await;
    let mut busy_target = accept(&listener).await;
    for _ in 0..5 {
        assert_eq!(idle.receive().await, (PING, vec![]));
    }
    // The busy client sends one message after the other, and its target echoes them.
    let echo = tokio::spawn(async move {
        let (mut reader, mut writer) = busy_target.split();
        let _ = tokio::io::copy(&mut reader, &mut writer).await;
    });
    let mut pings = 0;
    while pings < 5 {
        busy.send(BINARY, b"to and fro").await;
        match within(busy.receive()).await {
            (PING, payload) => {
                assert_eq!(payload, b"");
                pings += 1;
            }
            (opcode, _) => assert_eq!(opcode, BINARY),
        }
    }
    busy.close(1000).await;
    drop(busy);
    echo.abort();
}

#[tokio::test]
async fn b12_a_held_client_is_sent_pings_too() {
    let (_supervisor, target) = program(Readiness::Waiting, true, Duration::from_secs(30));
    let bridge = Bridge::start(Config { upkeep: heartbeat(BEAT), ..config(target) });
    let mut client = bridge.client().await;
    for _ in 0..3 {
        assert_eq!(client.receive().await, (PING, vec![]));
    }
}

#[tokio::test]
async fn b12_nobody_is_sent_a_ping_without_a_heartbeat() {
    let (_bridge, mut client, _target) = session().await;
    assert!(timeout(SECOND, client.receive()).await.is_err());
}

/// B12: old drafts have no ping, and their clients need not say anything.
#[tokio::test]
async fn b12_a_client_of_an_old_draft_is_sent_nothing() {
    let listener = listener().await;
    let bridge = start(&listener, heartbeat(BEAT));
    let mut client = bridge.connect().await;
    let head = "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n\
                Origin: http://x\r\nWebSocket-Protocol: base64\r\n\r\n";
    within(tokio::io::AsyncWriteExt::write_all(&mut client, head.as_bytes())).await.unwrap();
    assert!(read_head(&mut client).await.starts_with("HTTP/1.1 101 "));
    let _target = accept(&listener).await;
    let mut byte = [0];
    assert!(timeout(SECOND, client.peek(&mut byte)).await.is_err());
}

/// B12: a client that answers lives on; one that sends nothing is ended after a minute.
#[tokio::test]
async fn b12_only_a_client_that_sends_nothing_at_all_is_given_up() {
    let listener = listener().await;
    let bridge = start(&listener, heartbeat(SECOND));
    // Taken before the sessions begin: on a busy machine that takes time.
    let began = Instant::now();
    let (mut answering, mut silent) = (bridge.client().await, bridge.client().await);
    let _targets = (accept(&listener).await, accept(&listener).await);
    let answers = tokio::spawn(async move {
        loop {
            assert_eq!(answering.receive().await, (PING, vec![]));
            answering.send(PONG, b"").await;
        }
    });
    let mut pings = 0;
    let ended = timeout(Duration::from_secs(100), async {
        let mut byte = [0; 2];
        while tokio::io::AsyncReadExt::read_exact(&mut silent.0, &mut byte).await.is_ok() {
            assert_eq!(byte, [0x80 | PING, 0]);
            pings += 1;
        }
    });
    ended.await.expect("it is given up");
    assert!(began.elapsed() >= Duration::from_secs(60) && pings > 50, "{pings} pings");
    assert!(!answers.is_finished(), "the other goes on");
    answers.abort();
}

#[tokio::test]
async fn b13_a_session_lasts_no_longer_than_it_may() {
    let listener = listener().await;
    let upkeep = Upkeep { timeout: Some(SECOND), ..Upkeep::default() };
    let bridge = start(&listener, upkeep);
    let began = Instant::now();
    let mut client = bridge.client().await;
    let answered = Instant::now();
    let mut target = accept(&listener).await;
    client.send(BINARY, b"before its end").await;
    assert_eq!(read_exact(&mut target, 14).await, b"before its end");
    assert_eq!(client.receive_close().await, (1000, "session timeout".into()));
    assert!(began.elapsed() >= SECOND && answered.elapsed() < 2 * SECOND);
    client.close(1000).await;
    assert_eq!(read_to_end(&mut target).await, b"");
    // The next session has the same limit.
    let mut next = bridge.client().await;
    assert_eq!(next.receive_close().await.0, 1000);
}

#[tokio::test]
async fn b13_a_session_ends_when_nothing_has_moved_for_so_long() {
    let listener = listener().await;
    let upkeep = Upkeep { idle_timeout: Some(SECOND), ..Upkeep::default() };
    let bridge = start(&listener, upkeep);
    let (mut idle, mut talking) = (bridge.client().await, bridge.client().await);
    let (_idle_target, mut target) = (accept(&listener).await, accept(&listener).await);
    let began = Instant::now();
    while began.elapsed() < 3 * SECOND {
        talking.send(BINARY, b"x").await;
        assert_eq!(read_exact(&mut target, 1).await, b"x");
        // Pings are no payload.
        let _ = tokio::io::AsyncWriteExt::write_all(&mut idle.0, &frame(0x80 | PING, b"")).await;
        assert!(timeout(BEAT, talking.receive()).await.is_err(), "it is told of no end");
    }
    // Its end came two seconds ago, and not with the last ping.
    let told = async {
        loop {
            match idle.receive().await {
                (PONG, _) => {}
                other => return other,
            }
        }
    };
    let received = timeout(SECOND / 2, told).await.expect("it has ended");
    assert_eq!(received, (CLOSE, [&1000_u16.to_be_bytes()[..], b"session idle timeout"].concat()));
    assert_eq!(talking.receive_close().await, (1000, "session idle timeout".into()));
}

/// B13: the limit also counts for a client that is held until the program listens.
#[tokio::test]
async fn b13_limits_count_for_held_clients() {
    let (_supervisor, target) = program(Readiness::Waiting, true, Duration::from_secs(30));
    let upkeep = Upkeep { timeout: Some(SECOND), ..Upkeep::default() };
    let bridge = Bridge::start(Config { upkeep, ..config(target) });
    let mut client = bridge.client().await;
    assert_eq!(client.receive_close().await, (1000, "session timeout".into()));
}
