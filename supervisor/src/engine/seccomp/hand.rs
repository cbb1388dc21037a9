//! How the listener of an instance comes from the process that has put itself under the filter to the thread that
//! answers: through a socket pair, over fork and exec; and how that thread is called. Knows descriptors only.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketFlags,
    SocketType, recvmsg, send, socketpair,
};
use tracing::warn;

/// Where listeners are given; closed on exec.
#[derive(Debug)]
pub(super) struct Sender(OwnedFd);

/// Where they are taken.
#[derive(Debug)]
pub(super) struct Receiver(OwnedFd);

/// What has come.
#[derive(Debug)]
pub(super) enum Handed {
    Listener(OwnedFd),
    /// Who has the other end calls.
    Call,
    Nothing,
}

/// What is sent with a listener, and as a call.
pub(super) const LISTENER: &[u8] = b"l";
const CALL: &[u8] = b"c";

/// Both ends.
pub(super) fn pair() -> io::Result<(Sender, Receiver)> {
    let (sender, receiver) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    Ok((Sender(sender), Receiver(receiver)))
}

impl Sender {
    /// Calls the thread, which hears it after all that it was given before.
    pub(super) fn call(&self) -> io::Result<()> {
        send(&self.0, CALL, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?;
        Ok(())
    }
}

impl Receiver {
    /// What has come; a listener for which there is no descriptor is lost, and is named.
    ///
    /// # Errors
    ///
    /// Nobody has the other end any more, besides those of recvmsg(2).
    pub(super) fn take(&self) -> io::Result<Handed> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut rights = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let received = match recvmsg(&self.0, &mut [IoSliceMut::new(&mut byte)], &mut rights, flags)
        {
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(Handed::Nothing),
            received => received?,
        };
        if received.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if byte == *CALL {
            return Ok(Handed::Call);
        }
        let taken = rights.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        if taken.is_none() {
            warn!("cannot answer the calls of the program's new instance: too many open files");
        }
        Ok(taken.map_or(Handed::Nothing, Handed::Listener))
    }
}

impl AsFd for Receiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsFd for Sender {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
