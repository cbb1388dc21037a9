//! A connection to one address.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::tune;

/// How long one address may take to be connected to, and whoever is there to shake hands.
pub(crate) const CONNECT: Duration = Duration::from_secs(10);

/// Over TCP, with the options that both legs of a session have.
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

/// To a Unix socket.
pub(crate) async fn connect_unix(path: &Path) -> io::Result<UnixStream> {
    timeout(CONNECT, UnixStream::connect(path)).await?
}
