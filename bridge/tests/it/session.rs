//! What a session carries, and how: B1, B3, B4 (back-pressure), B5, B6, P4.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;

use bridge::{Address, Destination, Endpoint};

use crate::harness::*;

#[tokio::test]
async fn b1_an_ordinary_client_gets_its_bytes_echoed() {
    let listener = listener().await;
    let bridge = Bridge::to(&listener);
    let echo = tokio::spawn(async move {
        let (mut reader, mut writer) = accept(&listener).await.into_split();
        tokio::io::copy(&mut reader, &mut writer).await.unwrap();
    });
    let (mut socket, _) = within(connect_async(format!("ws://{}/", bridge.addr))).await.unwrap();
    for size in [1, 125, 126, 65_535, 65_536, 1_000_000] {
        let message = pattern(size);
        within(socket.send(Message::binary(message.clone()))).await.unwrap();
        let mut echoed = Vec::new();
        while echoed.len() < size {
            echoed.extend(within(socket.next()).await.unwrap().unwrap().into_data());
        }
        assert!(echoed == message, "{size} bytes");
    }
    within(socket.close(None)).await.unwrap();
    while within(socket.next()).await.is_some_and(|message| message.is_ok()) {}
    within(echo).await.unwrap();
}

#[tokio::test]
async fn b3_a_frame_of_2_to_the_40_bytes_is_forwarded_as_it_comes() {
    let (_bridge, mut client, mut target) = session().await;
    client.write(&header(0x82, 1 << 40)).await;
    let data = pattern(3_000_000);
    let masked: Vec<u8> = data.iter().zip(MASK.iter().cycle()).map(|(b, key)| b ^ key).collect();
    let ((), arrived) = tokio::join!(client.write(&masked), read_exact(&mut target, data.len()));
    assert!(arrived == data);
}

#[tokio::test]
async fn b3_a_thousand_small_frames_arrive_in_order() {
    let (_bridge, mut client, mut target) = session().await;
    let frames: Vec<u8> = (0..1000_u16).flat_map(|n| frame(0x82, &n.to_be_bytes())).collect();
    client.write(&frames).await;
    let expected: Vec<u8> = (0..1000_u16).flat_map(u16::to_be_bytes).collect();
    assert_eq!(read_exact(&mut target, 2000).await, expected);
}

/// B3: a payload may be empty (RFC 6455, section 5.2).
#[tokio::test]
async fn b3_an_empty_message_ends_nothing() {
    let (_bridge, mut client, mut target) = session().await;
    let (continued, last) = (frame(0x00, b""), frame(0x80, b""));
    // Alone, in fragments that are all empty, and before, between and behind some that are not.
    client
        .write(&[frame(0x82, b""), frame(0x02, b""), continued.clone(), last.clone()].concat())
        .await;
    client
        .write(
            &[frame(0x02, b""), frame(0x00, b"one "), continued, frame(0x00, b"two "), last]
                .concat(),
        )
        .await;
    client.send(PING, b"").await;
    assert_eq!(client.receive().await, (PONG, vec![]));
    client.send(BINARY, b"three").await;
    assert_eq!(read_exact(&mut target, 13).await, b"one two three");
    within(target.write_all(b"four")).await.unwrap();
    assert_eq!(client.receive_data(4).await, b"four");
}

#[tokio::test]
async fn b4_a_client_that_does_not_read_slows_its_target_and_loses_nothing() {
    let (_bridge, mut client, mut target) = session().await;
    let bytes = pattern(64 << 20);
    let written = write_until_stuck(&mut target, &bytes).await;
    assert!(written < 32 << 20, "{written} bytes are more than the kernel's buffers hold");
    assert!(client.receive_data(written).await == bytes[..written]);
}

#[tokio::test]
async fn b4_a_target_that_does_not_read_slows_its_client_and_loses_nothing() {
    let (_bridge, mut client, mut target) = session().await;
    let bytes = pattern(64 << 20);
    let frames: Vec<u8> = bytes.chunks(5000).flat_map(|chunk| frame(0x82, chunk)).collect();
    let written = write_until_stuck(&mut client.0, &frames).await;
    assert!(written < 32 << 20, "{written} bytes are more than the kernel's buffers hold");
    let ((), arrived) =
        tokio::join!(client.write(&frames[written..]), read_exact(&mut target, bytes.len()));
    assert!(arrived == bytes);
}

#[tokio::test]
async fn b5_a_violation_is_closed_with_its_code_after_what_was_good() {
    for (bad, code, reason) in [
        (vec![0x82, 0x03, b'b', b'a', b'd'], 1002, "unmasked frame"),
        (frame(0xc2, b"bad"), 1002, "reserved bits set"),
        (frame(0x83, b"bad"), 1002, "unknown opcode 3"),
        (frame(0x88, b"\x03\xe8\xff"), 1007, "close reason is not UTF-8"),
    ] {
        let (_bridge, mut client, mut target) = session().await;
        // If the junk behind the violation were not read, the connection would be reset and the close frame lost.
        client.write(&[frame(0x82, b"good"), bad, vec![0; 500_000]].concat()).await;
        assert_eq!(read_to_end(&mut target).await, b"good");
        drop(target);
        assert_eq!(client.receive_close().await, (code, reason.to_owned()));
        within(client.0.shutdown()).await.unwrap();
        client.ends().await;
    }
}

#[tokio::test]
async fn b5_pings_are_answered_between_fragments() {
    let (_bridge, mut client, mut target) = session().await;
    client.write(&frame(0x02, b"one ")).await;
    client.send(PING, b"are you there").await;
    assert_eq!(client.receive().await, (PONG, b"are you there".to_vec()));
    client.send(PONG, b"unasked").await;
    client.write(&frame(0x80, b"two")).await;
    assert_eq!(read_exact(&mut target, 7).await, b"one two");
}

#[tokio::test]
async fn b4_a_pong_waits_for_the_end_of_a_frame() {
    let (_bridge, mut client, mut target) = session().await;
    let bytes = pattern(64 << 20);
    // The client does not read, so a frame is under way when the ping comes.
    let written = write_until_stuck(&mut target, &bytes).await;
    client.send(PING, b"mark").await;
    within(target.shutdown()).await.unwrap();
    let (mut data, mut pongs) = (Vec::new(), 0);
    loop {
        match client.receive().await {
            (BINARY, payload) => data.extend(payload),
            (PONG, payload) => {
                assert_eq!(payload, b"mark");
                pongs += 1;
            }
            (CLOSE, _) => break,
            other => panic!("unexpected frame {other:?}"),
        }
    }
    assert!(data == bytes[..written]);
    assert_eq!(pongs, 1);
}

#[tokio::test]
async fn f60_b6_an_unreachable_target_is_a_101_then_a_1011_with_a_reason() {
    let (_kept, addr) = closed_port();
    let target = Address { host: addr.ip().to_string(), port: addr.port() };
    let bridge = Bridge::start(config(target));
    let mut client = bridge.client().await;
    // F60: the client is not told where the target is.
    let reason = "target cannot be reached: connection refused".to_owned();
    assert_eq!(client.receive_close().await, (1011, reason));
    client.close(1000).await;
    client.ends().await;
}

#[tokio::test]
async fn c2_every_address_of_a_name_is_tried() {
    let listener = listener().await;
    let port = listener.local_addr().unwrap().port();
    // Where localhost is ::1 as well, that address refuses the connection.
    let target = Destination::from(Address { host: "localhost".into(), port });
    let bridge = Bridge::start(config(target));
    let mut client = bridge.client().await;
    let mut target = accept(&listener).await;
    client.send(BINARY, b"hello").await;
    assert_eq!(read_exact(&mut target, 5).await, b"hello");
}

#[tokio::test]
async fn p4_a_busy_session_leaves_time_for_the_others() {
    let (_bridge, busy_client, busy_target) = session().await;
    // In threads of their own, so that there always are bytes and always is room for them.
    let mut source = busy_target.into_std().unwrap();
    let mut sink = busy_client.0.into_std().unwrap();
    source.set_nonblocking(false).unwrap();
    sink.set_nonblocking(false).unwrap();
    let writing =
        std::thread::spawn(
            move || {
                while std::io::Write::write_all(&mut source, &[7; 10_000]).is_ok() {}
            },
        );
    let (done, total) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let (is_done, read) = (Arc::clone(&done), Arc::clone(&total));
    let reading = std::thread::spawn(move || {
        let mut bytes = vec![0; 1 << 20];
        while !is_done.load(Ordering::Relaxed) {
            let length = std::io::Read::read(&mut sink, &mut bytes).unwrap();
            read.fetch_add(length, Ordering::Relaxed);
        }
    });
    let (_bridge, mut client, mut target) = session().await;
    // Until both sessions have carried something: on a busy machine the threads get little time.
    let (mut asked, began) = (0, Instant::now());
    while asked < 100 || total.load(Ordering::Relaxed) <= 1 << 20 {
        assert!(began.elapsed() < Duration::from_secs(20), "the other session stands still");
        asked += 1;
        client.send(BINARY, b"are you there").await;
        assert_eq!(read_exact(&mut target, 13).await, b"are you there");
    }
    done.store(true, Ordering::Relaxed);
    within(async {
        while !(reading.is_finished() && writing.is_finished()) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    reading.join().unwrap();
}

/// B4: both ways, to a service at a Unix socket, and its end.
#[tokio::test]
async fn b1_a_service_may_be_at_a_unix_socket() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("service");
    let listener = UnixListener::bind(&path).unwrap();
    let bridge = Bridge::start(config(Destination::Service(Endpoint::Unix(path))));
    let mut client = bridge.client().await;
    let (mut service, _) = within(listener.accept()).await.unwrap();
    client.send(BINARY, b"hello").await;
    let mut heard = [0; 5];
    within(service.read_exact(&mut heard)).await.unwrap();
    assert_eq!(&heard, b"hello");
    service.write_all(b"good bye").await.unwrap();
    drop(service);
    assert_eq!(client.receive_data(8).await, b"good bye");
    assert_eq!(client.receive_close().await.0, 1000);
    drop(listener);
    let mut late = bridge.client().await;
    assert_eq!(late.receive_close().await.0, 1011);
}
