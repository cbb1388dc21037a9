//! A call that waits for our answer (seccomp_unotify(2)): how we are told of it, what it is, and how it is answered.
//! Knows no rule.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::unistd::Pid;

use crate::engine::owner::Owner;

/// The descriptor where the kernel tells us the calls of all processes under one filter, which are those of an instance,
/// and who has the port in it.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) descriptor: OwnedFd,
    pub(super) owner: Cell<Owner>,
}

/// A call of the program's.
#[derive(Debug)]
pub(super) struct Call {
    id: u64,
    /// The thread; 0 if it is in a PID namespace that we do not see.
    pub(super) thread: Pid,
    pub(super) kind: Kind,
    pub(super) socket: i32,
    /// The second argument.
    pub(super) argument: u64,
    pub(super) length: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Bind,
    Listen,
}

/// The answer to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// The kernel goes on with the call.
    Continue,
    /// We have done it; or it has failed, with this errno.
    Done(Result<(), i32>),
}

impl Listener {
    /// The next call; none if it was given up meanwhile.
    pub(super) fn next(&self) -> io::Result<Option<Call>> {
        let mut told = zeroed_notification();
        match self.control(libc::SECCOMP_IOCTL_NOTIF_RECV, (&raw mut told).cast()) {
            Ok(()) => {}
            // The thread has ended, or a signal has come first.
            Err(Errno::ENOENT | Errno::EINTR | Errno::EAGAIN) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        let [socket, argument, length, ..] = told.data.args;
        let kind = if libc::c_long::from(told.data.nr) == libc::SYS_listen {
            Kind::Listen
        } else {
            Kind::Bind
        };
        #[expect(clippy::cast_possible_truncation, reason = "the kernel takes the lower half")]
        let socket = socket as i32;
        let thread = Pid::from_raw(i32::try_from(told.pid).unwrap_or_default());
        Ok(Some(Call { id: told.id, thread, kind, socket, argument, length }))
    }

    /// Whether the call still waits. If so, what was learned before of the thread with this number is true of the very
    /// thread that made the call.
    pub(super) fn is_waiting(&self, call: &Call) -> bool {
        let mut id = call.id;
        self.control(libc::SECCOMP_IOCTL_NOTIF_ID_VALID, (&raw mut id).cast()).is_ok()
    }

    /// Answers a call. False: no thread waits for the answer any more.
    pub(super) fn answer(&self, call: &Call, answer: Answer) -> bool {
        let (error, flags) = match answer {
            Answer::Continue => (0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE),
            Answer::Done(Ok(())) => (0, 0),
            Answer::Done(Err(errno)) => (-errno, 0),
        };
        let flags = u32::try_from(flags).expect("it is the first bit");
        let mut said = libc::seccomp_notif_resp { id: call.id, val: 0, error, flags };
        self.control(libc::SECCOMP_IOCTL_NOTIF_SEND, (&raw mut said).cast()).is_ok()
    }

    #[allow(unsafe_code)]
    fn control(&self, request: libc::Ioctl, argument: *mut libc::c_void) -> Result<(), Errno> {
        // SAFETY: each caller gives what the kernel reads or writes for its request, and it outlives the call.
        let result = unsafe { libc::ioctl(self.descriptor.as_raw_fd(), request, argument) };
        Errno::result(result).map(drop)
    }
}

/// The kernel demands that all bytes are zero before it fills them in.
fn zeroed_notification() -> libc::seccomp_notif {
    let data = libc::seccomp_data { nr: 0, arch: 0, instruction_pointer: 0, args: [0; 6] };
    libc::seccomp_notif { id: 0, pid: 0, flags: 0, data }
}
