//! The dialogue with the kernel: `sock_diag(7)` over netlink, a socket of its own for each question.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use netlink_packet_core::{
    Emitable, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload, Nla as _,
};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP, SOCK_STREAM, TCP_CLOSE};
use netlink_packet_sock_diag::inet::{
    ExtensionFlags, InetRequest, InetResponseHeader, SocketId, StateFlags,
};
use netlink_packet_sock_diag::unix::nlas::{Nla, Vfs};
use netlink_packet_sock_diag::unix::{self, ShowFlags, UnixRequest};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

use super::{BoundSocket, FileNumbers, Socket, canonical};

/// The attribute with the user that created a Unix socket, and what asks for it, as in the kernel's `unix_diag.h`.
const UNIX_DIAG_UID: u16 = 7;
const UDIAG_SHOW_UID: u32 = 0x40;

/// The sockets that listen on this port, of the family of `any`.
pub(super) fn listeners(any: IpAddr, port: u16) -> io::Result<Vec<Socket>> {
    let id = socket_id(SocketAddr::new(any, port), SocketAddr::new(any, 0));
    ask_inet(id, StateFlags::LISTEN, NLM_F_DUMP)
}

/// The socket at the `local` end of a connection; `NotFound` if there is none.
pub(super) fn exact(local: SocketAddr, peer: SocketAddr) -> io::Result<Socket> {
    let found = ask_inet(socket_id(local, peer), StateFlags::all(), 0)?.into_iter().next();
    found.ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// The Unix stream sockets that are bound to a file, and neither listen nor are connected.
pub(super) fn bound_sockets() -> io::Result<Vec<BoundSocket>> {
    let request = UnixRequest {
        state_flags: unix::StateFlags::from_bits_retain(1 << TCP_CLOSE),
        inode: 0,
        show_flags: ShowFlags::VFS | ShowFlags::from_bits_retain(UDIAG_SHOW_UID),
        cookie: [0xff; 8],
    };
    let mut sockets = Vec::new();
    ask(SockDiagMessage::UnixRequest(request), NLM_F_DUMP, |answer| {
        if let SockDiagMessage::UnixResponse(response) = answer
            && response.header.kind == SOCK_STREAM
        {
            sockets.extend(bound_socket(response.header.inode, &response.nlas));
        }
    })?;
    Ok(sockets)
}

/// None: it is bound to no file.
fn bound_socket(inode: u32, attributes: &[Nla]) -> Option<BoundSocket> {
    let uid = attributes.iter().find_map(|one| match one {
        Nla::Other(uid) if uid.kind() == UNIX_DIAG_UID => {
            let mut bytes = [0; 4];
            (uid.value_len() == bytes.len()).then(|| uid.emit_value(&mut bytes))?;
            Some(u32::from_ne_bytes(bytes))
        }
        _ => None,
    });
    let file = attributes.iter().find_map(|one| match one {
        Nla::Vfs(file) => Some(numbers(file)),
        _ => None,
    })?;
    Some(BoundSocket { inode, uid, file })
}

/// As in the kernel's `struct unix_diag_vfs`.
fn numbers(file: &Vfs) -> FileNumbers {
    let mut bytes = [0; 8];
    file.emit(&mut bytes);
    let [inode, device] = [0, 4].map(|at| bytes[at..].first_chunk().copied().expect("four bytes"));
    FileNumbers { device: u32::from_ne_bytes(device), inode: u32::from_ne_bytes(inode) }
}

impl From<InetResponseHeader> for Socket {
    fn from(found: InetResponseHeader) -> Self {
        let id = found.socket_id;
        Self {
            local: canonical(SocketAddr::new(id.source_address, id.source_port)),
            peer: canonical(SocketAddr::new(id.destination_address, id.destination_port)),
            state: found.state,
            inode: found.inode,
            uid: found.uid,
            unread: found.recv_queue,
        }
    }
}

fn socket_id(source: SocketAddr, destination: SocketAddr) -> SocketId {
    SocketId {
        source_port: source.port(),
        destination_port: destination.port(),
        source_address: source.ip(),
        destination_address: destination.ip(),
        interface_id: 0,
        // INET_DIAG_NOCOOKIE: whatever generation of that socket there is.
        cookie: [0xff; 8],
    }
}

/// One request for TCP sockets, all its answers. `flags` is `NLM_F_DUMP` for every match, 0 for exactly one.
fn ask_inet(socket_id: SocketId, states: StateFlags, flags: u16) -> io::Result<Vec<Socket>> {
    let request = InetRequest {
        family: if socket_id.source_address.is_ipv4() { AF_INET } else { AF_INET6 },
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::empty(),
        states,
        socket_id,
    };
    let mut sockets = Vec::new();
    ask(SockDiagMessage::InetRequest(request), flags, |answer| {
        if let SockDiagMessage::InetResponse(response) = answer {
            sockets.push(Socket::from(response.header));
        }
    })?;
    Ok(sockets)
}

/// One request; `take` gets each of its answers. `flags` as for [`ask_inet`].
fn ask(
    request: SockDiagMessage,
    flags: u16,
    mut take: impl FnMut(SockDiagMessage),
) -> io::Result<()> {
    let netlink = socket(
        AddressFamily::Netlink,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkSockDiag,
    )?;
    send_request(&netlink, request, flags)?;
    // The kernel fits a dump into datagrams of at most 32 KiB.
    let mut buffer = vec![0; 32 * 1024];
    loop {
        let length = recv(netlink.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        if read(&buffer[..length], flags, &mut take)? {
            return Ok(());
        }
    }
}

/// Reads one datagram of the answer to a request with these `flags`. True: the answer ends with it.
fn read(datagram: &[u8], flags: u16, take: &mut impl FnMut(SockDiagMessage)) -> io::Result<bool> {
    let mut rest = datagram;
    while !rest.is_empty() {
        let message: NetlinkMessage<SockDiagMessage> =
            NetlinkMessage::deserialize(rest).map_err(io::Error::other)?;
        match message.payload {
            NetlinkPayload::InnerMessage(answer) => {
                take(answer);
                if flags & NLM_F_DUMP == 0 {
                    return Ok(true);
                }
            }
            // The kernel may fail in the middle of a dump, or find only then that it cannot do it: without the module tcp_diag.
            NetlinkPayload::Done(done) if done.code < 0 => {
                return Err(io::Error::from_raw_os_error(done.code.saturating_neg()));
            }
            NetlinkPayload::Done(_) => return Ok(true),
            NetlinkPayload::Error(error) => return Err(error.to_io()),
            _ => {}
        }
        // Messages are padded to four bytes (NLMSG_ALIGN).
        let step = (message.header.length as usize).next_multiple_of(4).clamp(4, rest.len());
        rest = &rest[step..];
    }
    Ok(false)
}

fn send_request(netlink: &OwnedFd, request: SockDiagMessage, flags: u16) -> io::Result<()> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    let mut message = NetlinkMessage::new(header, request.into());
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

    /// The message that ends a dump: a header of 16 bytes, with the type `NLMSG_DONE`, and a code.
    fn done(code: i32) -> Vec<u8> {
        let mut message = Vec::new();
        message.extend(20_u32.to_ne_bytes());
        message.extend([3_u16, 2].into_iter().flat_map(u16::to_ne_bytes));
        message.extend([0; 8]);
        message.extend(code.to_ne_bytes());
        message
    }

    #[test]
    fn x2_a_dump_that_has_failed_is_no_empty_one() {
        let read = |code| read(&done(code), NLM_F_DUMP, &mut |_| panic!("an answer"));
        assert!(read(0).unwrap());
        let failed = read(-(nix::errno::Errno::ENOENT as i32)).unwrap_err();
        assert_eq!(failed.kind(), io::ErrorKind::NotFound);
    }
}
