//! A blocking WebSocket client, with a deadline on every read; and plain connections, over which a test sends bytes that no
//! well-behaved client would send.

use std::io::{self, ErrorKind, Read, Write};
use std::mem::take;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio_tungstenite::tungstenite::client::client;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message, WebSocket};

use super::wait::{DEADLINE, wait_for};

/// The headers that make a request a WebSocket handshake.
pub(crate) const UPGRADE: [&str; 4] = [
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
];

/// A connection whose reads and writes have a timeout. With a timeout, the kernel does not restart a call that a signal
/// has interrupted (signal(7)). A SIGCHLD may interrupt any thread: the thread that started the child blocks all
/// signals while it starts another child.
#[derive(Debug)]
struct Patient(TcpStream);

impl Read for Patient {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        uninterrupted(|| self.0.read(bytes))
    }
}

impl Write for Patient {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        uninterrupted(|| self.0.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Makes a system call again for as long as a signal interrupts it.
pub(crate) fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// Whether a read has failed because its timeout has passed.
fn is_late(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// How a session ended: with which close frame (1006 is none), and what came before it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Closing {
    pub(crate) code: u16,
    pub(crate) reason: String,
    pub(crate) bytes: Vec<u8>,
}

/// A WebSocket client in a session.
#[derive(Debug)]
pub(crate) struct Client {
    socket: WebSocket<Patient>,
    received: Vec<u8>,
}

impl Client {
    /// Connects to a port of 127.0.0.1 that is open.
    pub(crate) fn connect(port: u16) -> Self {
        Self::dial((Ipv4Addr::LOCALHOST, port)).unwrap()
    }

    /// Connects as soon as the port is open. No other connection is made before, because the program may serve only one.
    pub(crate) fn connect_once_open(port: u16) -> Self {
        wait_for("an open port", || Self::dial((Ipv4Addr::LOCALHOST, port)).ok())
    }

    pub(crate) fn dial(address: impl Into<SocketAddr>) -> Result<Self, String> {
        let address = address.into();
        let stream = TcpStream::connect(address).map_err(|error| error.to_string())?;
        stream.set_nodelay(true).unwrap();
        Self::over(stream, address)
    }

    /// Connects to a Unix socket.
    pub(crate) fn at(path: &Path) -> Result<Self, String> {
        let stream = connect_unix(path).map_err(|error| error.to_string())?;
        Self::over(stream, (Ipv4Addr::LOCALHOST, 0).into())
    }

    /// Over a connection that is there already.
    pub(crate) fn over(stream: TcpStream, address: SocketAddr) -> Result<Self, String> {
        Self::upgraded(stream, &format!("ws://{address}/"))
    }

    /// [`Self::dial`] with another path, and perhaps a query.
    pub(crate) fn dial_path(address: SocketAddr, path: &str) -> Result<Self, String> {
        let stream = TcpStream::connect(address).map_err(|error| error.to_string())?;
        stream.set_nodelay(true).unwrap();
        Self::upgraded(stream, &format!("ws://{address}{path}"))
    }

    fn upgraded(stream: TcpStream, url: &str) -> Result<Self, String> {
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        let (socket, _) = client(url, Patient(stream)).map_err(|error| error.to_string())?;
        Ok(Self { socket, received: Vec::new() })
    }

    /// Sends a binary message.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let message = Message::Binary(bytes.as_ref().to_vec().into());
        self.socket.send(message).unwrap();
    }

    /// Sends a binary message, where the session may be over by now; whether it has been sent.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.socket.send(Message::Binary(bytes.to_vec().into())).is_ok()
    }

    /// The next `length` bytes, or as many as come before the session ends; and whether all of them came.
    pub(crate) fn read_if_it_comes(&mut self, length: usize) -> (Vec<u8>, bool) {
        while self.received.len() < length {
            match self.socket.read() {
                Ok(Message::Binary(bytes)) => self.received.extend_from_slice(&bytes),
                Err(Error::Io(error)) if is_late(&error) => panic!("nothing comes, and no end"),
                Ok(Message::Close(_)) | Err(_) => return (take(&mut self.received), false),
                Ok(_) => {}
            }
        }
        (self.read(length), true)
    }

    /// [`Self::close`] of a session that may be over by now; gives the close code.
    pub(crate) fn try_close(mut self) -> u16 {
        let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        match self.socket.close(Some(frame)) {
            Ok(()) => self.closing().code,
            Err(_) => 1006,
        }
    }

    /// Sets another timeout for reads than [`DEADLINE`].
    pub(crate) fn be_patient(&mut self, deadline: Duration) {
        self.stream().set_read_timeout(Some(deadline)).unwrap();
    }

    /// The next message that is not data; data that come before it are kept.
    pub(crate) fn next_control(&mut self) -> Message {
        loop {
            match self.socket.read().unwrap() {
                Message::Binary(bytes) => self.received.extend_from_slice(&bytes),
                message => return message,
            }
        }
    }

    /// The next `length` bytes of the session.
    pub(crate) fn read(&mut self, length: usize) -> Vec<u8> {
        while self.received.len() < length {
            self.read_message(&format!("{length} bytes"));
        }
        let rest = self.received.split_off(length);
        std::mem::replace(&mut self.received, rest)
    }

    /// All bytes up to `end` and with it.
    pub(crate) fn read_until(&mut self, end: &str) -> String {
        loop {
            let found = self.received.windows(end.len()).position(|part| part == end.as_bytes());
            if let Some(at) = found {
                let bytes = self.read(at + end.len());
                return String::from_utf8_lossy(&bytes).into_owned();
            }
            self.read_message(end);
        }
    }

    /// A line, without its end.
    pub(crate) fn read_line(&mut self) -> String {
        self.read_until("\n").trim_end().to_owned()
    }

    fn read_message(&mut self, wanted: &str) {
        match self.socket.read() {
            Ok(Message::Binary(bytes)) => self.received.extend_from_slice(&bytes),
            other => panic!(
                "wanted {wanted:?}, got {other:?} after {:?}",
                String::from_utf8_lossy(&self.received)
            ),
        }
    }

    /// Sends a close frame, and waits for the answer and the end of the stream.
    pub(crate) fn close(mut self) -> Closing {
        let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        self.socket.close(Some(frame)).unwrap();
        self.closing()
    }

    /// Waits for the other side to end the session.
    pub(crate) fn closing(mut self) -> Closing {
        let mut closing = None;
        loop {
            match self.socket.read() {
                Ok(Message::Binary(bytes)) => self.received.extend_from_slice(&bytes),
                Ok(Message::Close(frame)) => {
                    closing = Some(frame.map_or((1005, String::new()), |frame| {
                        (frame.code.into(), frame.reason.to_string())
                    }));
                }
                Ok(_) => {}
                Err(Error::Io(error)) if is_late(&error) => {
                    panic!("the session goes on after {} bytes", self.received.len());
                }
                Err(_) => break,
            }
        }
        let (code, reason) = closing.unwrap_or((1006, String::new()));
        Closing { code, reason, bytes: self.received }
    }

    /// The connection below the frames.
    pub(crate) fn stream(&mut self) -> &mut TcpStream {
        &mut self.socket.get_mut().0
    }
}

/// The head of an HTTP response.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) status: u16,
    lines: Vec<(String, String)>,
}

impl Head {
    /// A header's value; its name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.lines.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

/// A connection to a port of 127.0.0.1, with a deadline on reads.
pub(crate) fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

/// The same from this source address: 127.0.0.0/8 has many for tests.
pub(crate) fn dial_from(source: impl Into<IpAddr>, port: u16) -> TcpStream {
    let source: IpAddr = source.into();
    let to = match source {
        IpAddr::V4(_) => SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        IpAddr::V6(_) => SocketAddr::new(source, port),
    };
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(source, 0).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket.into()
}

/// A connection to a Unix socket, with a deadline on reads. A `TcpStream` works with any stream socket, except for the
/// options of TCP.
pub(crate) fn connect_unix(path: &Path) -> io::Result<TcpStream> {
    let stream = TcpStream::from(OwnedFd::from(UnixStream::connect(path)?));
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    Ok(stream)
}

/// Sends a request with these headers to a port of 127.0.0.1; gives the response's head, and the
/// connection after it.
pub(crate) fn request(port: u16, path: &str, headers: &[&str]) -> (Head, TcpStream) {
    let mut stream = connect(port);
    (ask(&mut stream, path, headers), stream)
}

/// The same on a connection that there is already.
pub(crate) fn ask(stream: &mut TcpStream, path: &str, headers: &[&str]) -> Head {
    try_ask(stream, path, headers).unwrap()
}

/// The same where the connection may be closed instead.
pub(crate) fn try_ask(stream: &mut TcpStream, path: &str, headers: &[&str]) -> io::Result<Head> {
    let host = stream.peer_addr().map_or("localhost".to_owned(), |address| address.to_string());
    let headers: String = headers.iter().flat_map(|header| [*header, "\r\n"]).collect();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n")?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let lines = lines.filter_map(|line| line.split_once(": "));
    let lines = lines.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
    Ok(Head { status, lines })
}

/// Reads to the end of the stream; a reset is an end too.
pub(crate) fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut piece = [0; 16384];
    loop {
        match uninterrupted(|| stream.read(&mut piece)) {
            Ok(0) => return bytes,
            Ok(length) => bytes.extend_from_slice(&piece[..length]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return bytes,
            Err(error) => panic!("{error} after {} bytes", bytes.len()),
        }
    }
}
