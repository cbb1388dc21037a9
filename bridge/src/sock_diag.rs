//! What the kernel says about TCP sockets of this network namespace, by `sock_diag(7)`.
//!
//! Knows the netlink dialogue and nothing of sessions or programs. Each question opens its own
//! netlink socket and blocks, but the kernel answers within the system calls (0.4 ms for a dump).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{
    AF_INET, AF_INET6, IPPROTO_TCP, TCP_CLOSE_WAIT, TCP_ESTABLISHED, TCP_SYN_RECV,
};
use netlink_packet_sock_diag::inet::{
    ExtensionFlags, InetRequest, InetResponseHeader, SocketId, StateFlags,
};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

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

/// Every TCP socket, IPv4 or IPv6, that listens on the local `port`.
///
/// # Errors
/// Those of the netlink socket: a kernel without `CONFIG_INET_DIAG`, a seccomp filter.
pub fn listeners(port: u16) -> io::Result<Vec<Listener>> {
    let mut found = Vec::new();
    for any in [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)] {
        let id = socket_id(SocketAddr::new(any, port), SocketAddr::new(any, 0));
        match ask(id, StateFlags::LISTEN, NLM_F_DUMP) {
            Ok(sockets) => found.extend(sockets.iter().map(listener)),
            // A kernel without IPv6 has no IPv6 table to dump.
            Err(error) if any.is_ipv6() && error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    // The kernel compares the port for us; this holds where it does not (before 3.3).
    found.retain(|listener: &Listener| listener.addr.port() == port);
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
    let sockets = ask(socket_id(target, ours), StateFlags::all(), 0)?;
    let peer = sockets.first().ok_or(io::ErrorKind::NotFound)?;
    // A connection in the accept queue belongs to no file yet: inode 0. So does one that was
    // accepted and closed again, but then it has sent its FIN and is in one of the later states.
    let queued = matches!(peer.state, TCP_SYN_RECV | TCP_ESTABLISHED | TCP_CLOSE_WAIT);
    Ok(peer.inode != 0 || !queued)
}

/// How many bytes, written to the connection from `ours` to `peer`, the peer's kernel has not
/// acknowledged yet (`idiag_wqueue`, as SIOCOUTQ in `tcp(7)`). An end that was sent counts as one.
///
/// # Errors
/// `NotFound` if there is no such connection here (or no longer); else as [`listeners`].
pub fn unacknowledged(ours: SocketAddr, peer: SocketAddr) -> io::Result<u32> {
    let sockets = ask(socket_id(ours, peer), StateFlags::all(), 0)?;
    let socket = sockets.first().ok_or(io::ErrorKind::NotFound)?;
    Ok(socket.send_queue)
}

fn listener(socket: &InetResponseHeader) -> Listener {
    let ip = socket.socket_id.source_address.to_canonical();
    Listener {
        addr: SocketAddr::new(ip, socket.socket_id.source_port),
        inode: socket.inode,
        uid: socket.uid,
    }
}

fn socket_id(source: SocketAddr, destination: SocketAddr) -> SocketId {
    SocketId {
        source_port: source.port(),
        destination_port: destination.port(),
        // Mapped connections are found by their IPv4 addresses, whichever family their socket has.
        source_address: source.ip().to_canonical(),
        destination_address: destination.ip().to_canonical(),
        interface_id: 0,
        // INET_DIAG_NOCOOKIE: whatever generation of that socket there is.
        cookie: [0xff; 8],
    }
}

/// One request, all its answers. `flags` is `NLM_F_DUMP` for every match, 0 for exactly one.
fn ask(id: SocketId, states: StateFlags, flags: u16) -> io::Result<Vec<InetResponseHeader>> {
    let netlink = socket(
        AddressFamily::Netlink,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkSockDiag,
    )?;
    send_request(&netlink, id, states, flags)?;
    let mut sockets = Vec::new();
    // The kernel fits a dump into datagrams of at most 32 KiB.
    let mut buffer = vec![0; 32 * 1024];
    loop {
        let length = recv(netlink.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        let mut rest = &buffer[..length];
        while !rest.is_empty() {
            let message: NetlinkMessage<SockDiagMessage> =
                NetlinkMessage::deserialize(rest).map_err(io::Error::other)?;
            match message.payload {
                NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => {
                    sockets.push(response.header);
                    if flags & NLM_F_DUMP == 0 {
                        return Ok(sockets);
                    }
                }
                NetlinkPayload::Done(_) => return Ok(sockets),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                _ => {}
            }
            // Messages are padded to four bytes (NLMSG_ALIGN).
            let step = (message.header.length as usize).next_multiple_of(4).clamp(4, rest.len());
            rest = &rest[step..];
        }
    }
}

fn send_request(
    netlink: &OwnedFd,
    socket_id: SocketId,
    states: StateFlags,
    flags: u16,
) -> io::Result<()> {
    let family = if socket_id.source_address.is_ipv4() { AF_INET } else { AF_INET6 };
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    let request = InetRequest {
        family,
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::empty(),
        states,
        socket_id,
    };
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    let kernel = NetlinkAddr::new(0, 0);
    sendto(netlink.as_raw_fd(), &bytes, &kernel, MsgFlags::empty())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    use socket2::{Domain, Socket, Type};

    use crate::skip::skip_even_in_ci;

    /// `None` for an IPv6 address where there is none.
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
            assert_eq!(listeners(port).unwrap(), [expected], "{bind}");
            drop(listening);
            assert_eq!(listeners(port).unwrap(), [], "{bind} after its end");
        }
    }

    #[test]
    fn w3_a_bound_socket_that_does_not_listen_is_no_listener() {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        let port = socket.local_addr().unwrap().as_socket().unwrap().port();
        assert_eq!(listeners(port).unwrap(), []);
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
            let (peer, _) = listening.accept().unwrap();
            assert!(accepted(target, ours).unwrap(), "{bind}: taken");
            drop(peer);
            assert!(accepted(target, ours).unwrap(), "{bind}: taken and closed");
            let nowhere = SocketAddr::new(target.ip(), 1);
            assert_eq!(accepted(nowhere, ours).unwrap_err().kind(), io::ErrorKind::NotFound);
        }
    }

    #[test]
    fn b4_what_the_peer_has_not_taken_is_counted() {
        for (domain, bind, connect) in [
            (Domain::IPV4, "127.0.0.1:0", "127.0.0.1"),
            (Domain::IPV6, "[::1]:0", "::1"),
            (Domain::IPV6, "[::]:0", "::ffff:127.0.0.1"),
        ] {
            let Some(listening) = bound(domain, bind) else { continue };
            let port = listening.local_addr().unwrap().port();
            let client = TcpStream::connect(SocketAddr::new(connect.parse().unwrap(), port));
            let mut client = client.unwrap();
            let (mut socket, peer) = listening.accept().unwrap();
            let ours = socket.local_addr().unwrap();
            assert_eq!(unacknowledged(ours, peer).unwrap(), 0, "{bind}: nothing was written");
            socket.set_nonblocking(true).unwrap();
            let mut written = 0;
            while let Ok(length) = socket.write(&[0; 10_000]) {
                written += length;
            }
            let waiting = unacknowledged(ours, peer).unwrap() as usize;
            assert!((1..=written).contains(&waiting), "{bind}: {waiting} of {written}");
            client.read_exact(&mut vec![0; written]).unwrap();
            // The last acknowledgement may be delayed, by 40 ms or so.
            let deadline = Instant::now() + Duration::from_secs(20);
            while unacknowledged(ours, peer).unwrap() > 0 {
                assert!(Instant::now() < deadline, "{bind}: all is read");
            }
        }
    }
}
