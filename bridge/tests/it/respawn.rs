//! A program that serves one connection and is started again: W4.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bridge::Readiness;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::harness::*;

const LONG: Duration = Duration::from_secs(30);

#[tokio::test]
async fn w4_a_refused_connection_is_held_and_rings() {
    let (kept, addr) = closed_port();
    let (supervisor, target) = program(Readiness::Ready(addr), true, LONG);
    let bridge = Bridge::start(config(target));
    let mut client = bridge.client().await;
    within(supervisor.recheck.notified()).await;
    drop(kept);
    // Nothing is published: the bridge tries again by itself.
    let listener = listen_again(addr);
    let mut target = accept(&listener).await;
    within(target.write_all(b"hello")).await.unwrap();
    assert_eq!(client.receive().await, (BINARY, b"hello".to_vec()));
}

#[tokio::test]
async fn w4_a_client_that_is_refused_is_not_held_for_ever() {
    let (_kept, addr) = closed_port();
    let (_supervisor, target) = program(Readiness::Ready(addr), true, LONG / 60);
    let bridge = Bridge::start(config(target));
    let mut client = bridge.client().await;
    let reason = "program did not listen within 0.5 s".to_owned();
    assert_eq!(client.receive_close().await, (1011, reason));
}

#[tokio::test]
async fn w4_a_connection_reset_out_of_the_accept_queue_loses_nothing() {
    let listener = listener().await;
    let addr = listener.local_addr().unwrap();
    let (supervisor, target) = program(Readiness::Ready(addr), true, LONG);
    let bridge = Bridge::start(config(target));
    let mut client = bridge.client().await;
    client.send(BINARY, b"who is there").await;
    // Wait for the connection to be in the queue, without taking it.
    within(std::future::poll_fn(|cx| readable(&listener, cx))).await;
    drop(listener);
    within(supervisor.recheck.notified()).await;
    let listener = listen_again(addr);
    let mut target = accept(&listener).await;
    assert_eq!(read_exact(&mut target, 12).await, b"who is there");
    served(&supervisor, 1).await;
}

/// Ready when a connection waits in the accept queue.
fn readable(listener: &TcpListener, cx: &mut std::task::Context<'_>) -> std::task::Poll<()> {
    let mut fds =
        [nix::poll::PollFd::new(std::os::fd::AsFd::as_fd(listener), nix::poll::PollFlags::POLLIN)];
    if nix::poll::poll(&mut fds, nix::poll::PollTimeout::ZERO).unwrap() == 1 {
        return std::task::Poll::Ready(());
    }
    cx.waker().wake_by_ref();
    std::task::Poll::Pending
}

#[tokio::test]
async fn w4_a_session_reset_before_its_first_byte_is_held_again() {
    let listener = listener().await;
    let (supervisor, target) = program(ready(&listener), true, LONG);
    let bridge = Bridge::start(config(target));
    let mut client = bridge.client().await;
    let first = accept(&listener).await;
    served(&supervisor, 1).await;
    reset(first);
    within(supervisor.recheck.notified()).await;
    let mut second = accept(&listener).await;
    within(second.write_all(b"hello")).await.unwrap();
    assert_eq!(client.receive().await, (BINARY, b"hello".to_vec()));
    // Now it has carried a byte, and a reset is the end.
    reset(second);
    assert_eq!(client.receive_close().await.0, 1011);
}

#[tokio::test]
async fn w4_a_reset_after_the_client_has_sent_a_byte_is_a_1011() {
    let listener = listener().await;
    let (_supervisor, target) = program(ready(&listener), true, LONG);
    let bridge = Bridge::start(config(target));
    let mut client = bridge.client().await;
    let mut target = accept(&listener).await;
    client.send(BINARY, b"x").await;
    read_exact(&mut target, 1).await;
    reset(target);
    assert_eq!(client.receive_close().await.0, 1011);
}

/// When the supervisor's view of the program changes.
#[derive(Clone, Copy, PartialEq)]
enum View {
    /// As soon as the listener is gone.
    Prompt,
    /// At the next recheck: until then the address is published and nobody listens there.
    Doubting,
}

/// Behaves like `telnetd -debug` under respawn: each instance listens, accepts one connection,
/// closes its listener, greets, echoes one line and ends.
async fn telnetd(supervisor: Arc<Supervisor>, addr: SocketAddr, view: View, patience: Duration) {
    loop {
        let listener = listen_again(addr);
        supervisor.readiness.send_replace(Readiness::Ready(addr));
        tokio::time::sleep(patience).await;
        let (mut stream, _) = listener.accept().await.unwrap();
        drop(listener);
        if view == View::Prompt {
            supervisor.readiness.send_replace(Readiness::Waiting);
        }
        stream.write_all(b"login: ").await.unwrap();
        let mut line = [0; 8];
        if stream.read_exact(&mut line).await.is_ok() {
            stream.write_all(&line).await.unwrap();
        }
        drop(stream);
        if view == View::Doubting {
            // The next instance starts when the end of this one was noticed.
            let _ = tokio::time::timeout(LONG / 100, supervisor.recheck.notified()).await;
            supervisor.readiness.send_replace(Readiness::Waiting);
        }
    }
}

/// One telnet session.
async fn session(bridge: &Bridge, number: usize) {
    let mut client = bridge.client().await;
    let line = format!("user {number:03}").into_bytes();
    assert_eq!(client.receive_data(7).await, b"login: ");
    client.send(BINARY, &line).await;
    assert_eq!(client.receive_data(8).await, line);
    assert_eq!(client.receive_close().await.0, 1000);
    client.close(1000).await;
    client.ends().await;
}

#[tokio::test]
async fn w4_ten_clients_against_a_program_that_serves_one_connection_an_instance() {
    for view in [View::Prompt, View::Doubting] {
        // With the second patience the program accepts a connection 0.3 s after it listens. The bridge lets the next client
        // through after an eighth of a second, so that other connections come into the accept queue.
        for patience in [Duration::ZERO, LONG / 100] {
            let (kept, addr) = closed_port();
            drop(kept);
            let (supervisor, target) = program(Readiness::Waiting, true, LONG);
            let bridge = Bridge::start(config(target));
            let supervisor = Arc::new(supervisor);
            let telnetd = tokio::spawn(telnetd(Arc::clone(&supervisor), addr, view, patience));
            for number in 0..3 {
                within(session(&bridge, number)).await;
            }
            let together = (0..10).map(|number| session(&bridge, number));
            within(futures_util::future::join_all(together)).await;
            assert_eq!(supervisor.served.load(Ordering::SeqCst), 13);
            telnetd.abort();
        }
    }
}

/// `telnetd -debug` takes four seconds before it greets: ten clients one after the other take longer in all
/// than the time for which each of them may be held.
#[tokio::test]
async fn w4_the_turns_of_others_do_not_count() {
    let (kept, addr) = closed_port();
    drop(kept);
    // All turns together take twice as long as a client may be held, and each turn takes a third of the hold time.
    let hold = Duration::from_secs(3);
    let (supervisor, target) = program(Readiness::Waiting, true, hold);
    let bridge = Bridge::start(config(target));
    let supervisor = Arc::new(supervisor);
    let telnetd = tokio::spawn(telnetd(Arc::clone(&supervisor), addr, View::Prompt, hold / 3));
    let together = (0..6).map(|number| session(&bridge, number));
    within(futures_util::future::join_all(together)).await;
    assert_eq!(supervisor.served.load(Ordering::SeqCst), 6);
    telnetd.abort();
}

#[tokio::test]
async fn w4_clients_behind_a_silent_session_are_held_while_it_lasts() {
    let (kept, addr) = closed_port();
    drop(kept);
    let listener = listen_again(addr);
    let (supervisor, target) = program(Readiness::Ready(addr), true, LONG);
    let bridge = Bridge::start(config(target));
    let mut first = bridge.client().await;
    let mut leader = accept(&listener).await;
    drop(listener);
    let mut second = bridge.client().await;
    within(supervisor.recheck.notified()).await;
    supervisor.readiness.send_replace(Readiness::Waiting);
    // The leader's session goes on meanwhile.
    first.send(BINARY, b"still").await;
    assert_eq!(read_exact(&mut leader, 5).await, b"still");
    let listener = listen_again(addr);
    supervisor.readiness.send_replace(Readiness::Ready(addr));
    let mut next = accept(&listener).await;
    within(next.write_all(b"login: ")).await.unwrap();
    assert_eq!(second.receive().await, (BINARY, b"login: ".to_vec()));
    served(&supervisor, 2).await;
}

#[tokio::test]
async fn w4_the_queue_is_first_come_first_served() {
    let (supervisor, target) = program(Readiness::Waiting, true, LONG);
    let bridge = Bridge::start(config(target));
    let mut clients = Vec::new();
    for number in 0..5_u8 {
        let mut client = bridge.client().await;
        client.send(BINARY, &[number]).await;
        // Answered by the session's task, which is in the queue by then.
        client.send(PING, b"").await;
        assert_eq!(client.receive().await.0, PONG);
        clients.push(client);
    }
    let listener = listener().await;
    supervisor.readiness.send(ready(&listener)).unwrap();
    for number in 0..5_u8 {
        assert_eq!(read_exact(&mut accept(&listener).await, 1).await, [number]);
    }
}
