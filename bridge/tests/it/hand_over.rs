//! O2: hand-overs. A bridge is stopped, and another bridge goes on with its saved state and its descriptors, as the new binary
//! does after exec.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use bridge::{BridgeState, Config, Descriptors, Frozen, Orders, Readiness, Upkeep};
use data_encoding::BASE64;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::harness::*;

/// How long a bridge may take to stop for a hand-over in these tests.
const WITHIN: Duration = Duration::from_secs(10);

/// A bridge that is handed over again and again.
struct Images {
    bridge: Bridge,
    /// Makes the configuration, which is the same after each hand-over.
    config: Box<dyn Fn() -> Config>,
}

impl Images {
    fn start(config: impl Fn() -> Config + 'static) -> Self {
        Self { bridge: Bridge::start(config()), config: Box::new(config) }
    }

    async fn freeze(&self) -> Frozen {
        within(self.bridge.hand_over.freeze(WITHIN)).await.unwrap()
    }

    /// Hands the bridge over: another one goes on in its place. Gives how many bytes were read from a peer and not written to the
    /// other.
    async fn next(&mut self) -> usize {
        let frozen = self.freeze().await;
        assert_eq!(frozen.rest.sessions(), 0);
        let state = serde_json::to_string(&frozen.state).unwrap();
        let mut descriptors = kept(&frozen.state);
        let bytes = frozen.bytes.clone();
        let pending = bytes.len();
        // The old bridge stays stopped for ever, as it does when exec has replaced the program of its process.
        std::mem::forget(frozen);
        let state: BridgeState = serde_json::from_str(&state).unwrap();
        let config = (self.config)();
        let orders = Orders::from(self.bridge.shutdown.clone());
        self.bridge.hand_over = orders.hand_over.clone();
        let frozen = Frozen::of(state, bytes);
        let resumed = bridge::resume(frozen, &mut descriptors, config.into(), orders);
        self.bridge.hand_over.release();
        self.bridge.serving = tokio::spawn(resumed.unwrap());
        pending
    }
}

/// The descriptors, as exec(2) would keep them: duplicates, by their old numbers.
fn kept(state: &BridgeState) -> Descriptors {
    let mut descriptors = Descriptors::default();
    for number in state.descriptors() {
        // SAFETY: the stopped bridge has the descriptor open, and does not end before this returns.
        let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
        let duplicate: OwnedFd = borrowed.try_clone_to_owned().unwrap();
        descriptors.insert(number, duplicate);
    }
    descriptors
}

/// Numbers without a pattern, the same each time (Marsaglia's xorshift).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(end).unwrap()).unwrap()
    }
}

/// How a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Speech {
    Binary,
    Base64,
    Hixie,
}

impl Speech {
    /// A message with this payload. In RFC 6455's framing it is sometimes in two fragments, with a ping between them.
    fn message(self, payload: &[u8], numbers: &mut Numbers) -> Vec<u8> {
        let text = BASE64.encode(payload).into_bytes();
        let (opcode, payload) = match self {
            Self::Hixie => return [&[0], &text[..], &[0xff]].concat(),
            Self::Base64 => (1, &text[..]),
            Self::Binary => (2, payload),
        };
        let at = numbers.below(payload.len() + 1);
        let (first, last) = payload.split_at(at);
        match numbers.below(3) {
            0 => [frame(opcode, first), frame(9 | 0x80, b"?"), frame(0x80, last)].concat(),
            _ => frame(0x80 | opcode, payload),
        }
    }

    /// The payload of the next message from the bridge, which sends whole ones; nothing if it is a pong.
    async fn receive(self, from: &mut BufReader<OwnedReadHalf>) -> Vec<u8> {
        if self == Self::Hixie {
            assert_eq!(from.read_u8().await.unwrap(), 0);
            let mut text = Vec::new();
            loop {
                match from.read_u8().await.unwrap() {
                    0xff => return BASE64.decode(&text).unwrap(),
                    byte => text.push(byte),
                }
            }
        }
        let [first, second] = [from.read_u8().await.unwrap(), from.read_u8().await.unwrap()];
        let length = match second {
            126 => u64::from(from.read_u16().await.unwrap()),
            127 => from.read_u64().await.unwrap(),
            length => u64::from(length),
        };
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        from.read_exact(&mut payload).await.unwrap();
        match first {
            0x8a => Vec::new(),
            0x81 => BASE64.decode(&payload).unwrap(),
            _ => payload,
        }
    }
}

const HEAD_76: &[u8] = b"GET /demo HTTP/1.1\r\nHost: example.com\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key2: 12998 5 Y3 1  .P00\r\nSec-WebSocket-Protocol: base64\r\n\
    Upgrade: WebSocket\r\nSec-WebSocket-Key1: 4 @1  46546xW%0l 1 5\r\n\
    Origin: http://example.com\r\n\r\n^n:ds[4U";
const HEAD_75: &[u8] = b"GET /demo HTTP/1.1\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n\
    Host: example.com\r\nOrigin: http://example.com\r\nWebSocket-Protocol: base64\r\n\r\n";

fn head(version: u8, protocol: &str) -> Vec<u8> {
    let head = HEAD.replace("Version: 13", &format!("Version: {version}"));
    head.replace("\r\n\r\n", &format!("\r\nSec-WebSocket-Protocol: {protocol}\r\n\r\n")).into()
}

/// Sends all of it in messages of any length, in pieces of any length.
async fn send_all(mut to: OwnedWriteHalf, all: Vec<u8>, speech: Speech, mut numbers: Numbers) {
    let mut rest = &all[..];
    let mut pending = Vec::new();
    while !rest.is_empty() || !pending.is_empty() {
        if !rest.is_empty() {
            let longest = [3, 300, 40_000][numbers.below(3)];
            let (payload, behind) = rest.split_at(numbers.below(longest).min(rest.len()));
            rest = behind;
            pending.extend(speech.message(payload, &mut numbers));
        }
        // The piece mostly ends in the middle of a frame.
        let length = if rest.is_empty() { pending.len() } else { numbers.below(pending.len() + 1) };
        to.write_all(&pending[..length]).await.unwrap();
        pending.drain(..length);
    }
    std::future::pending::<()>().await;
}

/// Receives `length` bytes of payload, once `begun` says so.
async fn receive_all(
    from: OwnedReadHalf,
    length: usize,
    speech: Speech,
    mut begun: watch::Receiver<bool>,
) -> Vec<u8> {
    begun.wait_for(|begun| *begun).await.unwrap();
    let (mut from, mut all) = (BufReader::new(from), Vec::new());
    while all.len() < length {
        all.extend(speech.receive(&mut from).await);
    }
    all
}

/// Hand-overs while bytes go both ways, none of which is lost, doubled or out of its place: at first nobody reads, until bytes
/// wait in the bridge.
async fn goes_on_to_the_byte(head: Vec<u8>, answer_behind_head: usize, speech: Speech) {
    const LENGTH: usize = 6_000_000;
    let target = listener().await;
    let address = target.local_addr().unwrap();
    let mut images = Images::start(move || {
        let (host, port) = (address.ip().to_string(), address.port());
        config(bridge::Destination::from(bridge::Address { host, port }))
    });
    let mut client = images.bridge.connect().await;
    within(client.write_all(&head)).await.unwrap();
    assert!(read_head(&mut client).await.contains("101"));
    read_exact(&mut client, answer_behind_head).await;
    let mut target = accept(&target).await;
    for peer in [&client, &target] {
        socket2::SockRef::from(peer).set_recv_buffer_size(100_000).unwrap();
    }
    let (up, down) = (pattern(LENGTH), pattern(LENGTH + 7));
    let (from_bridge, to_bridge) = client.into_split();
    let (start, mut begun) = watch::channel(false);
    let sending = tokio::spawn(send_all(to_bridge, up.clone(), speech, Numbers(7)));
    let receiving = tokio::spawn(receive_all(from_bridge, down.len(), speech, begun.clone()));
    let (mut from_client, mut to_client) = target.split();
    let expected = down.clone();
    let target = async {
        let write = async { to_client.write_all(&expected).await.unwrap() };
        let mut all = vec![0; LENGTH];
        let read = async {
            begun.wait_for(|begun| *begun).await.unwrap();
            from_client.read_exact(&mut all).await.unwrap();
        };
        tokio::join!(write, read);
        all
    };
    let hand_overs = async {
        let mut pending = 0;
        while pending < 5 {
            pending += usize::from(images.next().await > 0);
            tokio::task::yield_now().await;
        }
        start.send_replace(true);
        for _ in 0..15 {
            images.next().await;
            tokio::task::yield_now().await;
        }
    };
    // Megabytes are saved and resumed again and again, which takes a busy machine its time.
    let moved = timeout(3 * DEADLINE, async { tokio::join!(target, hand_overs) });
    let (received, ()) = moved.await.expect("it happens before the deadline");
    assert!(received == up, "{speech:?}: upwards");
    assert!(within(receiving).await.unwrap() == down, "{speech:?}: downwards");
    sending.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn o2_rfc_6455_goes_on_to_the_byte() {
    goes_on_to_the_byte(head(13, "binary"), 0, Speech::Binary).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn o2_base64_goes_on_to_the_byte() {
    goes_on_to_the_byte(head(8, "base64"), 0, Speech::Base64).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn o2_hixie_76_goes_on_to_the_byte() {
    goes_on_to_the_byte(HEAD_76.to_vec(), 16, Speech::Hixie).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn o2_hixie_75_goes_on_to_the_byte() {
    goes_on_to_the_byte(HEAD_75.to_vec(), 0, Speech::Hixie).await;
}

fn to(target: &tokio::net::TcpListener) -> impl Fn() -> Config + use<> {
    let address = target.local_addr().unwrap();
    move || {
        let (host, port) = (address.ip().to_string(), address.port());
        config(bridge::Destination::from(bridge::Address { host, port }))
    }
}

#[tokio::test]
async fn o2_one_that_is_called_off_goes_on_as_before() {
    let target = listener().await;
    let images = Images::start(to(&target));
    let mut client = images.bridge.client().await;
    let mut target_end = accept(&target).await;
    // Many are called off, one right after the other, before any task has gone on.
    for _ in 0..50 {
        drop(images.freeze().await);
    }
    for round in 0..3 {
        let frozen = images.freeze().await;
        client.send(BINARY, &[round]).await;
        let mut late = images.bridge.connect().await;
        late.write_all(HEAD.as_bytes()).await.unwrap();
        drop(frozen);
        assert_eq!(read_exact(&mut target_end, 1).await, [round]);
        within(target_end.write_all(&[round])).await.unwrap();
        assert_eq!(client.receive().await, (BINARY, vec![round]));
        assert!(read_head(&mut late).await.starts_with("HTTP/1.1 101 "));
        accept(&target).await;
    }
}

/// Connections that have sent nothing or a part of a head, or have had an answer, and one that comes later.
#[tokio::test]
async fn o2_who_has_no_session_yet_gets_one_from_the_next_image() {
    let target = listener().await;
    let mut images = Images::start(to(&target));
    let mut silent = images.bridge.connect().await;
    let mut begun = images.bridge.connect().await;
    within(begun.write_all(&HEAD.as_bytes()[..30])).await.unwrap();
    let mut kept_alive = images.bridge.connect().await;
    let request = b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n";
    within(kept_alive.write_all(request)).await.unwrap();
    let answer = read_head(&mut kept_alive).await;
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    let length: usize = answer
        .to_lowercase()
        .split("content-length: ")
        .nth(1)
        .and_then(|rest| rest.split("\r\n").next()?.parse().ok())
        .unwrap();
    read_exact(&mut kept_alive, length).await;
    for _ in 0..3 {
        images.next().await;
    }
    let mut late = images.bridge.connect().await;
    within(begun.write_all(&HEAD.as_bytes()[30..])).await.unwrap();
    for stream in [&mut silent, &mut kept_alive, &mut late] {
        within(stream.write_all(HEAD.as_bytes())).await.unwrap();
    }
    let mut clients = Vec::new();
    for (mut stream, byte) in [silent, begun, kept_alive, late].into_iter().zip(0..) {
        assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 101 "));
        let mut client = Client(stream);
        client.send(BINARY, &[byte]).await;
        clients.push(client);
    }
    // Clients that came together may reach their targets in any order.
    for _ in 0..clients.len() {
        let mut end = accept(&target).await;
        let byte = read_exact(&mut end, 1).await[0];
        within(end.write_all(&[byte])).await.unwrap();
        let client = &mut clients[usize::from(byte)];
        assert_eq!(client.receive().await, (BINARY, vec![byte]));
    }
}

#[tokio::test]
async fn o2_w4_a_held_client_is_served_by_the_program_that_the_next_image_finds() {
    let (supervisor, _) = program(Readiness::Waiting, true, DEADLINE);
    let readiness = supervisor.readiness.clone();
    let config = move || {
        let (sender, receiver) = tokio::sync::watch::channel(readiness.borrow().clone());
        let (mut seen, sender_of_this) = (readiness.subscribe(), sender);
        tokio::spawn(async move {
            while seen.changed().await.is_ok() {
                let now = seen.borrow_and_update().clone();
                sender_of_this.send_replace(now);
            }
        });
        let program = bridge::Program {
            readiness: receiver,
            hold: DEADLINE,
            respawns: true,
            recheck: std::sync::Arc::default(),
            served: std::sync::Arc::default(),
            visitors: bridge::Counter::new().0,
        };
        crate::harness::config(bridge::Destination::from(program))
    };
    let mut images = Images::start(config);
    let mut client = images.bridge.client().await;
    client.send(BINARY, b"early").await;
    for _ in 0..3 {
        images.next().await;
    }
    let target = listener().await;
    supervisor.readiness.send_replace(ready(&target));
    let mut program = accept(&target).await;
    assert_eq!(read_exact(&mut program, 5).await, b"early");
    images.next().await;
    within(program.write_all(b"hello")).await.unwrap();
    assert_eq!(client.receive().await, (BINARY, b"hello".to_vec()));
    client.close(1000).await;
    assert_eq!(client.receive_close().await.0, 1000);
}

#[tokio::test]
async fn o2_a_recording_goes_on_to_the_byte() {
    let directory = tempfile::tempdir().unwrap();
    let target = listener().await;
    let (plain, path) = (to(&target), directory.path().join("session"));
    let mut images = Images::start(move || Config { record: Some(path.clone()), ..plain() });
    let mut client = images.bridge.client().await;
    let mut target_end = accept(&target).await;
    for round in 0..10 {
        client.send(BINARY, format!("up{round};").as_bytes()).await;
        read_exact(&mut target_end, 4).await;
        images.next().await;
        within(target_end.write_all(format!("down{round};").as_bytes())).await.unwrap();
        client.receive().await;
    }
    client.close(1000).await;
    client.receive_close().await;
    drop(target_end);
    client.ends().await;
    let file = directory.path().join("session.1");
    let text = within(async {
        loop {
            let text = std::fs::read_to_string(&file).unwrap();
            if text.ends_with("'EOF'];\n") {
                return text;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    let payloads: String = text
        .lines()
        .filter_map(|line| line.strip_suffix("',"))
        .fold(String::new(), |all, line| all + line.rsplit(['{', '}']).next().unwrap());
    let rounds: Vec<_> = (0..10).map(|round| format!("up{round};down{round};")).collect();
    let expected = rounds.concat();
    assert_eq!(payloads, expected);
    assert_eq!(text.matches("VNC_frame_data").count(), 1);
    assert!(!directory.path().join("session.2").exists());
}

#[tokio::test]
async fn o2_b13_a_sessions_time_is_the_same_in_every_image() {
    let target = listener().await;
    let plain = to(&target);
    let timeout = Some(Duration::from_secs(2));
    let mut images = Images::start(move || Config {
        upkeep: Upkeep { timeout, ..Upkeep::default() },
        ..plain()
    });
    let began = std::time::Instant::now();
    let mut client = images.bridge.client().await;
    let _target = accept(&target).await;
    let ends = async {
        assert_eq!(client.receive_close().await, (1000, "session timeout".to_owned()));
    };
    let hand_overs = async {
        loop {
            images.next().await;
            sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        () = ends => {}
        () = hand_overs => {}
    }
    let time = began.elapsed();
    assert!(time >= Duration::from_secs(2) && time < Duration::from_secs(10), "{time:?}");
}

/// Whatever values a state has, it gives an error or a bridge, and no panic.
#[tokio::test]
async fn o2_l3_a_state_that_cannot_be_is_an_error() {
    let target = listener().await;
    let images = Images::start(to(&target));
    let mut client = images.bridge.client().await;
    let _target = accept(&target).await;
    client.write(&frame(0x80 | BINARY, &[1; 20])[..9]).await;
    let frozen = images.freeze().await;
    let good = serde_json::to_string(&frozen.state).unwrap();
    let mut numbers = Numbers(3);
    let (mut refused, mut taken) = (0, 0);
    for _ in 0..3000 {
        let mut text = good.clone().into_bytes();
        for _ in 0..=numbers.below(3) {
            let at = numbers.below(text.len());
            text[at] = b"0123456789-\"{}[],:etrunlfas"[numbers.below(27)];
        }
        let Ok(state) = serde_json::from_slice::<BridgeState>(&text) else {
            refused += 1;
            continue;
        };
        let (sender, config) =
            (tokio::sync::watch::Sender::new(bridge::Shutdown::Run), (images.config)());
        let mut descriptors = kept(&frozen.state);
        let frozen = Frozen::of(state, frozen.bytes.clone());
        match bridge::resume(frozen, &mut descriptors, config.into(), sender.into()) {
            Ok(_) => taken += 1,
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 100 && taken > 10, "{refused} {taken}");
    drop(frozen);
    assert!(
        bridge::resume(
            Frozen::of(serde_json::from_str(&good).unwrap(), Vec::new()),
            &mut Descriptors::default(),
            (images.config)().into(),
            tokio::sync::watch::Sender::new(bridge::Shutdown::Run).into(),
        )
        .is_err()
    );
}
