//! A connection to one address.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::IpBindAddressNoPort;
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio::time::{sleep, timeout};

use super::tune;

/// How long one connection attempt may take, and the TLS handshake with a target after it.
pub(crate) const CONNECT: Duration = Duration::from_secs(10);

/// How long to wait before the next attempt if the accept queue of a Unix socket is full.
const ROOM: Duration = Duration::from_millis(20);

/// Connects over TCP, and sets the options that both legs of a session have.
pub(crate) async fn connect(addr: SocketAddr) -> io::Result<TcpStream> {
    let stream = timeout(CONNECT, TcpStream::connect(addr)).await??;
    // Where nobody listens on a local port of the ephemeral range, the kernel may choose that same
    // port for our end, and TCP connects the socket to itself.
    if stream.local_addr()? == stream.peer_addr()? {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    tune(&stream)?;
    Ok(stream)
}

/// Connects like [`connect`], but from the local address `ours` and any port. The kernel chooses the port in connect(2)
/// (`IP_BIND_ADDRESS_NO_PORT`), so that connections to different targets can share it. A port chosen in bind(2) could
/// be shared with no other connection of this machine, and there are too few ports.
pub(crate) async fn connect_from(ours: Ipv4Addr, to: SocketAddrV4) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    setsockopt(&socket, IpBindAddressNoPort, &true)?;
    socket.bind(SocketAddrV4::new(ours, 0).into())?;
    let stream = timeout(CONNECT, socket.connect(to.into())).await??;
    tune(&stream)?;
    Ok(stream)
}

/// Connects to a Unix socket. If its accept queue is full (that of QEMU has room for one connection), connect(2) does
/// not wait on a non-blocking socket, but fails with EAGAIN: so we try again until there is room.
pub(crate) async fn connect_unix(path: &Path) -> io::Result<UnixStream> {
    let connected = async {
        loop {
            match UnixStream::connect(path).await {
                Err(error) if error.kind() == ErrorKind::WouldBlock => sleep(ROOM).await,
                connected => return connected,
            }
        }
    };
    timeout(CONNECT, connected).await?
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use socket2::{Domain, SockAddr, Socket, Type};

    use super::*;

    #[tokio::test]
    async fn u3_a_unix_target_that_has_no_room_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        listener.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        listener.listen(0).unwrap();
        let mut first = Vec::new();
        while let Ok(stream) = UnixStream::connect(&path).await {
            first.push(stream);
        }
        let mut next = pin!(connect_unix(&path));
        let soon = Duration::from_millis(100);
        assert!(timeout(soon, &mut next).await.is_err(), "it waits");
        for _ in &first {
            listener.accept().unwrap();
        }
        timeout(CONNECT, next).await.expect("in time").unwrap();
        drop(listener);
        let refused = connect_unix(&path).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    }
}
