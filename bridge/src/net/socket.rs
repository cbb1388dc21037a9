//! A connected stream socket, TCP or Unix: the bytes, and what the kernel says of the peer. Must not know which leg of
//! a session it is, nor what the bytes mean.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::heard::{Heard, heard};
use super::unsent::unsent;
use crate::error_text::error_text;
use crate::saved::{Descriptors, Invalid};

/// A connected stream socket of either family.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A socket in the state of a hand-over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SavedSocket {
    pub(crate) descriptor: RawFd,
    is_unix: bool,
}

/// What the kernel says of a peer before all bytes from the peer are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PeerStatus {
    /// Nothing: the peer may be there.
    Unknown,
    /// The peer sends no more.
    Ended,
    /// The connection was reset, or given up by the kernel.
    Failed,
}

/// Passes a call on to the TCP stream or the Unix stream.
macro_rules! either {
    ($socket:expr, $io:ident => $call:expr) => {
        match $socket {
            Socket::Tcp($io) => $call,
            Socket::Unix($io) => $call,
        }
    };
}

impl Socket {
    /// How many bytes written to the socket the peer's kernel has not taken yet. 0 after a reset: the bytes that the
    /// kernel still counts then will never be taken.
    pub(crate) fn unsent(&self) -> u64 {
        let unsent = unsent(self);
        let has_peer = || either!(self, io => io.peer_addr().is_ok());
        if unsent > 0 && has_peer() { unsent } else { 0 }
    }

    /// What the kernel has heard of the peer of a TCP connection; `None` for a Unix socket, or if the kernel does not
    /// say.
    pub(crate) fn heard(&self) -> Option<Heard> {
        match self {
            Self::Tcp(stream) => heard(stream),
            Self::Unix(_) => None,
        }
    }

    /// Our address and the peer's, if it is a TCP connection that was not reset.
    pub(crate) fn tcp_ends(&self) -> Option<(SocketAddr, SocketAddr)> {
        match self {
            Self::Tcp(stream) => Some((stream.local_addr().ok()?, stream.peer_addr().ok()?)),
            Self::Unix(_) => None,
        }
    }

    /// What is known of the peer without reading. The kernel does not report the end of a stream as long as its buffer
    /// has no room for the bytes before that end.
    pub(crate) fn peer_status(&self, cx: &mut Context<'_>) -> PeerStatus {
        let asked = Interest::READABLE | Interest::ERROR;
        // The future is polled once and dropped, so it does not wake the task later.
        let ready = either!(self, io => pin!(io.ready(asked)).poll(cx));
        match ready {
            Poll::Ready(Ok(ready)) if ready.is_error() => PeerStatus::Failed,
            Poll::Ready(Ok(ready)) if ready.is_read_closed() => PeerStatus::Ended,
            _ => PeerStatus::Unknown,
        }
    }

    /// If memory is scarce: the kernel takes no more bytes from us while it has unsent bytes (`TCP_NOTSENT_LOWAT`).
    /// Else it takes as many as usual, which may be megabytes for a peer that reads nothing. Where the option cannot be
    /// set, as on a Unix socket, nothing changes.
    pub(crate) fn limit_unsent(&self, is_scarce: bool) {
        if let Self::Tcp(io) = self {
            let _ = socket2::SockRef::from(io).set_tcp_notsent_lowat(u32::from(is_scarce));
        }
    }

    /// If the peer has not taken all bytes: makes the close of the socket throw them away by a reset. Otherwise the
    /// kernel would keep them for minutes (socket(7), SO_LINGER).
    pub(crate) fn reset_on_close(&self) {
        if let Self::Tcp(io) = self
            && self.unsent() > 0
        {
            let _ = socket2::SockRef::from(io).set_linger(Some(Duration::ZERO));
        }
    }

    /// Whether it is a Unix socket.
    pub(crate) fn is_unix(&self) -> bool {
        matches!(self, Self::Unix(_))
    }

    /// What the new binary needs to go on with the socket.
    pub(crate) fn saved(&self) -> SavedSocket {
        SavedSocket { descriptor: self.as_fd().as_raw_fd(), is_unix: self.is_unix() }
    }

    /// The socket that the old binary has had, in this runtime.
    pub(crate) fn resume(saved: SavedSocket, all: &mut Descriptors) -> Result<Self, Invalid> {
        let descriptor = all.take(saved.descriptor)?;
        let number = saved.descriptor;
        let socket = if saved.is_unix {
            let io = std::os::unix::net::UnixStream::from(descriptor);
            UnixStream::from_std(io).map(Self::Unix)
        } else {
            TcpStream::from_std(std::net::TcpStream::from(descriptor)).map(Self::Tcp)
        };
        socket
            .map_err(|error| Invalid(format!("cannot use socket {number}: {}", error_text(&error))))
    }

    /// Moves the socket from a runtime that no longer runs into the current one.
    pub(crate) fn move_here(&mut self) -> io::Result<()> {
        // `self` must hold some socket while its stream is taken out.
        let (place, _) = UnixStream::pair()?;
        *self = match std::mem::replace(self, Self::Unix(place)) {
            Self::Tcp(io) => Self::Tcp(TcpStream::from_std(io.into_std()?)?),
            Self::Unix(io) => Self::Unix(UnixStream::from_std(io.into_std()?)?),
        };
        Ok(())
    }

    /// Whether there are bytes to be read already, or the end.
    pub(crate) fn is_readable(&self) -> bool {
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        recv(self.as_fd().as_raw_fd(), &mut [0], flags) != Err(Errno::EAGAIN)
    }

    /// Waits for bytes, or the end, and leaves them to be read. Returns how many there are, no more than
    /// there is room for.
    pub(crate) async fn peek(&self, room: &mut [u8]) -> io::Result<usize> {
        let fd = self.as_fd().as_raw_fd();
        let mut peek = || Ok(recv(fd, room, MsgFlags::MSG_PEEK)?);
        either!(self, io => io.async_io(Interest::READABLE, &mut peek).await)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        either!(self, io => io.as_fd())
    }
}

impl From<TcpStream> for Socket {
    fn from(stream: TcpStream) -> Self {
        Self::Tcp(stream)
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        either!(self.get_mut(), io => Pin::new(io).poll_read(cx, room))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        either!(self.get_mut(), io => Pin::new(io).poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self.get_mut(), io => Pin::new(io).poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        either!(self, io => io.is_write_vectored())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), io => Pin::new(io).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), io => Pin::new(io).poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::time::{sleep, timeout};

    /// Two ends of a connection, of each family.
    async fn pairs() -> [(Socket, Socket); 2] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (theirs, _) = listener.accept().await.unwrap();
        let (one, other) = UnixStream::pair().unwrap();
        [(ours.into(), theirs.into()), (Socket::Unix(one), Socket::Unix(other))]
    }

    #[tokio::test]
    async fn b4_what_the_peer_has_not_taken_is_counted() {
        for (mut ours, mut theirs) in pairs().await {
            assert_eq!(ours.unsent(), 0, "nothing was written");
            let piece = vec![0; 1 << 20];
            let mut written = 0;
            let late = Duration::from_millis(100);
            while let Ok(length) = timeout(late, ours.write(&piece)).await {
                written += length.unwrap();
            }
            let full = ours.unsent();
            assert!(full > 0);
            theirs.read_exact(&mut vec![0; written]).await.unwrap();
            // The last acknowledgement may be delayed, by 40 ms or so.
            let taken = async {
                while ours.unsent() > 0 {
                    sleep(Duration::from_millis(1)).await;
                }
            };
            timeout(Duration::from_secs(20), taken).await.expect("all is read");
        }
    }

    /// B4, L4: the bytes that a reset leaves behind are not waited for.
    #[tokio::test]
    async fn b4_after_a_reset_nothing_counts_as_under_way() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut ours: Socket =
            TcpStream::connect(listener.local_addr().unwrap()).await.unwrap().into();
        let (theirs, _) = listener.accept().await.unwrap();
        let piece = vec![0; 1 << 20];
        while timeout(Duration::from_millis(100), ours.write(&piece)).await.is_ok() {}
        assert!(ours.unsent() > 0);
        // Dropped with unread bytes, the socket sends a reset.
        drop(theirs);
        assert!(ours.read(&mut [0]).await.is_err());
        assert_eq!(ours.unsent(), 0);
    }

    #[tokio::test]
    async fn t1_what_is_peeked_at_is_still_to_be_read() {
        for (mut ours, mut theirs) in pairs().await {
            theirs.write_all(b"ab").await.unwrap();
            let mut room = [0];
            assert_eq!((ours.peek(&mut room).await.unwrap(), room), (1, *b"a"));
            let mut room = [0; 2];
            ours.read_exact(&mut room).await.unwrap();
            assert_eq!(room, *b"ab");
            drop(theirs);
            assert_eq!(ours.peek(&mut room).await.unwrap(), 0);
        }
    }
}
