//! How sessions end: B4, L4, W6, W9.

use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use bridge::{Outcome, Shutdown};

use crate::harness::*;

/// Two seconds have passed since then, and not the ten seconds of the other limits.
fn assert_two_seconds(since: Instant) {
    let time = since.elapsed().as_secs_f32();
    assert!((2.0..3.9).contains(&time), "{time} s");
}

#[tokio::test]
async fn b4_what_the_target_sent_before_its_end_arrives_then_close_1000() {
    let (_bridge, mut client, mut target) = session().await;
    let bytes = pattern(3_000_000);
    let sending = async {
        within(target.write_all(&bytes)).await.unwrap();
        drop(target);
    };
    let ((), received) = tokio::join!(sending, client.receive_data(bytes.len()));
    assert!(received == bytes);
    assert_eq!(client.receive_close().await.0, 1000);
    client.close(1000).await;
    client.ends().await;
}

#[tokio::test]
async fn b4_after_the_target_ended_the_clients_bytes_flow_until_its_close() {
    let (_bridge, mut client, mut target) = session().await;
    within(target.shutdown()).await.unwrap();
    assert_eq!(client.receive_close().await.0, 1000);
    client.send(BINARY, b"still here").await;
    assert_eq!(read_exact(&mut target, 10).await, b"still here");
    client.close(1000).await;
    assert_eq!(read_to_end(&mut target).await, b"");
    client.ends().await;
}

#[tokio::test]
async fn b4_a_client_that_never_answers_the_close_is_given_ten_seconds() {
    let (_bridge, mut client, mut target) = session().await;
    let ended = Instant::now();
    within(target.shutdown()).await.unwrap();
    assert_eq!(client.receive_close().await.0, 1000);
    // The end comes before the tests' deadline.
    assert_eq!(read_to_end(&mut target).await, b"");
    let time = ended.elapsed().as_secs_f32();
    assert!(time >= 10.0, "{time} s");
}

#[tokio::test]
async fn b4_a_close_is_answered_at_once_and_the_target_gets_all_before_its_end() {
    let (_bridge, mut client, mut target) = session().await;
    client.write(&[frame(0x82, b"last"), frame(0x88, &4000_u16.to_be_bytes())].concat()).await;
    assert_eq!(client.receive_close().await, (4000, String::new()));
    client.ends().await;
    assert_eq!(read_to_end(&mut target).await, b"last");
    // What the target still sends is read and dropped, so that its connection is not reset.
    within(target.write_all(&pattern(300_000))).await.unwrap();
    within(target.shutdown()).await.unwrap();
}

#[tokio::test]
async fn b4_a_close_without_a_code_is_answered_without_one() {
    let (_bridge, mut client, _target) = session().await;
    client.send(CLOSE, b"").await;
    assert_eq!(client.receive().await, (CLOSE, vec![]));
    client.ends().await;
}

#[tokio::test]
async fn b4_a_target_that_ignores_the_end_has_two_seconds() {
    let (_bridge, mut client, mut target) = session().await;
    let closed = Instant::now();
    client.close(1000).await;
    assert_eq!(client.receive_close().await.0, 1000);
    drop(client);
    let talking = async {
        while timeout(DEADLINE, target.write_all(b"and another thing")).await.unwrap().is_ok() {}
    };
    within(talking).await;
    assert_two_seconds(closed);
}

#[tokio::test]
async fn b4_a_client_that_ends_without_a_close_still_gets_the_answer() {
    let (_bridge, mut client, mut target) = session().await;
    client.send(BINARY, b"question").await;
    within(client.0.shutdown()).await.unwrap();
    assert_eq!(read_to_end(&mut target).await, b"question");
    within(target.write_all(b"answer")).await.unwrap();
    assert_eq!(client.receive().await, (BINARY, b"answer".to_vec()));
    drop(target);
    assert_eq!(client.receive_close().await.0, 1000);
    client.ends().await;
}

#[tokio::test]
async fn b4_a_client_that_ended_without_a_close_has_two_seconds() {
    let (_bridge, mut client, mut target) = session().await;
    let ended = Instant::now();
    within(client.0.shutdown()).await.unwrap();
    assert_eq!(read_to_end(&mut target).await, b"");
    client.ends().await;
    assert_two_seconds(ended);
}

#[tokio::test]
async fn b4_l4_a_client_that_is_reset_ends_its_target_after_the_last_byte() {
    let (_bridge, mut client, mut target) = session().await;
    client.send(BINARY, b"last words").await;
    assert_eq!(read_exact(&mut target, 10).await, b"last words");
    reset(client.0);
    assert_eq!(read_to_end(&mut target).await, b"");
}

#[tokio::test]
async fn b4_l4_a_target_that_is_reset_is_a_1011_with_a_reason() {
    let (_bridge, mut client, target) = session().await;
    reset(target);
    let close = (1011, "target failed: connection reset".to_owned());
    assert_eq!(client.receive_close().await, close);
    client.close(1000).await;
    client.ends().await;
}

#[tokio::test]
async fn b4_l4_a_target_reset_under_load_is_a_1011_too() {
    for _ in 0..20 {
        let (_bridge, client, mut target) = session().await;
        let (mut reader, mut writer) = client.0.into_split();
        let flood = tokio::spawn(async move {
            let frame = frame(0x82, &[0; 1000]);
            while writer.write_all(&frame).await.is_ok() {}
        });
        read_exact(&mut target, 100_000).await;
        reset(target);
        let mut close = [0; 4];
        within(reader.read_exact(&mut close)).await.unwrap();
        assert_eq!((close[0], &close[2..]), (0x88, &1011_u16.to_be_bytes()[..]));
        flood.abort();
    }
}

#[tokio::test]
async fn b5_a_client_that_goes_on_after_its_violation_is_read_for_two_seconds() {
    let (_bridge, mut client, target) = session().await;
    drop(target);
    let violated = Instant::now();
    client.write(&[0xff; 100]).await;
    // Unread bytes would reset the connection, and writing to it would fail.
    let talking = async { while client.0.write_all(&[0xff; 100]).await.is_ok() {} };
    within(talking).await;
    assert_two_seconds(violated);
    let violation = (1002, "reserved bits set".to_owned());
    assert_eq!(client.receive_close().await, violation);
}

/// A service manager stops websockify and the program at the same time. The sessions still heed the shutdown first.
#[tokio::test(flavor = "multi_thread")]
async fn w9_shutdown_closes_sessions_with_1001_even_if_their_target_dies_with_us() {
    for round in 0..100 {
        let (bridge, mut client, target) = session().await;
        client.send(BINARY, b"x").await;
        bridge.shutdown.send(Shutdown::Now).unwrap();
        if round % 2 == 0 {
            reset(target);
        } else {
            drop(target);
        }
        let told = client.receive_close().await;
        assert_eq!(told, (1001, "shutting down".to_owned()), "round {round}");
        client.close(1001).await;
        client.ends().await;
        drop(client);
        assert_eq!(bridge.outcome().await, Outcome::Shutdown);
    }
}

#[tokio::test]
async fn w9_shutdown_takes_two_seconds_with_peers_that_do_not_answer() {
    let (bridge, _client, mut target) = session().await;
    let stuck = write_until_stuck(&mut target, &pattern(64 << 20)).await;
    assert!(stuck > 0);
    let told = Instant::now();
    bridge.shutdown.send(Shutdown::Now).unwrap();
    assert_eq!(bridge.outcome().await, Outcome::Shutdown);
    let time = told.elapsed().as_secs_f32();
    assert!(time < 4.5, "not the five after which they are cut off: {time} s");
}

#[tokio::test]
async fn w6_drain_lets_sessions_come_to_their_end() {
    let (bridge, mut client, mut target) = session().await;
    bridge.shutdown.send(Shutdown::Finish).unwrap();
    bridge.stops_accepting().await;
    within(target.write_all(b"the rest")).await.unwrap();
    drop(target);
    assert_eq!(client.receive().await, (BINARY, b"the rest".to_vec()));
    assert_eq!(client.receive_close().await.0, 1000);
    client.close(1000).await;
    client.ends().await;
    assert_eq!(bridge.outcome().await, Outcome::Shutdown);
}
