//! A bridge on a loopback port, targets, and a client that speaks in frames.

use std::future::Future;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bridge::{
    Access, Address, Config, Destination, Error, HandOver, Orders, Outcome, Program, Readiness,
    Shutdown,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

pub(crate) use crate::frame::{MASK, frame, header};

/// How long a test waits for a condition, unless it says otherwise.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// Waits for what must happen.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.expect("it happens before the deadline")
}

pub(crate) struct Bridge {
    pub(crate) addr: SocketAddr,
    pub(crate) shutdown: watch::Sender<Shutdown>,
    pub(crate) hand_over: HandOver,
    pub(crate) serving: JoinHandle<Result<Outcome, Error>>,
}

impl Bridge {
    pub(crate) fn start(config: Config) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let (shutdown, hand_over) = (watch::Sender::new(Shutdown::Run), HandOver::default());
        let orders = Orders { shutdown: shutdown.clone(), hand_over: hand_over.clone() };
        let serving = tokio::spawn(bridge::serve(vec![listener.into()], Arc::new(config), orders));
        Self { addr, shutdown, hand_over, serving }
    }

    /// A bridge to a listener of the test.
    pub(crate) fn to(target: &TcpListener) -> Self {
        Self::start(config(address_of(target)))
    }

    pub(crate) async fn outcome(self) -> Outcome {
        within(self.serving).await.unwrap().unwrap()
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        within(TcpStream::connect(self.addr)).await.unwrap()
    }

    /// A client that has had its 101.
    pub(crate) async fn client(&self) -> Client {
        Client::over(self.connect().await).await
    }

    /// The same, by this socket.
    pub(crate) async fn client_by(&self, socket: TcpSocket) -> Client {
        Client::over(within(socket.connect(self.addr)).await.unwrap()).await
    }

    /// Waits until a new client's handshake has an answer of this status, as no memory is left or there is some again.
    pub(crate) async fn answers(&self, status: &str) {
        within(async {
            loop {
                let mut stream = self.connect().await;
                within(stream.write_all(HEAD.as_bytes())).await.unwrap();
                if read_head(&mut stream).await[9..12] == *status {
                    break;
                }
                drop(stream);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
    }

    /// Waits until new connections are refused.
    pub(crate) async fn stops_accepting(&self) {
        within(async {
            while TcpStream::connect(self.addr).await.is_ok() {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

/// A receive buffer so small that the bytes under way wait on the bridge's side.
pub(crate) const NARROW: u32 = 32 * 1024;

/// A socket with a receive buffer of so many bytes.
pub(crate) fn narrow_socket(buffer: u32) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(buffer).unwrap();
    socket
}

pub(crate) fn config(destination: impl Into<Destination>) -> Config {
    Config {
        directory: destination.into().into(),
        max_connections: 100,
        memory: 1 << 30,
        head_timeout: DEADLINE,
        web: None,
        lists_directories: true,
        subprotocols: vec![],
        run_once: false,
        timeout: None,
        idle_timeout: None,
        is_busy_elsewhere: watch::channel(false).1,
        open_sessions: watch::Sender::default(),
        upkeep: bridge::Upkeep::default(),
        access: Access::default(),
        record: None,
        target_tls: None,
        client_address: bridge::ClientAddress::default(),
        traffic: None,
        observer: None,
    }
}

pub(crate) fn address_of(target: &TcpListener) -> Destination {
    let addr = target.local_addr().unwrap();
    Destination::from(Address { host: addr.ip().to_string(), port: addr.port() })
}

pub(crate) async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

pub(crate) async fn accept(listener: &TcpListener) -> TcpStream {
    within(listener.accept()).await.unwrap().0
}

/// A port that nobody listens on, kept by a bound socket.
pub(crate) fn closed_port() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = socket.local_addr().unwrap();
    (socket, addr)
}

/// Has TCP handshakes end only with the client's first byte (`TCP_DEFER_ACCEPT` in tcp(7)). For the client they
/// end at once.
pub(crate) fn defer_accept(listener: &TcpListener) {
    let seconds: nix::libc::c_int = 60;
    // SAFETY: the descriptor is open, and the kernel reads one int.
    let result = unsafe {
        nix::libc::setsockopt(
            listener.as_raw_fd(),
            nix::libc::IPPROTO_TCP,
            nix::libc::TCP_DEFER_ACCEPT,
            (&raw const seconds).cast(),
            nix::libc::socklen_t::try_from(size_of_val(&seconds)).unwrap(),
        )
    };
    nix::errno::Errno::result(result).unwrap();
}

// On Linux, SIOCOUTQ of tcp(7) is another name of TIOCOUTQ.
nix::ioctl_read_bad!(siocoutq, nix::libc::TIOCOUTQ, i32);

/// How many bytes written to a socket its peer's kernel has not taken.
pub(crate) fn unsent(socket: &TcpStream) -> i32 {
    let mut bytes = 0;
    // SAFETY: the descriptor is open, and the kernel writes one int.
    unsafe { siocoutq(socket.as_raw_fd(), &raw mut bytes) }.unwrap();
    bytes
}

/// The same of a socket that is not ours: the one at the `local` end of a connection.
pub(crate) fn unsent_at(local: SocketAddr, peer: SocketAddr) -> u32 {
    let mut sockets = procfs::net::tcp().unwrap().into_iter();
    let found =
        sockets.find(|socket| (socket.local_address, socket.remote_address) == (local, peer));
    found.map_or(0, |socket| socket.tx_queue)
}

/// Ends a connection by a reset.
pub(crate) fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
}

/// A wrapped program as the supervisor would describe it.
pub(crate) struct Supervisor {
    pub(crate) readiness: watch::Sender<Readiness>,
    pub(crate) recheck: Arc<Notify>,
    pub(crate) served: Arc<AtomicU64>,
}

/// The supervisor's and the bridge's end of a program.
pub(crate) fn program(
    readiness: Readiness,
    respawns: bool,
    hold: Duration,
) -> (Supervisor, Destination) {
    let (sender, receiver) = watch::channel(readiness);
    let (recheck, served) = (Arc::new(Notify::new()), Arc::new(AtomicU64::new(0)));
    let program = Program {
        readiness: receiver,
        hold,
        respawns,
        recheck: Arc::clone(&recheck),
        served: Arc::clone(&served),
        visitors: bridge::Counter::new().0,
    };
    (Supervisor { readiness: sender, recheck, served }, program.into())
}

/// The head of a good handshake.
pub(crate) const HEAD: &str = "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// Reads a response head, and not one byte more.
pub(crate) async fn read_head(stream: &mut TcpStream) -> String {
    within(async {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        String::from_utf8(head).unwrap()
    })
    .await
}

/// Reads to the end of the stream, and asserts that the stream ends in order, not by a reset.
pub(crate) async fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    within(stream.read_to_end(&mut bytes)).await.unwrap();
    bytes
}

pub(crate) async fn read_exact(stream: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    within(stream.read_exact(&mut bytes)).await.unwrap();
    bytes
}

/// The next frame that a server has sent: opcode and payload.
pub(crate) async fn next_frame(reader: &mut (impl AsyncReadExt + Unpin)) -> (u8, Vec<u8>) {
    let [first, second] = [reader.read_u8().await.unwrap(), reader.read_u8().await.unwrap()];
    assert_eq!(first & 0xf0, 0x80, "a final frame, no extension");
    let length = match second {
        126 => u64::from(reader.read_u16().await.unwrap()),
        127 => reader.read_u64().await.unwrap(),
        length => u64::from(length),
    };
    let mut payload = vec![0; usize::try_from(length).unwrap()];
    reader.read_exact(&mut payload).await.unwrap();
    (first & 0x0f, payload)
}

/// A client that builds its frames by hand.
pub(crate) struct Client(pub(crate) TcpStream);

impl Client {
    pub(crate) async fn over(mut stream: TcpStream) -> Self {
        within(stream.write_all(HEAD.as_bytes())).await.unwrap();
        let head = read_head(&mut stream).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        Self(stream)
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        within(self.0.write_all(bytes)).await.unwrap();
    }

    pub(crate) async fn send(&mut self, opcode: u8, payload: &[u8]) {
        self.write(&frame(0x80 | opcode, payload)).await;
    }

    pub(crate) async fn close(&mut self, code: u16) {
        self.send(CLOSE, &code.to_be_bytes()).await;
    }

    /// The next frame: opcode and payload.
    pub(crate) async fn receive(&mut self) -> (u8, Vec<u8>) {
        within(next_frame(&mut self.0)).await
    }

    /// Payload of data frames until there is so much of it.
    pub(crate) async fn receive_data(&mut self, length: usize) -> Vec<u8> {
        let mut data = Vec::new();
        while data.len() < length {
            let (opcode, payload) = self.receive().await;
            assert_eq!(opcode, BINARY);
            data.extend(payload);
        }
        data
    }

    /// The close frame that must come next: code and reason.
    pub(crate) async fn receive_close(&mut self) -> (u16, String) {
        let (opcode, payload) = self.receive().await;
        assert_eq!(opcode, CLOSE, "{payload:?}");
        let (code, reason) = payload.split_first_chunk().expect("a close code");
        (u16::from_be_bytes(*code), String::from_utf8(reason.to_vec()).unwrap())
    }

    /// The end of the stream that must come next.
    pub(crate) async fn ends(&mut self) {
        assert!(read_to_end(&mut self.0).await.is_empty());
    }
}

/// Bytes whose order can be checked.
pub(crate) fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|index| u8::try_from(index % 251).unwrap()).collect()
}

/// A session, with the client and the target that the test plays.
pub(crate) async fn session() -> (Bridge, Client, TcpStream) {
    let target = listener().await;
    let bridge = Bridge::to(&target);
    let client = bridge.client().await;
    let target = accept(&target).await;
    (bridge, client, target)
}

/// Writes until nothing is taken for a while. Returns how much was.
pub(crate) async fn write_until_stuck(
    writer: &mut (impl AsyncWriteExt + Unpin),
    bytes: &[u8],
) -> usize {
    let mut written = 0;
    while written < bytes.len() {
        match timeout(Duration::from_millis(500), writer.write(&bytes[written..])).await {
            Ok(length) => written += length.unwrap(),
            Err(_) => break,
        }
    }
    written
}

/// A listener on a certain port, as a restarted program has it.
pub(crate) fn listen_again(addr: SocketAddr) -> TcpListener {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(addr).unwrap();
    socket.listen(64).unwrap()
}

pub(crate) fn ready(listener: &TcpListener) -> Readiness {
    Readiness::Ready(listener.local_addr().unwrap())
}

pub(crate) async fn served(supervisor: &Supervisor, count: u64) {
    within(async {
        while supervisor.served.load(Ordering::SeqCst) != count {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
