//! What is logged: B10.

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

#[tokio::test]
async fn b10_a_session_leaves_one_record_at_its_start_and_one_at_its_end() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(log.clone()).finish();
    // The runtime of this test is its thread, so nothing of the other tests gets here.
    let _guard = tracing::subscriber::set_default(subscriber);

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
