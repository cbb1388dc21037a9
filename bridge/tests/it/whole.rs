//! Whole sessions: any bytes, in any frames, fragments and pieces, in every version of the protocol, both ways at once: L8.
//!
//! One number, the seed, determines all of a session, and a failure shows it. `SEED=7` begins with another seed than usual, and
//! `SESSIONS=1000` makes more sessions.

use data_encoding::BASE64;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::yield_now;

use crate::harness::*;
use crate::hixie::{ANSWER_75, ANSWER_76, HEAD_75, HEAD_76, KEY3};
use crate::numbers::Numbers;

/// How many sessions there are of each dialect.
const SESSIONS: u64 = 20;

/// How a client may speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    /// HyBi with this version: 13 is RFC 6455.
    Binary(u8),
    Base64(u8),
    Hixie75,
    Hixie76,
}

use Dialect::{Base64, Binary, Hixie75, Hixie76};

const DIALECTS: [Dialect; 8] =
    [Binary(7), Binary(8), Binary(13), Base64(7), Base64(8), Base64(13), Hixie75, Hixie76];

impl Dialect {
    /// The handshake, and the answer to it; for HyBi, only the end of the answer.
    fn handshake(self) -> (Vec<u8>, &'static str) {
        let hybi = |version: u8, protocol: &str| {
            let lines = format!("Sec-WebSocket-Protocol: {protocol}\r\nHost:");
            let head = HEAD.replace("Version: 13", &format!("Version: {version}"));
            (head.replace("Host:", &lines).into_bytes(), "\r\n\r\n")
        };
        match self {
            Binary(version) => hybi(version, "binary"),
            Base64(version) => hybi(version, "base64"),
            Hixie75 => (HEAD_75.into(), ANSWER_75),
            Hixie76 => ([HEAD_76.as_bytes(), KEY3].concat(), ANSWER_76),
        }
    }

    fn is_hixie(self) -> bool {
        matches!(self, Hixie75 | Hixie76)
    }

    /// A message's payload as it stands in frames.
    fn payload(self, message: &[u8]) -> Vec<u8> {
        match self {
            Binary(_) => message.to_vec(),
            _ => BASE64.encode(message).into_bytes(),
        }
    }

    /// What a client sends to end the session.
    fn farewell(self) -> Vec<u8> {
        match self {
            Hixie75 => Vec::new(),
            Hixie76 => vec![0xff, 0],
            _ => frame(0x88, &1000_u16.to_be_bytes()),
        }
    }
}

/// Some bytes, few or many.
fn bytes(numbers: &mut Numbers) -> Vec<u8> {
    let longest = [2, 300, 5_000, 60_000][numbers.below(4)];
    let length = numbers.below(longest);
    (0..length).map(|_| u8::try_from(numbers.below(256)).unwrap()).collect()
}

/// Cuts into parts of no more than some length, some of which are empty.
fn cut<'a>(numbers: &mut Numbers, mut bytes: &'a [u8], longest: usize) -> Vec<&'a [u8]> {
    let mut parts = Vec::new();
    while !bytes.is_empty() {
        let (part, rest) = bytes.split_at(numbers.below(longest + 1).min(bytes.len()));
        parts.push(part);
        bytes = rest;
    }
    parts
}

/// What a client sends.
#[derive(Default)]
struct Sent {
    wire: Vec<u8>,
    /// The payloads of its pings, in order.
    pings: Vec<Vec<u8>>,
}

impl Sent {
    fn new(numbers: &mut Numbers, dialect: Dialect, bytes: &[u8]) -> Self {
        let mut sent = Self::default();
        let longest = [3, 200, 70_000][numbers.below(3)];
        for message in cut(numbers, bytes, longest) {
            let payload = dialect.payload(message);
            if dialect.is_hixie() {
                sent.old_frame(numbers, &payload);
            } else {
                sent.message(numbers, &payload);
            }
        }
        sent
    }

    /// Adds a frame of an old draft. Line breaks within its base64 mean nothing.
    fn old_frame(&mut self, numbers: &mut Numbers, text: &[u8]) {
        self.wire.push(0);
        for part in cut(numbers, text, 76) {
            self.wire.extend(part);
            self.wire.extend([&b""[..], b"", b"\r\n", b"\n"][numbers.below(4)]);
        }
        self.wire.push(0xff);
    }

    fn message(&mut self, numbers: &mut Numbers, payload: &[u8]) {
        let longest = [2, 130, 70_000][numbers.below(3)];
        let mut fragments = cut(numbers, payload, longest);
        fragments.extend(vec![&b""[..]; numbers.below(2)]);
        if fragments.is_empty() {
            fragments.push(b"");
        }
        let last = fragments.len() - 1;
        // The bridge forwards text as bytes, too.
        let kind = [1, BINARY][numbers.below(2)];
        for (at, fragment) in fragments.into_iter().enumerate() {
            let opcode = if at == 0 { kind } else { 0 };
            let is_final = if at == last { 0x80 } else { 0 };
            self.frame(numbers, is_final | opcode, fragment);
            if numbers.below(20) == 0 && self.pings.len() < 100 {
                let ping = bytes(numbers);
                let ping = &ping[..ping.len().min(125)];
                self.frame(numbers, 0x80 | PING, ping);
                self.pings.push(ping.to_vec());
            }
        }
    }

    /// Adds a frame with a random mask.
    fn frame(&mut self, numbers: &mut Numbers, first: u8, payload: &[u8]) {
        let mut header = header(first, payload.len() as u64);
        header.truncate(header.len() - MASK.len());
        let mask = [(); 4].map(|()| u8::try_from(numbers.below(256)).unwrap());
        self.wire.extend(header);
        self.wire.extend(mask);
        self.wire.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    }
}

/// Writes in pieces, and lets other tasks run between some of them.
async fn write(writer: &mut OwnedWriteHalf, mut numbers: Numbers, bytes: &[u8]) {
    // Byte by byte only if there are few bytes.
    let longest = [1, 7, 1_500, 65_536][numbers.below(4)].max(bytes.len() / 2_000);
    for piece in cut(&mut numbers, bytes, longest) {
        within(writer.write_all(piece)).await.unwrap();
        for _ in 0..numbers.below(3) {
            yield_now().await;
        }
    }
}

/// Reads `length` bytes of what the target has sent, and the answers to `pings` pings.
async fn read(
    reader: &mut BufReader<OwnedReadHalf>,
    dialect: Dialect,
    length: usize,
    pings: usize,
) -> (Vec<u8>, Vec<Vec<u8>>) {
    let (mut data, mut answers) = (Vec::new(), Vec::new());
    while data.len() < length || answers.len() < pings {
        if dialect.is_hixie() {
            let mut frame = Vec::new();
            within(reader.read_until(0xff, &mut frame)).await.unwrap();
            let text = frame.strip_prefix(&[0]).and_then(|rest| rest.strip_suffix(&[0xff]));
            data.extend(BASE64.decode(text.expect("a frame")).unwrap());
            continue;
        }
        match (within(next_frame(reader)).await, dialect) {
            ((PONG, payload), _) => answers.push(payload),
            ((BINARY, payload), Binary(_)) => data.extend(payload),
            ((1, payload), Base64(_)) => data.extend(BASE64.decode(&payload).unwrap()),
            (other, _) => panic!("unexpected frame {other:?}"),
        }
    }
    (data, answers)
}

/// The connection of a client that has had the answer to its handshake.
async fn connect(bridge: &Bridge, dialect: Dialect) -> TcpStream {
    let mut stream = bridge.connect().await;
    stream.set_nodelay(true).unwrap();
    let (head, answer) = dialect.handshake();
    within(stream.write_all(&head)).await.unwrap();
    let head = read_head(&mut stream).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{dialect:?}: {head}");
    if let Some((_, behind)) = answer.split_once("\r\n\r\n") {
        assert_eq!(read_exact(&mut stream, behind.len()).await, behind.as_bytes());
    }
    stream
}

/// One session: what was sent arrives, each way, and the target gets nothing else until the end.
async fn session_of(seed: u64, dialect: Dialect) {
    let mut numbers = Numbers(seed);
    let (up, down) = (bytes(&mut numbers), bytes(&mut numbers));
    let sent = Sent::new(&mut numbers, dialect, &up);
    let [of_client, of_target] = [1, 2].map(|way| Numbers(seed.wrapping_mul(3) + way));
    let listener = listener().await;
    let bridge = Bridge::to(&listener);
    let (reader, mut writer) = connect(&bridge, dialect).await.into_split();
    let mut reader = BufReader::new(reader);
    let target = accept(&listener).await;
    target.set_nodelay(true).unwrap();
    let (mut target_reader, mut target_writer) = target.into_split();
    let mut arrived = vec![0; up.len()];
    let (_, (data, pongs), ..) = tokio::join!(
        within(target_reader.read_exact(&mut arrived)),
        read(&mut reader, dialect, down.len(), sent.pings.len()),
        write(&mut writer, of_client, &sent.wire),
        write(&mut target_writer, of_target, &down),
    );
    assert!(arrived == up, "{dialect:?}, seed {seed}: up");
    assert!(data == down, "{dialect:?}, seed {seed}: down");
    assert_eq!(pongs, sent.pings, "{dialect:?}, seed {seed}");
    within(writer.write_all(&dialect.farewell())).await.unwrap();
    if dialect == Hixie75 {
        within(writer.shutdown()).await.unwrap();
    }
    let mut rest = Vec::new();
    within(target_reader.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(rest, b"", "{dialect:?}, seed {seed}: more than was sent");
}

/// A number from the environment, or the default.
fn asked_for(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |number| number.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l8_any_bytes_in_any_frames_arrive_equal_in_every_protocol() {
    let (first, sessions) = (asked_for("SEED", 1), asked_for("SESSIONS", SESSIONS));
    println!("{sessions} sessions of each dialect, from SEED={first} on");
    for seed in (first..).take(usize::try_from(sessions).unwrap()) {
        for dialect in DIALECTS {
            let session = tokio::spawn(session_of(seed, dialect));
            session.await.unwrap_or_else(|panic| panic!("{dialect:?}, SEED={seed}: {panic}"));
        }
    }
}
