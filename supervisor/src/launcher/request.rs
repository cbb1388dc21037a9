//! The requests that the launcher gets, and its answers, as messages on a socket pair (unix(7), SOCK_SEQPACKET). Knows
//! their bytes; must not carry any of them out.

use std::ffi::{OsStr, OsString};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recv, recvmsg, send, sendmsg,
};

use crate::processes::Process;

/// The longest request, bytes: the longest environment variable (execve(2)), and some more.
const LONGEST: usize = 192 * 1024;

const START: u8 = b'S';
const SIGNAL: u8 = b'K';

/// One request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// Start the program, with these environment variables set, or removed.
    Start { changes: Vec<(OsString, Option<OsString>)>, takes_terminal: bool },
    /// Send a signal to the process with this id that began at `start`. No signal: kill it, with its process group.
    Signal { process: Pid, start: Option<u64>, signal: Option<Signal> },
}

impl Request {
    pub(super) fn signal(process: &Process, signal: Option<Signal>) -> Self {
        Self::Signal { process: process.pid, start: process.start(), signal }
    }

    /// Sends the request, with a descriptor for the program's output.
    pub(super) fn send(&self, socket: &OwnedFd, output: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut rights = SendAncillaryBuffer::new(&mut space);
        let output: Vec<_> = output.into_iter().collect();
        if !output.is_empty() {
            rights.push(SendAncillaryMessage::ScmRights(&output));
        }
        let bytes = self.bytes();
        if bytes.len() > LONGEST {
            return Err(Errno::E2BIG.into());
        }
        match sendmsg(socket, &[IoSlice::new(&bytes)], &mut rights, SendFlags::NOSIGNAL) {
            Ok(_) => Ok(()),
            Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => Err(has_ended()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for a request. None: the other end is closed, or the message is no request.
    pub(super) fn receive(socket: &OwnedFd) -> Option<(Self, Option<OwnedFd>)> {
        let mut bytes = vec![0; LONGEST];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut rights = RecvAncillaryBuffer::new(&mut space);
        let read = loop {
            let parts = &mut [IoSliceMut::new(&mut bytes)];
            match recvmsg(socket.as_fd(), parts, &mut rights, RecvFlags::CMSG_CLOEXEC) {
                Err(rustix::io::Errno::INTR) => {}
                read => break read.ok()?.bytes,
            }
        };
        let output = rights.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        Some((Self::of(&bytes[..read])?, output))
    }

    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Start { changes, takes_terminal } => {
                let mut bytes = vec![START, u8::from(*takes_terminal)];
                for (name, value) in changes {
                    bytes.extend(name.as_bytes());
                    if let Some(value) = value {
                        bytes.push(b'=');
                        bytes.extend(value.as_bytes());
                    }
                    bytes.push(0);
                }
                bytes
            }
            Self::Signal { process, start, signal } => {
                let mut bytes = vec![SIGNAL];
                bytes.extend(process.as_raw().to_ne_bytes());
                bytes.extend(start.unwrap_or(u64::MAX).to_ne_bytes());
                bytes.extend(signal.map_or(0, |signal| signal as i32).to_ne_bytes());
                bytes
            }
        }
    }

    fn of(bytes: &[u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        match *kind {
            START => {
                let (takes_terminal, changes) = rest.split_first()?;
                let changes = changes.split(|byte| *byte == 0).filter(|change| !change.is_empty());
                let changes = changes.map(change).collect();
                Some(Self::Start { changes, takes_terminal: *takes_terminal != 0 })
            }
            SIGNAL => {
                let (process, rest) = rest.split_first_chunk()?;
                let (start, rest) = rest.split_first_chunk()?;
                let signal = i32::from_ne_bytes(*rest.first_chunk()?);
                let start = u64::from_ne_bytes(*start);
                Some(Self::Signal {
                    process: Pid::from_raw(i32::from_ne_bytes(*process)),
                    start: (start != u64::MAX).then_some(start),
                    signal: if signal == 0 { None } else { Some(signal.try_into().ok()?) },
                })
            }
            _ => None,
        }
    }
}

fn change(bytes: &[u8]) -> (OsString, Option<OsString>) {
    let own = |bytes: &[u8]| OsStr::from_bytes(bytes).to_owned();
    match bytes.iter().position(|byte| *byte == b'=') {
        Some(at) => (own(&bytes[..at]), Some(OsString::from_vec(bytes[at + 1..].to_vec()))),
        None => (own(bytes), None),
    }
}

/// Sends an answer: a number that is not negative, or the error of what has failed.
pub(super) fn say(socket: &OwnedFd, answer: io::Result<i32>) {
    let number = answer.unwrap_or_else(|error| -error.raw_os_error().unwrap_or(libc::EINVAL));
    let _ = send(socket, &number.to_ne_bytes(), SendFlags::NOSIGNAL);
}

/// Waits for an answer.
///
/// # Errors
///
/// What was asked has failed; or the launcher has ended, or does not answer in time.
pub(super) fn answer(socket: &OwnedFd) -> io::Result<i32> {
    let mut bytes = [0; 4];
    loop {
        match recv(socket, &mut bytes, RecvFlags::empty()) {
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
            Ok((_, 4)) => break,
            Ok(_) => return Err(has_ended()),
        }
    }
    match i32::from_ne_bytes(bytes) {
        number if number >= 0 => Ok(number),
        number => Err(Errno::from_raw(-number).into()),
    }
}

fn has_ended() -> io::Error {
    io::Error::other("the launcher, which is of the program's user, has ended")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn w16_a_request_arrives_as_it_was_sent() {
        let text = |text: &str| OsString::from(text);
        let changes = vec![
            (text("LD_PRELOAD"), Some(text("/tmp/a b/rebind.so"))),
            (text("EMPTY"), Some(text(""))),
            (text("EQUAL"), Some(text("a=b=c"))),
            (text("NOTIFY_SOCKET"), None),
        ];
        let (process, start) = (Pid::from_raw(1234), Some(u64::MAX - 1));
        for request in [
            Request::Start { changes, takes_terminal: true },
            Request::Start { changes: vec![], takes_terminal: false },
            Request::Signal { process, start, signal: Some(Signal::SIGTERM) },
            Request::Signal { process, start: None, signal: None },
        ] {
            let read = Request::of(&request.bytes());
            assert_eq!(read.as_ref(), Some(&request));
        }
        for bytes in [&b""[..], b"S", b"K", b"K1234", b"X"] {
            assert_eq!(Request::of(bytes), None, "{bytes:?}");
        }
    }
}
