//! The notifications that `rebind.so` sends: that a moved socket listens, or that a socket was refused its port. The
//! first is a hint to look, and no more: anybody may send one, and its sender need not be the process that serves in
//! the end. The second says which process asks, as the kernel says it (SCM_CREDENTIALS). Must not know which processes
//! may ask.

use std::io::{self, IoSliceMut};
use std::net::IpAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram as StdUnixDatagram};

use anyhow::{Context, ensure};
use nix::sys::socket::sockopt::PassCred;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, setsockopt};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use socket2::{Domain, SockFilter, SockRef, Type};
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::time::{Duration, Instant, sleep_until};

use crate::engine::notice::{BindRequest, Notices};
use crate::handed::Handed;
use crate::machine::random;

/// Messages are taken in handfuls, with a pause between two: anybody may send them without end.
const HANDFUL: usize = 32;
const PAUSE: Duration = Duration::from_millis(20);

/// A datagram socket in the abstract namespace (unix(7)): it has no path, so a program that changed
/// its root, its user or its /tmp still reaches it.
#[derive(Debug)]
pub(super) struct Notifications {
    socket: UnixDatagram,
    /// The address, without its leading zero byte.
    pub(super) name: String,
    /// What a message must begin with to be heard.
    pub(super) token: String,
    /// When the next handful is taken.
    next: Instant,
}

/// What the new binary of a hand-over needs to hear them.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct NotificationsState {
    socket: RawFd,
    name: String,
    token: String,
}

impl Notifications {
    pub(super) fn save(&self) -> NotificationsState {
        let (name, token) = (self.name.clone(), self.token.clone());
        NotificationsState { socket: self.socket.as_raw_fd(), name, token }
    }

    /// Messages that have come meanwhile are still in the socket's queue.
    ///
    /// # Errors
    /// The descriptor is another socket.
    pub(super) fn resume(
        state: NotificationsState,
        handed: &mut Handed<'_>,
    ) -> anyhow::Result<Self> {
        let NotificationsState { socket, name, token } = state;
        let socket = StdUnixDatagram::from(OwnedFd::from(handed.socket(
            socket,
            &[Domain::UNIX],
            Type::DGRAM,
        )?));
        let address = socket.local_addr().context("cannot read the notification socket's name")?;
        let is_ours = address.as_abstract_name() == Some(name.as_bytes()) && !token.is_empty();
        ensure!(is_ours, "the notification socket has another name");
        socket.set_nonblocking(true)?;
        Ok(Self { socket: UnixDatagram::from_std(socket)?, name, token, next: Instant::now() })
    }

    /// Opens a socket under a name that nobody can guess.
    pub(super) fn open() -> io::Result<Self> {
        let name = format!("websockify-{}", random::hex()?);
        let token = random::hex()?;
        let socket = StdUnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
        setsockopt(&socket, PassCred, &true)?;
        socket.set_nonblocking(true)?;
        // Where the kernel takes no filter, we drop other messages ourselves.
        let _ = SockRef::from(&socket).attach_filter(&only_with(token.as_bytes()));
        Ok(Self { socket: UnixDatagram::from_std(socket)?, name, token, next: Instant::now() })
    }

    /// Waits for messages that have the token. Cancel-safe.
    pub(super) async fn heard(&mut self) -> Notices {
        loop {
            sleep_until(self.next).await;
            // Never seen to fail on a bound datagram socket. If it does, the program is still looked at in intervals.
            if self.socket.readable().await.is_err() {
                std::future::pending::<()>().await;
            }
            self.next = Instant::now() + PAUSE;
            let notices = self.take_handful();
            if notices.listens || !notices.requests.is_empty() {
                return notices;
            }
        }
    }

    fn take_handful(&self) -> Notices {
        let mut notices = Notices::default();
        for _ in 0..HANDFUL {
            let receive = || receive(self.socket.as_raw_fd(), self.token.as_bytes());
            match self.socket.try_io(Interest::READABLE, receive) {
                Ok(Some(Message::Listens)) => notices.listens = true,
                Ok(Some(Message::Refused(request))) => notices.requests.push(request),
                Ok(None) => {}
                Err(_) => break,
            }
        }
        notices
    }
}

impl NotificationsState {
    pub(super) fn descriptor(&self) -> RawFd {
        self.socket
    }
}

enum Message {
    Listens,
    Refused(BindRequest),
}

/// A filter (bpf(4), socket(7)) that passes messages that begin with this token, and has the kernel drop all others, so
/// that they do not wake us. The token's length is a multiple of four bytes.
fn only_with(token: &[u8]) -> Vec<SockFilter> {
    let code = |code: u32| u16::try_from(code).expect("BPF's codes have 16 bits");
    let load = code(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS);
    let compare = code(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K);
    let verdict = code(libc::BPF_RET | libc::BPF_K);
    let (words, _) = token.as_chunks::<4>();
    let mut filter = Vec::new();
    for (at, word) in words.iter().enumerate() {
        // A message that is too short for this load is dropped.
        let offset = u32::try_from(4 * at).expect("a token is short");
        filter.push(SockFilter::new(load, 0, 0, offset));
        // If the word differs: a jump to the last instruction, over the pairs that follow and the verdict that accepts.
        let over = u8::try_from(2 * (words.len() - at) - 1).expect("a token is short");
        filter.push(SockFilter::new(compare, 0, over, u32::from_be_bytes(*word)));
    }
    filter.push(SockFilter::new(verdict, 0, 0, u32::MAX));
    filter.push(SockFilter::new(verdict, 0, 0, 0));
    filter
}

/// One message; `None` if it lacks the token.
fn receive(socket: RawFd, token: &[u8]) -> io::Result<Option<Message>> {
    let mut bytes = [0; 128];
    let mut parts = [IoSliceMut::new(&mut bytes)];
    // Room for as many descriptors as can be sent (SCM_RIGHTS in unix(7)): if the kernel had to cut some off, `cmsgs`
    // would fail below, and nothing would close the others.
    let mut control = nix::cmsg_space!(libc::ucred, [RawFd; 253]);
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
    let Some(text) = message.iovs().next().and_then(|bytes| bytes.strip_prefix(token)) else {
        return Ok(None);
    };
    let mut descriptors = descriptors.into_iter();
    Ok(Some(match (sender, descriptors.next(), descriptors.next(), address(text)) {
        (Some(pid), Some(socket), Some(waits), Some(ip)) => {
            Message::Refused(BindRequest { pid, socket, ip, _waits: waits })
        }
        _ => Message::Listens,
    }))
}

/// The address in a message, behind the sender's process id: four bytes or sixteen.
fn address(text: &[u8]) -> Option<IpAddr> {
    let mut parts = text.splitn(3, |byte| *byte == b' ');
    let bytes = parts.nth(2)?;
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

#[allow(unsafe_code)]
fn own(descriptor: RawFd) -> OwnedFd {
    // SAFETY: recvmsg(2) has just opened this descriptor for us (SCM_RIGHTS in unix(7)), and nothing else owns it.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bridge::Descriptors;

    use super::*;
    use crate::handed::tests::steal;
    use crate::skip::skip_even_in_ci;

    fn sender(to: &Notifications) -> StdUnixDatagram {
        let address = SocketAddr::from_abstract_name(&to.name).expect("a name");
        let sender = StdUnixDatagram::unbound().expect("a socket");
        sender.connect_addr(&address).expect("connected");
        sender
    }

    #[tokio::test]
    async fn r3_only_a_message_with_the_token_is_heard() {
        let mut notifications = Notifications::open().expect("a socket");
        let sender = sender(&notifications);
        sender.send(b"nonsense").expect("sent");
        let heard = tokio::time::timeout(Duration::from_millis(50), notifications.heard()).await;
        heard.expect_err("nonsense is not heard");
        sender.send(format!("{} 1", notifications.token).as_bytes()).expect("sent");
        let heard = tokio::time::timeout(Duration::from_secs(5), notifications.heard()).await;
        assert!(heard.expect("heard").listens);
    }

    #[tokio::test]
    async fn o2_who_takes_over_hears_on_and_what_was_said_before() {
        let old = Notifications::open().expect("a socket");
        let sender = sender(&old);
        let say = |token: &str| sender.send(format!("{token} 1").as_bytes()).expect("sent");
        say(&old.token);
        let copy = steal(old.socket.as_raw_fd());
        let state = NotificationsState { socket: copy.as_raw_fd(), ..old.save() };
        let json = serde_json::to_string(&state).expect("JSON");
        let mut all: Descriptors = [copy].into_iter().collect();
        let mut handed = Handed::of(&mut all);
        let state = serde_json::from_str(&json).expect("the same");
        let mut new = Notifications::resume(state, &mut handed).expect("resumed");
        handed.settle();
        drop(old);
        for _ in 0..2 {
            let heard = tokio::time::timeout(Duration::from_secs(5), new.heard()).await;
            assert!(heard.expect("heard").listens);
            say(&new.token);
        }
    }

    #[tokio::test]
    async fn o2_another_notification_socket_is_refused() {
        let [one, other] = [(); 2].map(|()| Notifications::open().expect("a socket"));
        let copy = steal(other.socket.as_raw_fd());
        let state = NotificationsState { socket: copy.as_raw_fd(), ..one.save() };
        let mut all: Descriptors = [copy].into_iter().collect();
        let error = Notifications::resume(state, &mut Handed::of(&mut all)).expect_err("another");
        assert_eq!(error.to_string(), "the notification socket has another name");
    }

    /// F14: a message without the token does not even wake us, and takes no place in the socket's queue.
    #[tokio::test]
    async fn f14_the_kernel_drops_what_has_not_the_token() {
        let notifications = Notifications::open().expect("a socket");
        let sender = sender(&notifications);
        sender.set_nonblocking(true).expect("set");
        if let Err(error) = SockRef::from(&sender).attach_filter(&only_with(&[])) {
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}");
            skip_even_in_ci(&format!("an ordinary user may attach no socket filter: {error}"));
            return;
        }
        let token = notifications.token.clone();
        let wrong = |at: usize| {
            let mut wrong = token.clone().into_bytes();
            wrong[at] ^= 1;
            wrong
        };
        // Many more than the queue is long.
        for _ in 0..1000 {
            sender.send(b"").expect("taken");
            sender.send(&token.as_bytes()[..31]).expect("taken");
            for at in 0..token.len() {
                sender.send(&wrong(at)).expect("taken");
            }
        }
        sender.send(token.as_bytes()).expect("taken");
        let mut message = [0; 128];
        notifications.socket.readable().await.expect("readable");
        let length = notifications.socket.try_recv(&mut message).expect("a message");
        assert_eq!(&message[..length], token.as_bytes());
    }
}
