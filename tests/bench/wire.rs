//! A client's connection through a proxy: raw TCP or WebSocket, plain or TLS.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::pattern;

/// The mask of all frames of the load. With zeros, a proxy that does not unmask would not be noticed.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// The sample key and its answer (RFC 6455, section 1.3).
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// What travels between the client and the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wire {
    /// The target's bytes, as they are.
    Raw,
    /// Binary frames.
    WebSocket,
}

/// How a proxy is reached.
#[derive(Clone)]
pub(crate) struct Route {
    pub(crate) addr: SocketAddr,
    pub(crate) wire: Wire,
    /// The path and query of a WebSocket handshake.
    pub(crate) path: String,
    pub(crate) tls: Option<TlsConnector>,
}

/// A byte stream.
trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// A connection to a proxy, ready for payload.
pub(crate) struct Connection {
    io: Box<dyn Io>,
    wire: Wire,
    frames: Frames,
}

impl Connection {
    /// Connects, with the TLS and the WebSocket handshake that the route wants.
    pub(crate) async fn open(route: &Route) -> Result<Self> {
        let tcp = TcpStream::connect(route.addr).await.context("cannot connect")?;
        tcp.set_nodelay(true)?;
        let mut io: Box<dyn Io> = match &route.tls {
            None => Box::new(tcp),
            Some(connector) => {
                let name = ServerName::try_from("localhost")?;
                Box::new(connector.connect(name, tcp).await.context("TLS handshake failed")?)
            }
        };
        if route.wire == Wire::WebSocket {
            shake_hands(&mut io, &route.path).await?;
        }
        Ok(Self { io, wire: route.wire, frames: Frames::default() })
    }

    /// Sends one message.
    pub(crate) async fn send(&mut self, payload: &[u8]) -> Result<()> {
        match self.wire {
            Wire::Raw => self.io.write_all(payload).await?,
            Wire::WebSocket => {
                let mut frame = Vec::with_capacity(payload.len() + 14);
                append_frame(&mut frame, 0x82, payload);
                self.io.write_all(&frame).await?;
            }
        }
        Ok(self.io.flush().await?)
    }

    /// Sends bytes that are in frames already, where the wire has some; see [`stream`].
    pub(crate) async fn send_stream(&mut self, bytes: &[u8]) -> Result<()> {
        self.io.write_all(bytes).await?;
        Ok(self.io.flush().await?)
    }

    /// Reads once and hands every piece of payload to `take`. False: the end.
    pub(crate) async fn receive(
        &mut self,
        buffer: &mut [u8],
        mut take: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<bool> {
        let length = self.io.read(buffer).await?;
        let mut bytes = &buffer[..length];
        if length == 0 {
            return Ok(false);
        }
        if self.wire == Wire::Raw {
            take(bytes)?;
            return Ok(true);
        }
        while let Some(payload) = self.frames.next(&mut bytes)? {
            take(payload)?;
        }
        Ok(!self.frames.is_closed)
    }

    /// Ends the session in order: says so, and waits until the proxy has ended it too.
    pub(crate) async fn close(mut self) -> Result<()> {
        let mut buffer = [0; 256];
        let unexpected = |_: &[u8]| bail!("bytes after the last");
        match self.wire {
            Wire::Raw => self.io.shutdown().await?,
            Wire::WebSocket => {
                let mut frame = Vec::new();
                append_frame(&mut frame, 0x88, &1000_u16.to_be_bytes());
                self.io.write_all(&frame).await?;
                self.io.flush().await?;
                while self.receive(&mut buffer, unexpected).await? {}
                ensure!(self.frames.is_closed, "no close frame");
                // Python ends the TCP connection itself, others wait for us.
                let _ = self.io.shutdown().await;
            }
        }
        while let Ok(1..) = self.io.read(&mut buffer).await {}
        Ok(())
    }
}

/// A whole period of the pattern as it goes over the wire, in frames of `size` bytes.
pub(crate) fn stream(wire: Wire, size: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for start in (0..pattern::PERIOD).step_by(size) {
        let payload = pattern::slice(start as u64, size);
        match wire {
            Wire::Raw => bytes.extend(payload),
            Wire::WebSocket => append_frame(&mut bytes, 0x82, payload),
        }
    }
    bytes
}

async fn shake_hands(io: &mut Box<dyn Io>, path: &str) -> Result<()> {
    // Nearly as long as a browser's request.
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Origin: http://localhost\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) bench\r\n\
         Accept-Encoding: gzip, deflate, br\r\nAccept-Language: en\r\nCache-Control: no-cache\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: binary\r\n\
         Sec-WebSocket-Key: {KEY}\r\n\r\n"
    );
    io.write_all(request.as_bytes()).await?;
    io.flush().await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        ensure!(head.len() < 4096, "an answer without an end");
        // Nothing comes behind the head: the target sends nothing before it is asked.
        ensure!(io.read_buf(&mut head).await? > 0, "closed instead of an answer");
    }
    let head = String::from_utf8(head)?;
    ensure!(head.starts_with("HTTP/1.1 101 "), "no 101 but {}", head.lines().next().unwrap_or(""));
    ensure!(head.contains(ACCEPT), "wrong Sec-WebSocket-Accept");
    Ok(())
}

fn append_frame(bytes: &mut Vec<u8>, first: u8, payload: &[u8]) {
    bytes.push(first);
    match u16::try_from(payload.len()) {
        Ok(short @ ..126) => bytes.push(0x80 | short.to_le_bytes()[0]),
        Ok(length) => {
            bytes.push(0xfe);
            bytes.extend(length.to_be_bytes());
        }
        Err(_) => {
            bytes.push(0xff);
            bytes.extend((payload.len() as u64).to_be_bytes());
        }
    }
    bytes.extend(MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, key)| byte ^ key));
}

/// How far the frames from the proxy have been read.
#[derive(Default)]
struct Frames {
    header: [u8; 10],
    known: usize,
    left: u64,
    is_control: bool,
    is_closed: bool,
}

impl Frames {
    /// Takes the next piece of payload out of `bytes`. `None`: there is no more.
    fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<&'a [u8]>> {
        while !bytes.is_empty() {
            if self.left == 0 && !self.read_header(bytes)? {
                return Ok(None);
            }
            let here = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
            let (piece, rest) = bytes.split_at(here);
            *bytes = rest;
            self.left -= here as u64;
            if !self.is_control && !piece.is_empty() {
                return Ok(Some(piece));
            }
        }
        Ok(None)
    }

    /// Reads on in a header. True: it is whole.
    fn read_header(&mut self, bytes: &mut &[u8]) -> Result<bool> {
        while let Some((first, rest)) = bytes.split_first() {
            *bytes = rest;
            self.header[self.known] = *first;
            self.known += 1;
            let length = match (self.known, self.header[1]) {
                (2, short @ ..126) => u64::from(short),
                (4, 126) => u64::from(u16::from_be_bytes([self.header[2], self.header[3]])),
                (10, 127) => {
                    let [_, _, length @ ..] = self.header;
                    u64::from_be_bytes(length)
                }
                (2, 128..) => bail!("a masked frame"),
                _ => continue,
            };
            let opcode = self.header[0] & 0x0f;
            ensure!(matches!(opcode, 0 | 2 | 8..=10), "a frame of type {opcode}");
            self.is_control = opcode >= 8;
            self.is_closed |= opcode == 8;
            (self.known, self.left) = (0, length);
            return Ok(true);
        }
        Ok(false)
    }
}
