//! Peers that are slow, stuck, or gone while the other is stuck: B4, L4.

use std::future::pending;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bridge::{Config, Outcome, Upkeep};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{MissedTickBehavior, advance, interval, pause, resume, timeout};

use crate::harness::*;
use crate::stuck::meanwhile;

/// How often a slow reader reads.
const TICK: Duration = Duration::from_millis(50);

/// A session whose two ends take little at once.
async fn narrow_session() -> (Bridge, Client, TcpStream) {
    let target = narrow_listener();
    let bridge = Bridge::to(&target);
    let client = bridge.client_by(narrow_socket(NARROW)).await;
    let target = accept(&target).await;
    (bridge, client, target)
}

/// The sockets that a listener accepts have its buffer's size.
fn narrow_listener() -> TcpListener {
    let socket = narrow_socket(NARROW);
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    socket.listen(8).unwrap()
}

/// Reads to the end, `a_tick` bytes in each tick, as a slow program does.
async fn read_slowly(mut reader: OwnedReadHalf, a_tick: usize) -> std::io::Result<Vec<u8>> {
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut bytes = Vec::new();
    let mut piece = vec![0; a_tick];
    loop {
        tick.tick().await;
        match timeout(DEADLINE, reader.read(&mut piece)).await.unwrap()? {
            0 => return Ok(bytes),
            length => bytes.extend(&piece[..length]),
        }
    }
}

/// Reads slowly from a peer, and writes the same bytes to it again and again.
async fn read_slowly_and_talk(stream: TcpStream, word: &[u8]) -> std::io::Result<Vec<u8>> {
    let (reader, mut writer) = stream.into_split();
    tokio::select! {
        read = read_slowly(reader, 10_000) => read,
        () = async { chatter(&mut writer, word).await; pending().await } => unreachable!(),
    }
}

/// Writes the same bytes again and again, until a write fails.
async fn chatter(writer: &mut OwnedWriteHalf, word: &[u8]) {
    let mut tick = interval(TICK);
    while writer.write_all(word).await.is_ok() {
        tick.tick().await;
    }
}

/// The payload of data frames, and that of the close frame behind them.
fn payload(mut bytes: &[u8]) -> (Vec<u8>, Option<Vec<u8>>) {
    let mut data = Vec::new();
    while let [first, second, rest @ ..] = bytes {
        let (length, rest) = match second {
            126 => (usize::from(u16::from_be_bytes([rest[0], rest[1]])), &rest[2..]),
            127 => {
                let (length, rest) = rest.split_first_chunk().unwrap();
                (usize::try_from(u64::from_be_bytes(*length)).unwrap(), rest)
            }
            length => (usize::from(*length), rest),
        };
        if first & 0x0f == CLOSE {
            return (data, Some(rest[..length].to_vec()));
        }
        // The last frame may be cut off, if not all arrived.
        data.extend(&rest[..length.min(rest.len())]);
        bytes = &rest[length.min(rest.len())..];
    }
    (data, None)
}

/// Waits until so much of what was sent to a client waits for it in the kernel, and no less of it any more.
async fn under_way(bridge: &Bridge, client: &Client, least: u32) {
    comes_to_rest((bridge.addr, client.0.local_addr().unwrap()), least).await;
}

/// The kernel's persist timer sends the last bytes for which there is room after 200 ms.
async fn comes_to_rest(ends: (SocketAddr, SocketAddr), least: u32) {
    within(async {
        let mut before = 0;
        loop {
            let now = unsent_at(ends.0, ends.1);
            if now >= least && now == before {
                return;
            }
            before = now;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    })
    .await;
}

/// B4: the limits after the target's end, of ten seconds, again ten, and two, do not end the session while the
/// client takes what is under way to it. Nor are the client's own bytes cut off meanwhile.
#[tokio::test]
async fn b4_a_slow_reader_that_still_sends_has_the_targets_last_byte() {
    let (_bridge, client, mut target) = narrow_session().await;
    let bytes = pattern(1_250_000);
    let (reader, mut writer) = client.0.into_split();
    let began = Instant::now();
    let sending = async {
        within(target.write_all(&bytes)).await.unwrap();
        within(target.shutdown()).await.unwrap();
        let mut heard = Vec::new();
        target.read_to_end(&mut heard).await.unwrap();
        heard
    };
    let talking = async {
        let mut tick = interval(Duration::from_secs(1));
        for second in 0_u8..23 {
            tick.tick().await;
            writer.write_all(&frame(0x82, &[second])).await.unwrap();
        }
        writer.write_all(&frame(0x88, &1000_u16.to_be_bytes())).await.unwrap();
    };
    let (heard, received, ()) = tokio::join!(sending, read_slowly(reader, 2500), talking);
    assert!(began.elapsed() > Duration::from_secs(23), "the reader was slow");
    let (data, close) = payload(&received.unwrap());
    assert!(data == bytes, "{} of {}", data.len(), bytes.len());
    assert_eq!(close.unwrap()[..2], 1000_u16.to_be_bytes());
    assert_eq!(heard, (0..23).collect::<Vec<_>>());
}

/// B4: the same for the limit of two seconds after both peers have been told of the end.
#[tokio::test]
async fn b4_a_slow_reader_that_broke_the_protocol_is_told_so() {
    let (bridge, mut client, mut target) = narrow_session().await;
    within(target.write_all(&pattern(1_000_000))).await.unwrap();
    under_way(&bridge, &client, 500_000).await;
    client.write(&[0xff; 10]).await;
    let received = read_slowly_and_talk(client.0, &[0xff]).await;
    let (data, close) = payload(&received.unwrap());
    assert!(data == pattern(1_000_000)[..data.len()] && data.len() > 500_000);
    assert_eq!(close.unwrap()[..2], 1002_u16.to_be_bytes());
}

/// B4: the same for a slow target, however its client has ended.
#[tokio::test]
async fn b4_a_slow_target_that_still_sends_has_the_clients_last_byte() {
    let one = async |farewell: &'static [u8]| {
        let (_bridge, mut client, target) = narrow_session().await;
        let bytes = pattern(1_000_000);
        client.write(&[frame(0x82, &bytes), farewell.to_vec()].concat()).await;
        let (mut up, mut down) = client.0.split();
        let leaving = async {
            within(down.shutdown()).await.unwrap();
            tokio::io::copy(&mut up, &mut tokio::io::sink()).await
        };
        let (_, received) = tokio::join!(leaving, read_slowly_and_talk(target, b"!"));
        let received = received.unwrap();
        assert!(received == bytes, "{} of {}", received.len(), bytes.len());
    };
    tokio::join!(one(&[0x88, 0x80, 0, 0, 0, 0]), one(&[]));
}

/// B4: a client that has just taken the last byte may go on sending for ten seconds, as one whose target has just ended.
#[tokio::test]
async fn b4_a_client_that_has_taken_all_at_last_is_still_heard() {
    let (mut client, mut target, bytes) = target_over().await;
    seconds_pass(19).await;
    let data = take_all(&mut client).await;
    assert_eq!(payloads(&data), bytes);
    seconds_pass(6).await;
    client.write(&frame(0x82, b"thanks")).await;
    let mut heard = [0; 6];
    meanwhile(target.read_exact(&mut heard)).await.unwrap();
    assert_eq!(&heard, b"thanks");
}

/// B4: a client that has just taken the close frame has two seconds to end too, as it has where it takes that at once.
#[tokio::test]
async fn b4_a_client_that_has_taken_the_close_frame_at_last_may_end_in_order() {
    let listener = listener().await;
    let bridge = Bridge::start(Config { run_once: true, ..config(address_of(&listener)) });
    let mut client = bridge.client_by(narrow_socket(NARROW)).await;
    let mut target = accept(&listener).await;
    // So little that our kernel has all of it.
    within(target.write_all(&pattern(200_000))).await.unwrap();
    under_way(&bridge, &client, 150_000).await;
    client.write(&[0xff; 10]).await;
    pause();
    // The deadline is two seconds after the end, and ten seconds after that, each passed in the second that follows.
    seconds_pass(13).await;
    take_all(&mut client).await;
    let taken = tokio::time::Instant::now();
    while !bridge.serving.is_finished() {
        assert!(taken.elapsed() < Duration::from_secs(10), "it ends");
        seconds_pass(1).await;
    }
    assert!(taken.elapsed() > Duration::from_secs(2), "{:?}", taken.elapsed());
}

/// B4, F10: a client that has taken nothing for a while, takes something, and then nothing again for a while, has all that its target
/// has sent, although it was by its taking something that the target's end was noticed.
#[tokio::test]
async fn b4_f10_a_client_that_has_begun_to_take_has_the_last_byte_of_a_target_that_failed() {
    let (bridge, mut client, mut target) = narrow_session().await;
    let addr = client.0.local_addr().unwrap();
    // Hardly more than our kernel has room for.
    let piece = pattern(50_000);
    let (mut sent, mut before) = (0, 0);
    while before < 500_000 || unsent_at(bridge.addr, addr) > before {
        before = unsent_at(bridge.addr, addr);
        within(target.write_all(&piece)).await.unwrap();
        sent += piece.len();
        tokio::time::sleep(TICK).await;
        settle().await;
    }
    pause();
    seconds_pass(45).await;
    reset(target);
    // Until the bridge has sent the rest, behind which it finds that the target has failed.
    let (mut taken, mut part) = (Vec::new(), vec![0; 20_000]);
    let mut is_refilled = false;
    for _ in 0..10_000 {
        let before = unsent_at(bridge.addr, addr);
        if let Ok(length) = client.0.try_read(&mut part) {
            taken.extend(&part[..length]);
        }
        settle().await;
        is_refilled = unsent_at(bridge.addr, addr) > before;
        if is_refilled {
            break;
        }
    }
    assert!(is_refilled, "{} of {sent}", taken.len());
    seconds_pass(25).await;
    resume();
    within(client.0.read_to_end(&mut taken)).await.unwrap();
    let (data, close) = payload(&taken);
    assert_eq!(data.len(), sent);
    assert_eq!(close.unwrap()[..2], 1011_u16.to_be_bytes());
}

/// Reads until neither kernel has anything more for this client.
async fn take_all(client: &mut Client) -> Vec<u8> {
    let ends = (client.0.peer_addr().unwrap(), client.0.local_addr().unwrap());
    let (mut taken, mut part) = (Vec::new(), vec![0; 60_000]);
    loop {
        let has_come = unsent_at(ends.0, ends.1) == 0;
        settle().await;
        match client.0.try_read(&mut part) {
            Ok(length @ 1..) => taken.extend(&part[..length]),
            _ if has_come => return taken,
            _ => {}
        }
    }
}

/// L4: a client that takes nothing for the most of a minute is not expected to take the rest. The runtime's clock is paused meanwhile.
#[tokio::test]
async fn l4_a_client_that_takes_nothing_after_the_end_is_given_up() {
    let (bridge, mut client, mut target) = narrow_session().await;
    within(target.write_all(&pattern(1_000_000))).await.unwrap();
    under_way(&bridge, &client, 500_000).await;
    client.write(&[0xff; 10]).await;
    pause();
    lasts_for_most_of_a_minute(|| client.0.try_write(&[0xff]).is_ok()).await;
}

/// L4: nobody reads what a client sends while its target takes nothing. The runtime's clock is paused once the client has gone.
#[tokio::test]
async fn l4_a_client_that_is_reset_while_its_target_is_stuck_is_noticed() {
    let target = narrow_listener();
    let config = Config { run_once: true, ..config(address_of(&target)) };
    let bridge = Bridge::start(config);
    let mut client = bridge.client().await;
    let _target = accept(&target).await;
    let header = header(0x82, 1 << 40);
    client.write(&header).await;
    let bytes = pattern(64 << 20);
    assert!(write_until_stuck(&mut client.0, &bytes).await < bytes.len());
    reset(client.0);
    pause();
    let gone = tokio::time::Instant::now();
    while !bridge.serving.is_finished() {
        assert!(gone.elapsed() < Duration::from_secs(61), "it is noticed");
        seconds_pass(1).await;
    }
    assert_eq!(bridge.outcome().await, Outcome::RunOnce);
}

/// B13: a session whose time is over ends a minute later, however little of what is under way its client takes at a time. The
/// runtime's clock is paused; the time between two reads passes at once.
#[tokio::test]
async fn b13_a_client_that_takes_little_keeps_no_session_beyond_its_time() {
    let listener = listener().await;
    let upkeep = Upkeep { timeout: Some(DEADLINE), ..Upkeep::default() };
    let config = Config { run_once: true, upkeep, ..config(address_of(&listener)) };
    let bridge = Bridge::start(config);
    let mut client = bridge.client_by(narrow_socket(NARROW)).await;
    let mut target = accept(&listener).await;
    within(target.write_all(&pattern(2_000_000))).await.unwrap();
    under_way(&bridge, &client, 1_500_000).await;
    pause();
    advance(DEADLINE).await;
    let told = tokio::time::Instant::now();
    let mut read = 0;
    while !bridge.serving.is_finished() {
        assert!(told.elapsed() < Duration::from_secs(80), "{read} bytes are taken");
        advance(Duration::from_secs(8)).await;
        // Its kernel makes room for more when so much is read.
        read += meanwhile(client.0.read(&mut vec![0; 60_000])).await.unwrap();
    }
    assert!(told.elapsed() > Duration::from_secs(50), "{:?}", told.elapsed());
    // Nothing of it stays in our kernel for the client to take later.
    let end = meanwhile(client.0.read_to_end(&mut Vec::new())).await.unwrap_err();
    assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset);
}

/// B4: a session that is over waits for a target that is busy. The runtime's clock is paused meanwhile.
#[tokio::test]
async fn b4_a_target_that_is_busy_at_the_end_has_all_later() {
    let (bridge, mut target, sent) = session_over().await;
    seconds_pass(25).await;
    assert!(!bridge.serving.is_finished());
    resume();
    let mut read = Vec::new();
    within(target.read_to_end(&mut read)).await.unwrap();
    assert!(read == sent, "{} bytes", read.len());
}

/// B4, L5: what a target has not begun to take within a minute of the end of its session is given up, and it is told so.
#[tokio::test]
async fn b4_l5_what_nobody_takes_after_the_end_is_given_up_within_a_minute() {
    let (bridge, mut target, sent) = session_over().await;
    lasts_for_most_of_a_minute(|| !bridge.serving.is_finished()).await;
    resume();
    let mut read = Vec::new();
    let end = within(target.read_to_end(&mut read)).await.unwrap_err();
    assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset);
    assert!(sent.starts_with(&read));
}

/// B4: a client that takes a little four times a minute has all of it, however long that takes.
#[tokio::test]
async fn b4_a_client_that_takes_a_little_now_and_then_has_the_last_byte() {
    let (mut client, _target, bytes) = target_over().await;
    let (mut read, mut part) = (Vec::new(), vec![0; 60_000]);
    loop {
        seconds_pass(15).await;
        // Its kernel makes room for more when so much is read.
        match meanwhile(client.0.read(&mut part)).await.unwrap() {
            0 => break,
            length => read.extend(&part[..length]),
        }
    }
    assert_eq!(payloads(&read), bytes);
}

/// L4, L6: a client that takes nothing from the end of its target on is given up within a minute.
#[tokio::test]
async fn l4_a_client_that_takes_nothing_after_its_targets_end_is_given_up() {
    let (client, _target, _) = target_over().await;
    lasts_for_most_of_a_minute(|| client.0.try_write(&frame(0x82, b"x")).is_ok()).await;
}

/// A session whose target has sent much and has ended, and whose client has taken little of that. The clock is paused from then on.
async fn target_over() -> (Client, TcpStream, Vec<u8>) {
    let listener = listener().await;
    let bridge = Bridge::start(config(address_of(&listener)));
    let client = bridge.client_by(narrow_socket(NARROW)).await;
    let mut target = accept(&listener).await;
    let bytes = pattern(2_000_000);
    within(target.write_all(&bytes)).await.unwrap();
    under_way(&bridge, &client, 1_500_000).await;
    within(target.shutdown()).await.unwrap();
    pause();
    (client, target, bytes)
}

/// The payload of all data frames.
fn payloads(mut frames: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    while let [first, second, rest @ ..] = frames {
        let (length, rest) = match (*second, rest) {
            (126, [a, b, rest @ ..]) => (usize::from(u16::from_be_bytes([*a, *b])), rest),
            (127, _) => {
                let (length, rest) = rest.split_first_chunk().unwrap();
                (usize::try_from(u64::from_be_bytes(*length)).unwrap(), rest)
            }
            (length, rest) => (usize::from(length), rest),
        };
        let (payload, rest) = rest.split_at(length);
        if *first == 0x82 {
            all.extend(payload);
        }
        frames = rest;
    }
    all
}

/// L5: a client that has closed its session and its connection leaves no megabytes in the kernel that nothing counts.
#[tokio::test]
async fn l5_b4_what_a_client_leaves_unread_is_counted_until_it_is_given_up() {
    let listener = listener().await;
    let bridge = Bridge::start(Config { run_once: true, ..config(address_of(&listener)) });
    let mut client = bridge.client_by(narrow_socket(NARROW)).await;
    let mut target = accept(&listener).await;
    within(target.write_all(&pattern(2_000_000))).await.unwrap();
    under_way(&bridge, &client, 1_500_000).await;
    client.write(&frame(0x88, &[0x03, 0xe8])).await;
    within(client.0.shutdown()).await.unwrap();
    // The bridge tells the target, whose end comes then, too.
    assert_eq!(within(target.read(&mut [0; 1])).await.unwrap(), 0);
    drop(target);
    pause();
    lasts_for_most_of_a_minute(|| !bridge.serving.is_finished()).await;
    resume();
    let end = within(client.0.read_to_end(&mut Vec::new())).await.unwrap_err();
    assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset);
}

/// Waits, on the runtime's clock, which is paused, until this does not last any more.
async fn lasts_for_most_of_a_minute(lasts: impl Fn() -> bool) {
    let began = tokio::time::Instant::now();
    while lasts() {
        assert!(began.elapsed() < Duration::from_secs(61), "it ends");
        seconds_pass(1).await;
    }
    assert!(began.elapsed() > Duration::from_secs(30), "{:?}", began.elapsed());
}

/// So many seconds on the runtime's clock, which is paused. In each the runtime looks at its sockets, which a busy one does only
/// every 61 turns.
async fn seconds_pass(count: u64) {
    for _ in 0..count {
        advance(Duration::from_secs(1)).await;
        settle().await;
    }
}

/// Lets all other tasks do what they can.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// A session that its client has closed, and whose target has taken nothing yet, when the bridge has written all of it; and what
/// the client has sent. The clock is paused from then on.
async fn session_over() -> (Bridge, TcpStream, Vec<u8>) {
    let listener = narrow_listener();
    let bridge = Bridge::start(Config { run_once: true, ..config(address_of(&listener)) });
    let mut client = bridge.client().await;
    let target = accept(&listener).await;
    let sent = pattern(500_000);
    client.write(&frame(0x82, &sent)).await;
    client.write(&frame(0x88, &[0x03, 0xe8])).await;
    let ends = (target.peer_addr().unwrap(), target.local_addr().unwrap());
    // The bridge answers the Close once it has written all before it, and the client's end then comes as well.
    within(async {
        assert_eq!(client.receive_close().await.0, 1000);
        drop(client);
    })
    .await;
    comes_to_rest(ends, 400_000).await;
    pause();
    (bridge, target, sent)
}
