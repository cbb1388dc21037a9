//! The hand: a socket pair by which a process that has put itself under the filter, between fork and exec, sends its
//! listener to the thread that answers. It also wakes that thread. Knows descriptors only.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketFlags,
    SocketType, recvmsg, send, socketpair,
};
use tracing::warn;

/// The end where listeners are sent; closed on exec.
#[derive(Debug)]
pub(super) struct Sender(OwnedFd);

/// The end where the thread takes them.
#[derive(Debug)]
pub(super) struct Receiver(OwnedFd);

/// What has come.
#[derive(Debug)]
pub(super) enum Handed {
    Listener(OwnedFd),
    /// The thread is only woken.
    Call,
    Nothing,
}

/// The message that brings a listener, and the one that only wakes the thread.
pub(super) const LISTENER: &[u8] = b"l";
const CALL: &[u8] = b"c";

/// Both ends.
pub(super) fn pair() -> io::Result<(Sender, Receiver)> {
    let (sender, receiver) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    Ok((Sender(sender), Receiver(receiver)))
}

impl Sender {
    /// Wakes the thread, which takes this message after all that were sent before.
    pub(super) fn call(&self) -> io::Result<()> {
        send(&self.0, CALL, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?;
        Ok(())
    }
}

impl Receiver {
    /// Takes the next message. A listener for which we have no free descriptor is lost, and the log warns of that.
    ///
    /// # Errors
    ///
    /// The other end is closed; or those of recvmsg(2).
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
