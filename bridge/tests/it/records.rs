//! The records in the log: of sessions (B10), and of clients without a session.

use std::io;
use std::sync::{Arc, Mutex};

use tokio::io::AsyncWriteExt;
use tracing_subscriber::fmt::MakeWriter;

use crate::harness::*;

/// A log that the test can read.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// The lines that contain a text.
    fn lines(&self, text: &str) -> Vec<String> {
        let log = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        log.lines().filter(|line| line.contains(text)).map(str::to_owned).collect()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        io::Write::write(&mut *self.0.lock().unwrap(), bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// A log of this thread's records. A test's runtime uses its own thread alone, so no record of another test gets here.
fn heard() -> (Log, tracing::subscriber::DefaultGuard) {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(log.clone()).finish();
    (log, tracing::subscriber::set_default(subscriber))
}

/// Sends a head, waits for the head of the answer, and returns its status.
async fn status(bridge: &Bridge, head: &str) -> u16 {
    let mut stream = bridge.connect().await;
    within(stream.write_all(head.as_bytes())).await.unwrap();
    read_head(&mut stream).await[9..12].parse().unwrap()
}

#[tokio::test]
async fn f9_k8_a_path_is_short_in_every_record_and_shows_no_secret() {
    let (log, _guard) = heard();
    let listener = listener().await;
    let bridge = Bridge::to(&listener);
    let path = format!("/?token=abcdefgh&password=12345678&x={}", "y".repeat(15_000));
    let head = HEAD.replace("GET /", &format!("GET {path}"));
    assert_eq!(status(&bridge, &head).await, 101);
    assert_eq!(status(&bridge, &head.replace("Version: 13", "Version: 9")).await, 426);
    bridge.shutdown.send(bridge::Shutdown::Now).unwrap();
    bridge.outcome().await;
    for record in ["session started", "session ended", "refused a handshake"] {
        let lines = log.lines(record);
        assert_eq!(lines.len(), 1, "{record}: {:?}", log.lines(""));
        assert!(lines[0].contains("/?token=abcd…&password=1234…&x=yyy"), "{}", lines[0]);
        assert!(lines[0].len() < 1000, "{}", lines[0]);
    }
}

#[tokio::test]
async fn f23_f24_a_refused_handshake_leaves_a_record() {
    let (log, _guard) = heard();
    let listener = listener().await;
    let bridge = Bridge::to(&listener);
    for (number, (head, code, why)) in [
        (HEAD.replace("Version: 13", "Version: 9"), 426, "unsupported WebSocket version"),
        (HEAD.replace("Sec-WebSocket-Key", "X"), 400, "there must be one Sec-WebSocket-Key"),
        (HEAD.replace("GET", "POST"), 400, "a WebSocket handshake is a GET"),
        (HEAD.replace("Host", "X"), 400, "missing or invalid Host"),
        (HEAD.replace("Upgrade: websocket\r\n", ""), 426, "a proxy before us dropped `Upgrade: "),
    ]
    .into_iter()
    .enumerate()
    {
        let head = head.replace(" / ", &format!(" /number{number} "));
        assert_eq!(status(&bridge, &head).await, code, "{head}");
        let lines = log.lines("refused a handshake: 127.0.0.1: ");
        assert_eq!(lines.len(), number + 1, "{lines:?}");
        let parts = [
            " INFO ",
            why,
            "client=127.0.0.1 ",
            &format!("status={code}"),
            &format!("path=\"/number{number}\""),
        ];
        for part in parts {
            assert!(lines[number].contains(part), "{part}: {}", lines[number]);
        }
    }
    // A request that is no handshake leaves no record.
    assert_eq!(status(&bridge, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await, 405);
    assert_eq!(log.lines("").len(), 5);
}

#[tokio::test]
async fn f28_sub_protocols_of_which_we_know_none_are_named() {
    let (log, _guard) = heard();
    let listener = listener().await;
    let bridge = Bridge::to(&listener);
    for (offer, named) in [
        ("", None),
        ("Sec-WebSocket-Protocol: mqtt, binary\r\n", None),
        ("Sec-WebSocket-Protocol: base64\r\n", None),
        ("Sec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Protocol: xmpp\r\n", Some("mqtt, xmpp")),
    ] {
        assert_eq!(status(&bridge, &HEAD.replace("Host:", &format!("{offer}Host:"))).await, 101);
        let lines = log.lines("a browser closes such a connection");
        assert_eq!(lines.len(), usize::from(named.is_some()), "{offer}");
        assert!(lines.iter().all(|line| line.contains(&format!("{:?}", named.unwrap()))));
    }
}

#[tokio::test]
async fn b10_a_session_leaves_one_record_at_its_start_and_one_at_its_end() {
    let (log, _guard) = heard();
    let listener = listener().await;
    let bridge = Bridge::to(&listener);
    drop(bridge.connect().await);
    let mut client = bridge.client().await;
    let mut target = accept(&listener).await;
    client.send(BINARY, b"four").await;
    within(target.write_all(b"sixsix")).await.unwrap();
    client.receive().await;
    client.send(CLOSE, b"\x0f\xa0so\nlong").await;
    client.receive().await;
    let peer = client.0.local_addr().unwrap();
    client.ends().await;
    drop((client, target));
    bridge.shutdown.send(bridge::Shutdown::Now).unwrap();
    bridge.outcome().await;

    let both = format!(
        "session=1 client={} port={} version=\"13\" path=\"/\" target={}",
        peer.ip(),
        peer.port(),
        listener.local_addr().unwrap()
    );
    let started = log.lines("session started");
    assert_eq!(started.len(), 1);
    assert!(started[0].contains(" INFO ") && started[0].contains(&both), "{started:?}");
    let ended = log.lines("session ended");
    assert_eq!(ended.len(), 1);
    assert!(ended[0].contains(" INFO ") && ended[0].contains(&both), "{ended:?}");
    assert!(ended[0].contains(" sent=6 received=4 duration_ms="), "{ended:?}");
    assert!(ended[0].contains(r#" code=4000 reason="so\nlong""#), "no line of the client's own");
    assert_eq!(log.lines("").len(), 2, "a connection without a byte is not worth a line");
}
