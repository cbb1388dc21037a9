//! The socket options of both legs of a session (B7).

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// A silent connection is probed after this time: before the common NAT and firewall tables
/// forget it (RFC 5382 allows them to after minutes in practice).
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);

/// After that it is probed at this interval.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// It is given up after this many probes without an answer: a minute after the last sign of life.
const KEEPALIVE_PROBES: u32 = 3;

/// Sets the options that both legs of a session have (B7). A connection that is accepted from a listening socket has
/// the options of that socket: Linux copies them, which saves a system call for each option.
///
/// `TCP_USER_TIMEOUT` is not set on purpose: the kernel also applies it to a peer that answers but keeps its window
/// closed, and a reader may stop reading for as long as it likes. A peer that is gone while bytes are on their way to
/// it is noticed by its [silence](crate::silence).
pub(crate) fn tune(socket: &impl AsFd) -> io::Result<()> {
    let socket = SockRef::from(socket);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_PROBES);
    // Key strokes must not wait for the acknowledgement of earlier ones.
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&keepalive)
}

/// Sets the options of a client that connected before its listening socket had them, as the first client does where
/// systemd passes the socket. Whether the client lacks them is told by three that would hardly be the same by chance: sysctls may
/// have set two of them, and systemd (`KeepAlive=`) the third.
pub(crate) fn tune_if_early(client: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(client);
    let is_tuned = socket.keepalive()?
        && socket.tcp_keepalive_time()? == KEEPALIVE_IDLE
        && socket.tcp_keepalive_retries()? == KEEPALIVE_PROBES;
    if is_tuned { Ok(()) } else { tune_early(client) }
}

/// Sets the options of a client that may have connected so early.
///
/// Such a client may lack SO_REUSEADDR, too, which the supervisor sets once the socket listens. Without it the connection
/// would keep the port from our next start for a minute, once it is over (TIME_WAIT).
pub(crate) fn tune_early(client: &impl AsFd) -> io::Result<()> {
    SockRef::from(client).set_reuse_address(true)?;
    tune(client)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    use socket2::{Domain, Socket, Type};
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn b7_keystrokes_are_not_delayed_and_a_dead_peer_is_noticed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        tune(&listener).unwrap();
        let target = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        tune(&target).unwrap();
        let (client, _) = listener.accept().await.unwrap();
        assert_tuned(&[target, client]);
    }

    /// B7, D4: a client that was in the accept queue before the listening socket had the options.
    #[tokio::test]
    async fn b7_a_client_that_came_before_the_bridge_is_no_exception() {
        // As the package's unit has it (NoDelay=), or another unit.
        let no_delay = |socket: &SockRef<'_>| socket.set_tcp_nodelay(true);
        let keepalive = |socket: &SockRef<'_>| {
            socket.set_tcp_keepalive(&TcpKeepalive::new().with_retries(KEEPALIVE_PROBES))
        };
        let units: [fn(&SockRef<'_>) -> io::Result<()>; 2] = [no_delay, keepalive];
        for set in units {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            set(&SockRef::from(&listener)).unwrap();
            let early = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            tune(&listener).unwrap();
            let (client, _) = listener.accept().await.unwrap();
            assert_ne!(SockRef::from(&client).tcp_keepalive_time().unwrap(), KEEPALIVE_IDLE);
            tune_if_early(&client).unwrap();
            assert_tuned(&[client]);
            drop(early);
        }
    }

    #[tokio::test]
    async fn w9_an_early_client_does_not_keep_the_port_from_the_next_start() {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        socket.listen(8).unwrap();
        let address = socket.local_addr().unwrap();
        let early = std::net::TcpStream::connect(address.as_socket().unwrap()).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(socket.into()).unwrap();
        let (client, _) = listener.accept().await.unwrap();
        tune_if_early(&client).unwrap();
        // Whoever ends first has the connection in TIME_WAIT.
        drop((client, listener));
        drop(early);
        let next = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        next.set_reuse_address(true).unwrap();
        next.bind(&address).unwrap();
        next.listen(8).unwrap();
    }

    fn assert_tuned(sockets: &[TcpStream]) {
        for socket in sockets {
            let options = SockRef::from(socket);
            assert!(options.tcp_nodelay().unwrap());
            assert!(options.keepalive().unwrap());
            assert_eq!(options.tcp_keepalive_time().unwrap(), KEEPALIVE_IDLE);
            assert_eq!(options.tcp_keepalive_interval().unwrap(), KEEPALIVE_INTERVAL);
            assert_eq!(options.tcp_keepalive_retries().unwrap(), KEEPALIVE_PROBES);
        }
    }
}
