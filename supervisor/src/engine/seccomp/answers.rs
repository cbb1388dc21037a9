//! The thread that answers the program's calls. It does nothing else, so that no call waits for us; the program's
//! processes wait for it, and are answered one after the other. Knows who is told, and no rule.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::fstat;
use tokio::sync::Notify;
use tracing::{debug, warn};

use super::call::{Answer, Call, Kind, Listener};
use super::{caller, rules};
use crate::engine::relocated::RelocatedPort;

/// How many instances' processes are answered at most. Before Linux 5.9 we are not told that nobody is left of one.
const LISTENERS_MAX: usize = 64;

/// How many answers that came too late are remembered.
const LATE_MAX: usize = 64;

/// What the thread works with.
#[derive(Debug)]
pub(super) struct Answers {
    /// The program's own port.
    pub(super) port: u16,
    pub(super) relocated: Arc<RelocatedPort>,
    /// Rung when somebody listens.
    pub(super) listens: Arc<Notify>,
    /// Gives the listener of each instance; closed, it ends the thread.
    pub(super) instances: super::hand::Receiver,
    pub(super) listeners: VecDeque<Listener>,
    /// Sockets that were bound for a thread that could not be told: a signal has come first, and it asks again. Only
    /// kernels before 5.19 do that.
    pub(super) late: VecDeque<u64>,
    pub(super) is_blind: bool,
}

impl Answers {
    /// Answers until nobody starts instances any more.
    pub(super) fn run(mut self) {
        while let Ok(ready) = self.wait() {
            let mut gone = vec![];
            for (at, flags) in ready.iter().enumerate().skip(1) {
                if flags.contains(PollFlags::POLLIN) {
                    self.answer_next(at - 1);
                } else if !flags.is_empty() {
                    gone.push(at - 1);
                }
            }
            for at in gone.into_iter().rev() {
                self.listeners.remove(at);
            }
            if !ready[0].is_empty() {
                match self.instances.take() {
                    Ok(Some(listener)) => self.add(Listener(listener)),
                    Ok(None) => {}
                    Err(_) => return,
                }
            }
        }
    }

    /// What happens at the hand, and at each listener.
    fn wait(&self) -> io::Result<Vec<PollFlags>> {
        let of = |end| PollFd::new(end, PollFlags::POLLIN);
        let listeners = self.listeners.iter().map(|listener| of(listener.0.as_fd()));
        let mut all: Vec<_> =
            std::iter::once(of(self.instances.as_fd())).chain(listeners).collect();
        loop {
            match poll(&mut all, PollTimeout::NONE) {
                Err(Errno::EINTR) => {}
                Err(error) => {
                    warn!(
                        "cannot answer the program's calls any more: {}",
                        bridge::error_text(&error.into())
                    );
                    return Err(error.into());
                }
                Ok(_) => break,
            }
        }
        Ok(all.iter().map(|polled| polled.revents().unwrap_or(PollFlags::POLLERR)).collect())
    }

    fn add(&mut self, listener: Listener) {
        if self.listeners.len() == LISTENERS_MAX {
            self.listeners.pop_front();
        }
        self.listeners.push_back(listener);
    }

    fn answer_next(&mut self, at: usize) {
        let call = match self.listeners[at].next() {
            Ok(Some(call)) => call,
            Ok(None) => return,
            Err(error) => {
                return debug!(
                    "a call of the program's is not told: {}",
                    bridge::error_text(&error)
                );
            }
        };
        let (answer, socket) = self.judge(at, &call);
        let is_told = self.listeners[at].answer(&call, answer);
        if answer != Answer::Done(Ok(())) {
            return;
        }
        match call.kind {
            Kind::Listen => self.listens.notify_one(),
            Kind::Bind if !is_told => self.note_late(socket),
            Kind::Bind => {}
        }
    }

    /// What is to be answered, and the socket that it was done with.
    fn judge(&mut self, at: usize, call: &Call) -> (Answer, Option<OwnedFd>) {
        let judged = match call.kind {
            Kind::Bind => self.bind(at, call),
            Kind::Listen => self.listen(at, call),
        };
        judged.unwrap_or_else(|error| {
            // Who has ended meanwhile is answered by nobody.
            if self.listeners[at].is_waiting(call) && !std::mem::replace(&mut self.is_blind, true) {
                let (thread, why) = (call.thread, bridge::error_text(&error));
                warn!("cannot look into process {thread}, so its port is not moved: {why}");
            }
            (Answer::Continue, None)
        })
    }

    /// Only what concerns us is done by us, with the address that was looked at. With any other the kernel goes on,
    /// which reads it again: should it be ours by then, our own sockets are in its way.
    fn bind(&mut self, at: usize, call: &Call) -> io::Result<(Answer, Option<OwnedFd>)> {
        let pass = Ok((Answer::Continue, None));
        let Some((bytes, length)) = caller::address_at(call.thread, call.argument, call.length)?
        else {
            return pass;
        };
        let address = &bytes[..length];
        if !rules::concern(address, (self.port, self.relocated.port)) {
            return pass;
        }
        let Some(socket) = self.socket_of(at, call)? else { return pass };
        if self.was_late(&socket) {
            return Ok((Answer::Done(Ok(())), Some(socket)));
        }
        let refused = |why: io::Error| {
            let (thread, why) = (call.thread, bridge::error_text(&why));
            warn!(
                "cannot give the relocated port to process {thread}, which has another user: {why}"
            );
        };
        Ok((rules::bind(&socket, address, &self.relocated, refused), Some(socket)))
    }

    fn listen(&self, at: usize, call: &Call) -> io::Result<(Answer, Option<OwnedFd>)> {
        let Some(socket) = self.socket_of(at, call)? else { return Ok((Answer::Continue, None)) };
        Ok((rules::listen(&socket, call.argument, &self.relocated), Some(socket)))
    }

    /// The socket that is meant, if the thread has one there, and waits still: so it is that thread's.
    fn socket_of(&self, at: usize, call: &Call) -> io::Result<Option<OwnedFd>> {
        let socket = caller::socket_of(call.thread, call.socket)?;
        Ok(socket.filter(|_| self.listeners[at].is_waiting(call)))
    }

    fn note_late(&mut self, socket: Option<OwnedFd>) {
        let Some(inode) = socket.and_then(|socket| inode(&socket)) else { return };
        if self.late.len() == LATE_MAX {
            self.late.pop_front();
        }
        self.late.push_back(inode);
    }

    /// Whether this very bind was done already, and could not be told.
    fn was_late(&mut self, socket: &OwnedFd) -> bool {
        let Some(at) =
            inode(socket).and_then(|inode| self.late.iter().position(|late| *late == inode))
        else {
            return false;
        };
        self.late.remove(at);
        rules::is_moved(socket, self.relocated.port)
    }
}

fn inode(socket: &OwnedFd) -> Option<u64> {
    fstat(socket).ok().map(|stat| stat.st_ino)
}
