//! What the kernel says about sockets of this network namespace, by `sock_diag(7)`: about TCP sockets, and where that is refused
//! (no module, a seccomp filter, `RestrictAddressFamilies=`) by proc(5); and about Unix sockets that are bound.
//!
//! Knows nothing of sessions or programs. Each question blocks, but the kernel answers within the system
//! calls (0.4 ms for a dump).

mod netlink;
mod proc_net;
mod reading;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::OnceLock;

use netlink_packet_sock_diag::constants::{
    TCP_CLOSE, TCP_CLOSE_WAIT, TCP_ESTABLISHED, TCP_LISTEN, TCP_SYN_RECV, TCP_TIME_WAIT,
};

use crate::error_text::error_text;
pub(crate) use reading::{Reading, Readings};

/// A TCP socket in state LISTEN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Its local address. A v4-mapped one is given as the IPv4 address where it is reached.
    pub addr: SocketAddr,
    /// The socket's inode, as in `/proc/PID/fd/N -> socket:[inode]`.
    pub inode: u32,
    /// The user that created it.
    pub uid: u32,
}

/// Every TCP socket, IPv4 or IPv6, that listens on the local `port`, or on any if that is 0.
///
/// # Errors
/// Neither sock_diag nor proc(5) can be asked.
pub fn listeners(port: u16) -> io::Result<Vec<Listener>> {
    let listener =
        |socket: Socket| Listener { addr: socket.local, inode: socket.inode, uid: socket.uid };
    Ok(listening(port)?.into_iter().map(listener).collect())
}

/// A Unix stream socket that is bound to a file, and neither listens nor is connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoundSocket {
    /// The socket's own inode, as fstat(2) gives it.
    pub inode: u32,
    /// The user that created it; `None` before Linux 5.3.
    pub uid: Option<u32>,
    /// The file that it is bound to, which may have been removed.
    pub file: FileNumbers,
}

/// The numbers by which the kernel knows a file. On some file systems (btrfs, overlayfs) stat(2) gives others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileNumbers {
    /// Of the file system.
    pub device: u32,
    /// The lower half of the inode number.
    pub inode: u32,
}

/// All sockets of this network namespace that are bound so.
///
/// # Errors
/// sock_diag cannot be asked.
pub fn bound_sockets() -> io::Result<Vec<BoundSocket>> {
    netlink::bound_sockets()
}

/// Whether a connection to this port of this machine waits to be accepted, also one that was reset and that no other
/// question finds any more.
///
/// # Errors
/// As [`listeners`].
pub(crate) fn is_anybody_waiting(port: u16) -> io::Result<bool> {
    // For a listening socket the kernel gives here how many connections wait.
    Ok(listening(port)?.iter().any(|socket| socket.unread > 0))
}

fn listening(port: u16) -> io::Result<Vec<Socket>> {
    let mut found = if answers()? { netlink_listeners(port)? } else { proc_net::sockets()? };
    // Netlink has filtered by these already, by the port since Linux 3.3; proc(5) lists all sockets.
    found.retain(|socket| socket.state == TCP_LISTEN && (port == 0 || socket.local.port() == port));
    Ok(found)
}

/// Whether the connection from `ours` (our local address) to `target` has been accepted, that is,
/// taken out of the target's accept queue by `accept(2)`.
///
/// Only targets on this machine can be asked about.
///
/// # Errors
/// `NotFound` if there is no such connection here (or no longer); else as [`listeners`].
pub fn accepted(target: SocketAddr, ours: SocketAddr) -> io::Result<bool> {
    connection(target, ours).map(|peer| peer.is_accepted())
}

/// Whether the process at `target` can still meet the connection from `ours`: the connection waits to be accepted, or
/// was accepted and is not over. In TIME_WAIT only the kernel has it: calls on a descriptor that it had fail with
/// ENOTCONN.
///
/// # Errors
/// As [`listeners`].
pub(crate) fn can_be_met(target: SocketAddr, ours: SocketAddr) -> io::Result<bool> {
    match connection(target, ours) {
        Ok(found) => Ok(found.can_be_met()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// A TCP socket, as netlink or proc(5) describes it.
#[derive(Debug, Clone)]
struct Socket {
    /// Here and for the peer, v4-mapped addresses are given as the IPv4 ones.
    local: SocketAddr,
    peer: SocketAddr,
    /// As in the kernel's `tcp_states.h`.
    state: u8,
    inode: u32,
    uid: u32,
    /// Bytes that wait to be read; for a listener, connections that wait to be accepted.
    unread: u32,
}

impl Socket {
    /// A connection in the accept queue belongs to no file yet: its inode is 0. So is that of a connection that was
    /// accepted and closed again, but then it has sent its FIN and is in one of the later states.
    fn is_accepted(&self) -> bool {
        let queued = matches!(self.state, TCP_SYN_RECV | TCP_ESTABLISHED | TCP_CLOSE_WAIT);
        self.inode != 0 || !queued
    }

    fn can_be_met(&self) -> bool {
        !matches!(self.state, TCP_TIME_WAIT | TCP_CLOSE)
    }
}

/// The socket at the `local` end of a connection.
fn connection(local: SocketAddr, peer: SocketAddr) -> io::Result<Socket> {
    let (local, peer) = (canonical(local), canonical(peer));
    if answers()? {
        let found = netlink::exact(local, peer)?;
        // If there is no such connection, the kernel describes the socket that listens there.
        let is_connection = found.state != TCP_LISTEN;
        return is_connection.then_some(found).ok_or_else(|| io::ErrorKind::NotFound.into());
    }
    let mut sockets = proc_net::sockets()?.into_iter();
    let found = sockets.find(|socket| (socket.local, socket.peer) == (local, peer));
    found.ok_or_else(|| io::ErrorKind::NotFound.into())
}

fn netlink_listeners(port: u16) -> io::Result<Vec<Socket>> {
    let mut found = netlink::listeners(Ipv4Addr::UNSPECIFIED.into(), port)?;
    match netlink::listeners(Ipv6Addr::UNSPECIFIED.into(), port) {
        Ok(sockets) => found.extend(sockets),
        // A kernel without IPv6 has no IPv6 table to dump.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(found)
}

/// Whether sock_diag answers here each question by itself; tried once. A kernel without the module starts modprobe(8)
/// at each question, and then answers as for a connection that does not exist.
pub(crate) fn answers() -> io::Result<bool> {
    static ANSWERS: OnceLock<bool> = OnceLock::new();
    if let Some(answers) = ANSWERS.get() {
        return Ok(*answers);
    }
    let refusal = match netlink::listeners(Ipv4Addr::UNSPECIFIED.into(), 0) {
        Ok(_) => None,
        Err(error) if is_shortage(&error) => return Err(error),
        Err(error) => Some(error_text(&error)),
    };
    Ok(*ANSWERS.get_or_init(|| {
        if let Some(reason) = &refusal {
            tracing::info!(
                "sock_diag is refused ({reason}): sockets are looked for in /proc/net/tcp"
            );
        }
        refusal.is_none()
    }))
}

fn is_shortage(error: &io::Error) -> bool {
    use nix::libc::{EMFILE, ENFILE, ENOBUFS, ENOMEM};
    matches!(error.raw_os_error(), Some(EMFILE | ENFILE | ENOBUFS | ENOMEM))
}

/// The address as the kernel finds it: a v4-mapped connection is found by its IPv4 addresses, whichever family its
/// socket has. The scope and the flow label are left out: no two connections differ in them alone.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;
    use std::time::{Duration, Instant};

    use socket2::{Domain, Socket, Type};

    use crate::skip::skip_even_in_ci;

    /// `None` if the machine has no such IPv6 address.
    fn bound(domain: Domain, address: &str) -> Option<TcpListener> {
        let socket = Socket::new(domain, Type::STREAM, None).unwrap();
        if domain == Domain::IPV6 {
            socket.set_only_v6(false).unwrap();
        }
        let address: SocketAddr = address.parse().unwrap();
        match socket.bind(&address.into()) {
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                skip_even_in_ci(&format!("this machine has no {address}"));
                return None;
            }
            bound => bound.unwrap(),
        }
        socket.listen(8).unwrap();
        Some(socket.into())
    }

    fn inode(listener: &TcpListener) -> u32 {
        let path = format!("/proc/self/fd/{}", listener.as_raw_fd());
        let link = std::fs::read_link(path).unwrap();
        let digits: String = link.to_string_lossy().chars().filter(char::is_ascii_digit).collect();
        digits.parse().unwrap()
    }

    #[test]
    fn w2_listeners_are_found_in_both_families_with_their_inode_and_owner() {
        for (domain, bind, seen) in [
            (Domain::IPV4, "127.0.0.1:0", "127.0.0.1"),
            (Domain::IPV6, "[::1]:0", "::1"),
            (Domain::IPV6, "[::ffff:127.0.0.1]:0", "127.0.0.1"),
            (Domain::IPV6, "[::]:0", "::"),
        ] {
            let Some(listening) = bound(domain, bind) else { continue };
            let port = listening.local_addr().unwrap().port();
            let expected = Listener {
                addr: SocketAddr::new(seen.parse().unwrap(), port),
                inode: inode(&listening),
                uid: nix::unistd::getuid().as_raw(),
            };
            // Another process may listen on the same port in the other family.
            let ours = || -> Vec<Listener> {
                let all = listeners(port).unwrap().into_iter();
                all.filter(|listener| listener.addr == expected.addr).collect()
            };
            assert_eq!(ours(), std::slice::from_ref(&expected), "{bind}");
            drop(listening);
            assert_eq!(ours(), [], "{bind} after its end");
        }
    }

    #[test]
    fn w3_a_bound_socket_that_does_not_listen_is_no_listener() {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        let port = socket.local_addr().unwrap().as_socket().unwrap().port();
        let all = listeners(port).unwrap().into_iter();
        assert_eq!(all.filter(|listener| listener.addr.is_ipv4()).collect::<Vec<_>>(), []);
    }

    #[test]
    fn w4_a_connection_is_accepted_once_its_program_has_taken_it() {
        for (domain, bind, connect) in [
            (Domain::IPV4, "127.0.0.1:0", "127.0.0.1"),
            (Domain::IPV6, "[::1]:0", "::1"),
            (Domain::IPV6, "[::ffff:127.0.0.1]:0", "127.0.0.1"),
            (Domain::IPV6, "[::]:0", "::ffff:127.0.0.1"),
        ] {
            let Some(listening) = bound(domain, bind) else { continue };
            let port = listening.local_addr().unwrap().port();
            let target = SocketAddr::new(connect.parse().unwrap(), port);
            let stream = TcpStream::connect(target).unwrap();
            let ours = stream.local_addr().unwrap();
            assert!(!accepted(target, ours).unwrap(), "{bind}: still queued");
            assert!(is_anybody_waiting(port).unwrap(), "{bind}: still queued");
            let (peer, _) = listening.accept().unwrap();
            assert!(accepted(target, ours).unwrap(), "{bind}: taken");
            assert!(!is_anybody_waiting(port).unwrap(), "{bind}: taken");
            drop(peer);
            assert!(accepted(target, ours).unwrap(), "{bind}: taken and closed");
            let [nowhere, nobody] = [target, ours].map(|at| SocketAddr::new(at.ip(), 1));
            for (target, ours) in [(nowhere, ours), (target, nobody)] {
                let error = accepted(target, ours).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::NotFound, "{bind}: {ours} to {target}");
            }
        }
    }

    /// F3: what proc(5) lists is what netlink says, of a listener, of a connection in the accept queue,
    /// of both its ends once it is accepted, and when it is closed.
    #[test]
    fn f3_proc_says_the_same_as_netlink() {
        for (domain, bind, connect) in [
            (Domain::IPV4, "127.0.0.1:0", "127.0.0.1"),
            (Domain::IPV6, "[::1]:0", "::1"),
            (Domain::IPV6, "[::ffff:127.0.0.1]:0", "127.0.0.1"),
            (Domain::IPV6, "[::]:0", "::ffff:127.0.0.1"),
        ] {
            let Some(listening) = bound(domain, bind) else { continue };
            let port = listening.local_addr().unwrap().port();
            let listed = |wanted: &dyn Fn(&super::Socket) -> bool| {
                let mut sockets = proc_net::sockets().unwrap();
                sockets.retain(wanted);
                sockets.iter().map(|socket| format!("{socket:?}")).collect::<Vec<_>>()
            };
            let said = netlink_listeners(port).unwrap().into_iter();
            let said: Vec<_> = said.map(|socket| format!("{socket:?}")).collect();
            let is_listener =
                |socket: &super::Socket| socket.state == TCP_LISTEN && socket.local.port() == port;
            assert_eq!(listed(&is_listener), said, "{bind}: listening");

            let target = canonical(SocketAddr::new(connect.parse().unwrap(), port));
            let stream = TcpStream::connect(target).unwrap();
            let ours = canonical(stream.local_addr().unwrap());
            let compare = |stage: &str| {
                for (local, peer) in [(target, ours), (ours, target)] {
                    let is_it =
                        |socket: &super::Socket| (socket.local, socket.peer) == (local, peer);
                    let both = || (listed(&is_it), netlink::exact(local, peer).unwrap());
                    // The connection may change between the two questions.
                    let deadline = Instant::now() + Duration::from_secs(20);
                    while let (listed, said) = both()
                        && listed != [format!("{said:?}")]
                    {
                        assert!(Instant::now() < deadline, "{bind}: {stage}: {listed:?}, {said:?}");
                    }
                }
            };
            compare("queued");
            let (peer, _) = listening.accept().unwrap();
            compare("accepted");
            drop(peer);
            compare("closed");
        }
    }
}
