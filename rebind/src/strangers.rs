//! The limit on how many strangers' connections one `accept()` closes before it returns. A stranger that connects again and
//! again must not keep the program in that call while it has others to serve.
//!
//! Knows what the caller has asked for, and what it may rely on; must not know who a stranger is.

use core::ffi::c_int;

use crate::sys;

/// Longer than any accept queue, where the kernel does not say how many connections wait (MPTCP before Linux 5.16).
const ANY_QUEUE: u32 = 1 << 16;

/// The strangers whose connections one call has closed.
pub(crate) struct Strangers {
    listener: c_int,
    /// Whether the caller wants to wait for a connection, however long.
    waits: bool,
    /// How many of the connections that waited when the first was closed may still be in the accept queue, at most.
    left: Option<u32>,
}

impl Strangers {
    /// At the beginning of a call, when none is closed yet. A caller with a blocking socket and an empty accept queue wants
    /// to wait. If a connection is there, select(2) may have told the caller so: it must not be made to wait for the next.
    pub(crate) fn at(listener: c_int) -> Strangers {
        let waits = !sys::is_nonblocking(listener)
            && !sys::is_readable(listener)
            && !sys::has_timeout(listener);
        Strangers { listener, waits, left: None }
    }

    /// Notes that one more stranger's connection was closed. Returns the errno that the call fails with, if it must not go
    /// on.
    ///
    /// Without a limit the call might never return. But EAGAIN says that the accept queue is empty, and an edge-triggered
    /// epoll(7) does not report connections in the queue a second time. So the limit is the number of connections that
    /// waited when the call closed its first stranger's. If one more is closed after that many, it has come since then, and
    /// its arrival is an edge of its own: the next `epoll_wait()` for the socket returns. If another thread or process
    /// accepts from the socket meanwhile, only fewer of the counted connections are left. Level-triggered epoll and poll(2)
    /// report the connections that are left anyway.
    ///
    /// EAGAIN is no answer for a blocking socket: its caller gets EINTR, after which it calls again.
    pub(crate) fn is_enough(&mut self) -> Option<c_int> {
        if self.waits {
            return None;
        }
        let is_nonblocking = sys::is_nonblocking(self.listener);
        if !is_nonblocking && !sys::is_readable(self.listener) {
            return Some(sys::EINTR);
        }
        let left = match self.left {
            None => self.waiting(),
            Some(0) => return Some(if is_nonblocking { sys::EAGAIN } else { sys::EINTR }),
            Some(left) => left - 1,
        };
        self.left = Some(left);
        None
    }

    /// How many connections wait. A kernel that fills in nothing (gVisor) says 0, although the socket is readable.
    fn waiting(&self) -> u32 {
        let is_said = |waiting: &u32| *waiting > 0 || !sys::is_readable(self.listener);
        sys::waiting(self.listener).filter(is_said).unwrap_or(ANY_QUEUE)
    }
}
