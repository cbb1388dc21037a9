//! Sessions in which nothing moves, because one peer takes nothing, and the other may have gone: L4.
//!
//! The tests do not wait for minutes: the runtime's clock is paused once all is set up, and then moves
//! forward at once whenever all tasks wait.

use std::time::Duration;

use bridge::{Config, Outcome};
use socket2::{SockFilter, SockRef};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::yield_now;
use tokio::time::{Instant, advance, pause, resume, sleep, timeout};

use crate::harness::*;
use crate::skip::skip_even_in_ci;

/// How long a session may still last when one peer has gone and the other takes nothing.
const LIMIT: Duration = Duration::from_secs(61);

/// The same if that peer has gone without a sign, and must be sent a ping first.
const LIMIT_OF_SILENCE: Duration = Duration::from_secs(91);

/// More bytes than there is room for between the peers.
const MUCH: usize = 64 << 20;

/// A bridge that serves one session and ends with it.
async fn one_session() -> (Bridge, Client, TcpStream) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(32 * 1024).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(8).unwrap();
    let bridge = Bridge::start(Config { run_once: true, ..config(address_of(&listener)) });
    let client = bridge.client().await;
    let target = accept(&listener).await;
    (bridge, client, target)
}

/// A client that has sent what its target does not take. Returns how much of it went out.
async fn stuck_client() -> (Bridge, TcpStream, TcpStream, usize) {
    let (bridge, mut client, target) = one_session().await;
    client.write(&header(0x82, 1 << 40)).await;
    let sent = write_until_stuck(&mut client.0, &vec![0; MUCH]).await;
    assert!(sent < MUCH);
    (bridge, client.0, target, sent)
}

/// Reads until all that `sender` has written has left it.
async fn read_until_sent(reader: &mut TcpStream, sender: &TcpStream) -> usize {
    let mut read = 0;
    while unsent(sender) > 0 {
        read += within(reader.read(&mut [0; 10_000])).await.unwrap();
        sleep(Duration::from_millis(1)).await;
    }
    read
}

/// Waits for the end on the runtime's clock, which is paused and moves forward at once.
async fn ends_within(limit: Duration, bridge: Bridge) {
    pause();
    let began = Instant::now();
    let outcome = timeout(limit, bridge.serving).await.expect("the session ends");
    assert_eq!(outcome.unwrap().unwrap(), Outcome::RunOnce);
    assert!(began.elapsed() > Duration::from_secs(10), "not at once: {:?}", began.elapsed());
    resume();
}

/// All that the client has sent, and the end of its stream behind that, has come to the bridge.
#[tokio::test]
async fn f10_a_client_that_has_ended_while_its_target_takes_nothing_is_noticed() {
    let (bridge, client, mut target, _) = stuck_client().await;
    read_until_sent(&mut target, &client).await;
    drop(client);
    ends_within(LIMIT, bridge).await;
}

/// The client's kernel still has bytes that the bridge has no room for, and the end of the stream comes behind
/// them. That the client is gone shows only when something is sent to it.
#[tokio::test]
async fn f10_a_client_that_has_closed_with_bytes_unsent_is_noticed() {
    let (bridge, client, _target, _) = stuck_client().await;
    drop(client);
    ends_within(LIMIT, bridge).await;
}

#[tokio::test]
async fn f10_a_client_that_nothing_comes_back_from_is_noticed() {
    let (bridge, client, _target, _) = stuck_client().await;
    // BPF_RET | BPF_K, of 0 bytes: whatever comes in is dropped before TCP sees it.
    if filter(&client, &[SockFilter::new(0x06, 0, 0, 0)]) {
        ends_within(LIMIT_OF_SILENCE, bridge).await;
    }
}

/// The kernel's clock says how long a client has been silent, so this takes a minute: for all at once.
#[tokio::test]
async fn l6_l4_b7_f10_a_client_that_is_gone_is_noticed_by_its_silence() {
    tokio::join!(gone_before_its_pong(), gone_while_its_target_is_stuck());
}

/// Nothing is under way to the client but a pong.
async fn gone_before_its_pong() {
    let (bridge, mut client, _target) = one_session().await;
    // Segments with payload are dropped, and pure acknowledgements are not: else the client would send its ping again and again.
    let program = [
        // The length of the TCP header, from the high bits of byte 12, into the index register.
        SockFilter::new(0x30, 0, 0, 12),
        SockFilter::new(0x74, 0, 0, 4),
        SockFilter::new(0x64, 0, 0, 2),
        SockFilter::new(0x07, 0, 0, 0),
        // Whether the segment is longer than that: 0 bytes of it are let through, else all.
        SockFilter::new(0x80, 0, 0, 0),
        SockFilter::new(0x1c, 0, 0, 0),
        SockFilter::new(0x15, 1, 0, 0),
        SockFilter::new(0x06, 0, 0, 0),
        SockFilter::new(0x06, 0, 0, u32::MAX),
    ];
    if filter(&client.0, &program) {
        client.send(PING, b"").await;
        let outcome = timeout(LIMIT_OF_SILENCE, bridge.serving).await.expect("it is noticed");
        assert_eq!(outcome.unwrap().unwrap(), Outcome::RunOnce);
    }
}

/// Bytes of its target are under way to the client, and that target takes nothing.
async fn gone_while_its_target_is_stuck() {
    let (bridge, client, mut target, _) = stuck_client().await;
    if filter(&client, &[SockFilter::new(0x06, 0, 0, 0)]) {
        within(target.write_all(&[0; 1000])).await.unwrap();
        let outcome = timeout(LIMIT_OF_SILENCE, bridge.serving).await.expect("it is noticed");
        assert_eq!(outcome.unwrap().unwrap(), Outcome::RunOnce);
    }
}

/// Filters what comes to a socket. False: that is not allowed here.
fn filter(stream: &TcpStream, program: &[SockFilter]) -> bool {
    let Err(error) = SockRef::from(stream).attach_filter(program) else { return true };
    assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied, "{error}");
    skip_even_in_ci(&format!("an ordinary user may attach no socket filter: {error}"));
    false
}

/// B4: however long the target needs for all of it, as long as the target goes on taking something.
#[tokio::test]
async fn f10_b4_nothing_is_lost_while_a_target_takes_what_an_ended_client_has_sent() {
    let (bridge, client, mut target, sent) = stuck_client().await;
    let mut read = read_until_sent(&mut target, &client).await;
    drop(client);
    pause();
    let began = Instant::now();
    while read < sent {
        advance(Duration::from_secs(8)).await;
        let length = meanwhile(target.read(&mut vec![0; 60_000])).await.unwrap();
        assert!(length > 0, "{read} of {sent}");
        read += length;
    }
    assert!(began.elapsed() > 5 * LIMIT, "{:?}", began.elapsed());
    resume();
    drop(target);
    assert_eq!(bridge.outcome().await, Outcome::RunOnce);
}

/// Waits while the runtime's clock stands still. A paused clock moves forward whenever all tasks wait, also
/// for the kernel, whose own clock is not paused: so one task is always busy here.
pub(crate) async fn meanwhile<T>(future: impl Future<Output = T>) -> T {
    let busy = async {
        loop {
            yield_now().await;
        }
    };
    tokio::select! {
        done = future => done,
        never = busy => never,
    }
}

/// B4: a client that is there may wait for as long as its target likes.
#[tokio::test]
async fn f10_b4_a_client_that_is_still_there_is_not_given_up() {
    let (bridge, client, target, sent) = stuck_client().await;
    let client_addr = client.local_addr().unwrap();
    let (mut reader, mut writer) = client.into_split();
    pause();
    for _ in 0..120 {
        advance(Duration::from_secs(10)).await;
        // A ping may be acknowledged some 40 ms later.
        while unsent_at(bridge.addr, client_addr) > 0 {
            yield_now().await;
        }
    }
    resume();
    let reading = tokio::spawn(read_all(target));
    within(writer.write_all(&[0; 1000])).await.unwrap();
    within(writer.shutdown()).await.unwrap();
    assert_eq!(within(reading).await.unwrap(), sent + 1000);
    // What it heard meanwhile were pings without payload.
    let heard = read_some(&mut reader).await;
    assert!(heard.chunks(2).all(|frame| frame == [0x80 | PING, 0]), "{heard:?}");
    drop((reader, writer));
    assert_eq!(bridge.outcome().await, Outcome::RunOnce);
}

async fn read_all(mut stream: TcpStream) -> usize {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    bytes.len()
}

async fn read_some(reader: &mut OwnedReadHalf) -> Vec<u8> {
    let mut bytes = vec![0; 10_000];
    let length = within(reader.read(&mut bytes)).await.unwrap();
    bytes.truncate(length);
    bytes
}

/// The other way round: a client that takes nothing, and a target that has ended.
#[tokio::test]
async fn f10_a_target_that_has_ended_while_its_client_takes_nothing_is_noticed() {
    for is_reset in [false, true] {
        let listener = listener().await;
        let bridge = Bridge::start(Config { run_once: true, ..config(address_of(&listener)) });
        let mut client = bridge.client().await;
        let mut target = accept(&listener).await;
        let sent = write_until_stuck(&mut target, &vec![0; MUCH]).await;
        assert!(sent < MUCH);
        // This makes room, so that the target's end comes to the bridge.
        let mut left = sent;
        while unsent(&target) > 0 {
            left -= within(client.0.read(&mut [0; 10_000])).await.unwrap();
            sleep(Duration::from_millis(1)).await;
        }
        assert!(left > 1 << 20);
        if is_reset {
            reset(target);
        } else {
            drop(target);
        }
        ends_within(LIMIT, bridge).await;
        drop(client);
    }
}

/// B4: as long as the client goes on taking something, it gets all.
#[tokio::test]
async fn f10_b4_a_client_that_takes_little_has_all_that_an_ended_target_has_sent() {
    let (bridge, client, target) = session_of_one().await;
    let (mut reader, writer) = client.0.into_split();
    let sending = tokio::spawn(send_all(target));
    let mut read = within(reader.read(&mut vec![0; 60_000])).await.unwrap();
    pause();
    let began = Instant::now();
    while read < 3_000_000 {
        advance(Duration::from_secs(8)).await;
        let length = meanwhile(reader.read(&mut vec![0; 60_000])).await.unwrap();
        assert!(length > 0, "{read} bytes");
        read += length;
    }
    resume();
    assert!(began.elapsed() > 5 * LIMIT, "{:?}", began.elapsed());
    drop((reader, writer));
    within(sending).await.unwrap();
    assert_eq!(bridge.outcome().await, Outcome::RunOnce);
}

async fn send_all(mut target: TcpStream) {
    target.write_all(&vec![0; 3_000_000]).await.unwrap();
    target.shutdown().await.unwrap();
    let _ = target.read_to_end(&mut Vec::new()).await;
}

async fn session_of_one() -> (Bridge, Client, TcpStream) {
    let listener: TcpListener = listener().await;
    let bridge = Bridge::start(Config { run_once: true, ..config(address_of(&listener)) });
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(32 * 1024).unwrap();
    let client = Client::over(within(socket.connect(bridge.addr)).await.unwrap()).await;
    let target = accept(&listener).await;
    (bridge, client, target)
}
