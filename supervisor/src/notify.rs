//! Hears from `rebind.so`: that a moved socket listens, or that one was refused its port. The first
//! is a hint to look and no more: anybody may send one, and who sends it need not be who serves in
//! the end. The second says which process asks, by the kernel's word; it must not know who may.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram as StdUnixDatagram};

use nix::sys::socket::sockopt::PassCred;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, setsockopt};
use nix::unistd::Pid;
use tokio::io::Interest;
use tokio::net::UnixDatagram;

/// A datagram socket in the abstract namespace (unix(7)): it has no path, so a program that changed
/// its root, its user or its /tmp still reaches it.
#[derive(Debug)]
pub(crate) struct Notifications {
    socket: UnixDatagram,
    /// The address, without its leading zero byte.
    pub(crate) name: String,
    /// What a message must begin with to be heard.
    pub(crate) token: String,
}

/// What was heard.
#[derive(Debug)]
pub(crate) enum Notice {
    /// Somebody listens, perhaps.
    Listens,
    Refused(Refused),
}

/// A process that could not bind the relocated port, and waits until this is dropped.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) pid: Pid,
    /// What it would bind.
    pub(crate) socket: OwnedFd,
    _waits: OwnedFd,
}

impl Notifications {
    /// Opens a socket under a name that nobody can guess.
    pub(crate) fn open() -> io::Result<Self> {
        let name = format!("websockify-{}", random_hex()?);
        let token = random_hex()?;
        let socket = StdUnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
        setsockopt(&socket, PassCred, &true)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket: UnixDatagram::from_std(socket)?, name, token })
    }

    /// Returns what somebody who knows the token has sent. Cancel-safe.
    pub(crate) async fn heard(&self) -> Notice {
        loop {
            let receive = || receive(self.socket.as_raw_fd(), self.token.as_bytes());
            match self.socket.async_io(Interest::READABLE, receive).await {
                Ok(Some(notice)) => return notice,
                Ok(None) => {}
                // Not seen to happen on a bound datagram socket; there is the look at each deadline.
                Err(_) => std::future::pending().await,
            }
        }
    }
}

/// One message; `None` if it lacks the token.
fn receive(socket: RawFd, token: &[u8]) -> io::Result<Option<Notice>> {
    let mut bytes = [0; 128];
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let mut control = nix::cmsg_space!(libc::ucred, [RawFd; 2]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<UnixAddr>(socket, &mut parts, Some(&mut control), flags)?;
    let (mut sender, mut descriptors) = (None, vec![]);
    for part in message.cmsgs()? {
        match part {
            ControlMessageOwned::ScmCredentials(sent) => sender = Some(Pid::from_raw(sent.pid())),
            ControlMessageOwned::ScmRights(sent) => descriptors.extend(sent.into_iter().map(own)),
            _ => {}
        }
    }
    let is_credible = message.iovs().next().is_some_and(|bytes| bytes.starts_with(token));
    let mut descriptors = descriptors.into_iter();
    Ok(is_credible.then(|| match (sender, descriptors.next(), descriptors.next()) {
        (Some(pid), Some(socket), Some(waits)) => {
            Notice::Refused(Refused { pid, socket, _waits: waits })
        }
        _ => Notice::Listens,
    }))
}

#[allow(unsafe_code)]
fn own(descriptor: RawFd) -> OwnedFd {
    // SAFETY: recvmsg(2) has just made it for us (SCM_RIGHTS in unix(7)), and nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

/// 128 random bits (getrandom(2)).
fn random_hex() -> io::Result<String> {
    let mut bytes = [0; 16];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(u128::from_ne_bytes(bytes)).map(|number| format!("{number:032x}"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn r3_only_a_message_with_the_token_is_heard() {
        let notifications = Notifications::open().expect("a socket");
        let address = SocketAddr::from_abstract_name(&notifications.name).expect("a name");
        let sender = StdUnixDatagram::unbound().expect("a socket");
        sender.send_to_addr(b"nonsense", &address).expect("sent");
        let heard = tokio::time::timeout(Duration::from_millis(50), notifications.heard()).await;
        heard.expect_err("nonsense is not heard");
        sender
            .send_to_addr(format!("{} 1", notifications.token).as_bytes(), &address)
            .expect("sent");
        let heard = tokio::time::timeout(Duration::from_secs(5), notifications.heard()).await;
        assert!(matches!(heard.expect("heard"), Notice::Listens));
    }
}
