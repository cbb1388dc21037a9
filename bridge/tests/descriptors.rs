//! L1: without free descriptors accepting pauses, and clients that are connected do not notice. The
//! test is alone in its process, because the limit is the process's.
#![expect(clippy::unwrap_used, reason = "all of it is a test")]

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bridge::{Address, Config, Shutdown};
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use nix::sys::time::TimeValLike;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

const HEAD: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// Appends to [`LOG`].
struct Log;

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOG.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The CPU time of this process.
fn cpu_time() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let time = usage.user_time() + usage.system_time();
    Duration::from_micros(u64::try_from(time.num_microseconds()).unwrap())
}

async fn read(stream: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let read = stream.read_exact(&mut bytes);
    timeout(Duration::from_secs(20), read).await.expect("in time").unwrap();
    bytes
}

#[tokio::test]
async fn l1_without_descriptors_accepting_pauses_and_recovers() {
    tracing_subscriber::fmt().with_ansi(false).with_writer(|| Log).init();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let bridge = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = bridge.local_addr().unwrap();
    let port = listener.local_addr().unwrap().port();
    let config = Config {
        directory: Address { host: "127.0.0.1".into(), port }.into(),
        max_connections: 100,
        memory: 1 << 30,
        head_timeout: Duration::from_secs(20),
        web: None,
        lists_directories: true,
        subprotocols: vec![],
        run_once: false,
        timeout: None,
        idle_timeout: None,
        is_busy_elsewhere: watch::channel(false).1,
        open_sessions: watch::Sender::default(),
        upkeep: bridge::Upkeep::default(),
        access: bridge::Access::default(),
        record: None,
        target_tls: None,
        client_address: bridge::ClientAddress::default(),
        traffic: None,
        observer: None,
    };
    let shutdown = watch::Sender::new(Shutdown::Run);
    let serving =
        tokio::spawn(bridge::serve(vec![bridge.into()], Arc::new(config), shutdown.clone()));

    let mut connected = TcpStream::connect(addr).await.unwrap();
    connected.write_all(HEAD).await.unwrap();
    assert_eq!(read(&mut connected, 12).await, b"HTTP/1.1 101");
    let (mut target, _) = listener.accept().await.unwrap();
    let mut waiting = TcpStream::connect(addr).await.unwrap();
    // The kernel has connected it. Now the bridge gets no descriptor any more that it could accept it with.
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let next = std::fs::File::open("/dev/null").unwrap();
    let used = u64::try_from(std::os::fd::AsRawFd::as_raw_fd(&next)).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, used, hard).unwrap();
    waiting.write_all(HEAD).await.unwrap();
    let before = cpu_time();
    let refused = timeout(Duration::from_millis(500), read(&mut waiting, 1)).await;
    assert!(refused.is_err(), "nobody can be accepted");
    assert!(cpu_time().saturating_sub(before) < Duration::from_millis(250), "it rests meanwhile");

    target.write_all(b"nothing to see").await.unwrap();
    // The rest of the answer's head comes before that.
    let mut seen = Vec::new();
    while !seen.ends_with(b"nothing to see") {
        seen.extend(read(&mut connected, 1).await);
    }
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    drop(next);
    assert_eq!(read(&mut waiting, 12).await, b"HTTP/1.1 101");
    let log = String::from_utf8(LOG.lock().unwrap().clone()).unwrap();
    assert_eq!(log.matches("cannot accept connections for now").count(), 1, "{log}");
    drop((connected, waiting, target));
    shutdown.send(Shutdown::Now).unwrap();
    timeout(Duration::from_secs(20), serving).await.expect("in time").unwrap().unwrap();
}
