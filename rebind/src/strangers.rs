//! How many strangers one `accept()` throws away before its caller gets its turn back: somebody who knocks all the time
//! must not hold a program that has others to serve.
//!
//! Knows what the caller has asked for, and what it may rely on; must not know who a stranger is.

use core::ffi::c_int;

use crate::sys;

/// More than any queue has, where the kernel does not say how many wait (MPTCP before Linux 5.16).
const ANY_QUEUE: u32 = 1 << 16;

/// Those of one call.
pub(crate) struct Strangers {
    listener: c_int,
    /// Whether the caller wants to wait, however long.
    waits: bool,
    /// How many of those who waited when the first was thrown away are still there, at most.
    left: Option<u32>,
}

impl Strangers {
    /// None yet. Whoever calls with a blocking socket before there is anybody wants to wait; if somebody is there, it
    /// may have been told so by select(2), and must not be left waiting for the next.
    pub(crate) fn at(listener: c_int) -> Strangers {
        let waits = !sys::is_nonblocking(listener)
            && !sys::is_readable(listener)
            && !sys::has_timeout(listener);
        Strangers { listener, waits, left: None }
    }

    /// One more was thrown away: what the call fails with, if it must not go on.
    ///
    /// Without a bound there would be no end of them; but EAGAIN says that nobody is there, and an edge-triggered
    /// epoll(7) tells of those who are there no second time. So the bound is who waited when the call began to throw
    /// strangers away. Whoever is thrown away after so many has come since, and its coming is an edge of its own: the next
    /// `epoll_wait()` of whoever watches the socket returns. Who else accepts from it meanwhile only makes fewer of them.
    /// Level-triggered, and by poll(2), the rest is told of anyway.
    ///
    /// A blocking socket has no such word: its caller gets EINTR, after which it calls again.
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

    /// How many wait. A kernel that fills in nothing (gVisor) says that nobody does, though somebody is there.
    fn waiting(&self) -> u32 {
        let is_said = |waiting: &u32| *waiting > 0 || !sys::is_readable(self.listener);
        sys::waiting(self.listener).filter(is_said).unwrap_or(ANY_QUEUE)
    }
}
