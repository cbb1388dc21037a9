//! The wrapped program as a target, which comes and goes: W4, W6.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bridge::{Outcome, Readiness, Shutdown};
use procfs::net::TcpState;
use tokio::io::AsyncWriteExt;

use crate::harness::*;

const LONG: Duration = Duration::from_secs(30);

#[tokio::test]
async fn w4_a_held_client_is_attended_to_and_served_when_the_program_listens() {
    for respawns in [false, true] {
        let (supervisor, target) = program(Readiness::Waiting, respawns, LONG);
        let bridge = Bridge::start(config(target));
        let mut client = bridge.client().await;
        client.send(BINARY, b"early ").await;
        client.send(PING, b"?").await;
        assert_eq!(client.receive().await, (PONG, b"?".to_vec()));
        client.send(BINARY, &[b'x'; 10_000]).await;
        let listener = listener().await;
        supervisor.readiness.send(ready(&listener)).unwrap();
        let mut target = accept(&listener).await;
        let expected = [&b"early "[..], &[b'x'; 10_000]].concat();
        assert_eq!(read_exact(&mut target, expected.len()).await, expected);
        within(target.write_all(b"hello")).await.unwrap();
        assert_eq!(client.receive().await, (BINARY, b"hello".to_vec()));
        served(&supervisor, 1).await;
    }
}

#[tokio::test]
async fn w4_a_held_client_may_leave() {
    let (_supervisor, target) = program(Readiness::Waiting, true, LONG);
    let bridge = Bridge::start(config(target));
    let mut client = bridge.client().await;
    client.close(1000).await;
    assert_eq!(client.receive_close().await.0, 1000);
    client.ends().await;
}

#[tokio::test]
async fn w4_a_held_client_that_left_has_its_bytes_delivered() {
    let (supervisor, target) = program(Readiness::Waiting, true, LONG);
    let bridge = Bridge::start(config(target));
    let mut client = bridge.client().await;
    client.send(BINARY, b"last words").await;
    client.close(1000).await;
    assert_eq!(client.receive_close().await.0, 1000);
    drop(client);
    let listener = listener().await;
    supervisor.readiness.send(ready(&listener)).unwrap();
    assert_eq!(read_to_end(&mut accept(&listener).await).await, b"last words");
}

#[tokio::test]
async fn w4_a_held_client_cannot_fill_our_memory() {
    let (supervisor, target) = program(Readiness::Waiting, true, LONG);
    let bridge = Bridge::start(config(target));
    let client = bridge.client().await;
    let (_reader, mut writer) = client.0.into_split();
    let frames: Vec<u8> = (0..10_000).flat_map(|_| frame(0x82, &[7; 5000])).collect();
    let mut written = 0;
    while let Ok(length) = tokio::time::timeout(LONG / 60, writer.write(&frames[written..])).await {
        written += length.unwrap();
        assert!(written < 32 << 20, "the bridge takes no more than a buffer");
    }
    let listener = listener().await;
    supervisor.readiness.send(ready(&listener)).unwrap();
    let mut target = accept(&listener).await;
    let rest = writer.write_all(&frames[written..]);
    let (_, arrived) = tokio::join!(within(rest), read_exact(&mut target, 50_000_000));
    assert!(arrived.iter().all(|byte| *byte == 7));
}

#[tokio::test]
async fn w4_a_client_is_not_held_for_ever() {
    for respawns in [false, true] {
        let (_supervisor, target) = program(Readiness::Waiting, respawns, LONG / 60);
        let bridge = Bridge::start(config(target));
        let mut client = bridge.client().await;
        let reason = "program did not listen within 0.5 s".to_owned();
        assert_eq!(client.receive_close().await, (1011, reason));
    }
}

#[tokio::test]
async fn w4_the_wait_in_the_queue_counts() {
    let listener = listener().await;
    let (supervisor, target) = program(Readiness::Waiting, true, Duration::from_secs(4));
    let bridge = Bridge::start(config(target));
    let began = Instant::now();
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(bridge.client().await);
    }
    for client in &mut clients {
        assert_eq!(client.receive_close().await.0, 1011);
    }
    assert!(began.elapsed() < Duration::from_secs(8), "they wait together");
    drop((supervisor, listener));
}

#[tokio::test]
async fn w6_a_program_that_is_gone_is_a_1011_at_once() {
    for respawns in [false, true] {
        let (supervisor, target) = program(Readiness::Waiting, respawns, LONG);
        let bridge = Bridge::start(config(target));
        let mut held = bridge.client().await;
        supervisor.readiness.send(Readiness::Gone).unwrap();
        let reason = "program has ended".to_owned();
        assert_eq!(held.receive_close().await, (1011, reason.clone()));
        assert_eq!(bridge.client().await.receive_close().await, (1011, reason.clone()));
        drop(supervisor);
        assert_eq!(bridge.client().await.receive_close().await, (1011, reason));
    }
}

#[tokio::test]
async fn w6_without_a_supervisor_a_ready_program_is_gone_too() {
    let listener = listener().await;
    let (supervisor, target) = program(ready(&listener), true, LONG);
    drop(supervisor);
    let bridge = Bridge::start(config(target));
    assert_eq!(bridge.client().await.receive_close().await.0, 1011);
}

/// A program that is alive and between two listeners, as `while :; do nc -l 80; done` is.
#[tokio::test]
async fn f35_w4_without_respawn_a_refused_client_is_held_too() {
    let (kept, addr) = closed_port();
    let (supervisor, target) = program(Readiness::Ready(addr), false, LONG);
    let bridge = Bridge::start(config(target));
    let mut client = bridge.client().await;
    client.send(BINARY, b"early").await;
    within(supervisor.recheck.notified()).await;
    drop(kept);
    // Nothing is published: the bridge tries again by itself.
    let mut target = accept(&listen_again(addr)).await;
    assert_eq!(read_exact(&mut target, 5).await, b"early");
}

#[tokio::test]
async fn f35_w4_without_respawn_a_refused_client_is_not_held_for_ever() {
    let (_kept, addr) = closed_port();
    let (_supervisor, target) = program(Readiness::Ready(addr), false, LONG / 60);
    let bridge = Bridge::start(config(target));
    let reason = "program did not listen within 0.5 s".to_owned();
    assert_eq!(bridge.client().await.receive_close().await, (1011, reason));
}

/// A program may close its listener while it serves one client: the kernel then resets the connections in the accept queue.
/// Here the test accepts such a connection and resets it itself.
#[tokio::test]
async fn f35_w4_without_respawn_a_connection_reset_out_of_the_queue_is_held_again() {
    let listener = listener().await;
    let addr = listener.local_addr().unwrap();
    let (supervisor, target) = program(Readiness::Ready(addr), false, LONG);
    let bridge = Bridge::start(config(target));
    let mut client = bridge.client().await;
    reset(accept(&listener).await);
    within(supervisor.recheck.notified()).await;
    drop(listener);
    let mut target = accept(&listen_again(addr)).await;
    within(target.write_all(b"hello")).await.unwrap();
    assert_eq!(client.receive().await, (BINARY, b"hello".to_vec()));
}

/// F35, W4: when a listener is closed, the kernel resets the connections in its accept queue, but forgets
/// unfinished TCP handshakes without sending a packet. `defer_accept` makes sure that the handshake is unfinished.
#[tokio::test]
async fn f35_w4_a_connection_that_the_kernel_has_forgotten_is_held_again() {
    for respawns in [false, true] {
        let listener = listener().await;
        let addr = listener.local_addr().unwrap();
        defer_accept(&listener);
        let (supervisor, target) = program(Readiness::Ready(addr), respawns, LONG);
        let bridge = Bridge::start(config(target));
        let mut client = bridge.client().await;
        within(established(addr)).await;
        drop(listener);
        let listener = listen_again(addr);
        let mut target = accept(&listener).await;
        within(supervisor.recheck.notified()).await;
        within(target.write_all(b"hello")).await.unwrap();
        assert_eq!(client.receive().await, (BINARY, b"hello".to_vec()));
        served(&supervisor, 1).await;
    }
}

/// Waits until a connection to this address is established at its client's end, whatever the other end says.
async fn established(addr: SocketAddr) {
    let is_it = |socket: procfs::net::TcpNetEntry| {
        socket.remote_address == addr && socket.state == TcpState::Established
    };
    while !procfs::net::tcp().unwrap().into_iter().any(is_it) {
        tokio::task::yield_now().await;
    }
}

/// A program that resets every connection is tried again only after a pause.
#[tokio::test]
async fn f35_a_program_that_resets_all_is_asked_now_and_then() {
    let listener = listener().await;
    let (_supervisor, target) = program(ready(&listener), false, LONG / 30);
    let bridge = Bridge::start(config(target));
    let mut client = bridge.client().await;
    let mut asked = 0;
    let resetting = async {
        loop {
            reset(accept(&listener).await);
            asked += 1;
        }
    };
    let close = tokio::select! {
        close = client.receive_close() => close,
        () = resetting => unreachable!(),
    };
    assert_eq!(close, (1011, "program did not listen within 1 s".to_owned()));
    assert!((2..=11).contains(&asked), "{asked} times");
}

#[tokio::test]
async fn w6_o1_held_clients_hear_whether_they_may_come_again() {
    for (shutdown, told) in
        [(Shutdown::Finish, (1011, "shutting down")), (Shutdown::Drain, (1012, "service restart"))]
    {
        held_clients_are_told(shutdown, told).await;
    }
}

async fn held_clients_are_told(shutdown: Shutdown, (code, reason): (u16, &str)) {
    let (_supervisor, target) = program(Readiness::Waiting, true, LONG);
    let bridge = Bridge::start(config(target));
    let mut client = bridge.client().await;
    bridge.shutdown.send(shutdown).unwrap();
    assert_eq!(client.receive_close().await, (code, reason.to_owned()));
    drop(client);
    assert_eq!(bridge.outcome().await, Outcome::Shutdown);
}

#[tokio::test]
async fn w9_shutdown_closes_held_clients_with_1001() {
    let (_supervisor, target) = program(Readiness::Waiting, true, LONG);
    let bridge = Bridge::start(config(target));
    let mut client = bridge.client().await;
    bridge.shutdown.send(Shutdown::Now).unwrap();
    assert_eq!(client.receive_close().await.0, 1001);
    drop(client);
    assert_eq!(bridge.outcome().await, Outcome::Shutdown);
}
