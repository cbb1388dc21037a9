//! The thread that answers the program's calls. It does nothing else, so that no call waits for other work of ours; the
//! calls are answered one after the other. Knows who is told of what happened, and no rule of moving a port.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::SigSet;
use tokio::sync::Notify;
use tracing::{debug, warn};

use super::call::{Answer, Call, Kind, Listener};
use super::halt::Halt;
use super::hand::Handed;
use super::repeats::{RetriedBind, RetriedBinds};
use super::unseen::Unseen;
use super::{caller, rules};
use crate::engine::relocated::RelocatedPort;

/// Of how many instances the calls are answered at most. Before Linux 5.9 we are not told that an instance has no
/// process any more.
const LISTENERS_MAX: usize = 64;

/// What the thread works with.
#[derive(Debug)]
pub(super) struct Answers {
    /// The program's own port.
    pub(super) port: u16,
    pub(super) relocated: Arc<RelocatedPort>,
    /// Notified when a process listens on the relocated port.
    pub(super) listens: Arc<Notify>,
    /// Gives the listener of each instance. When the other end is closed, the thread ends.
    pub(super) instances: super::hand::Receiver,
    pub(super) listeners: VecDeque<Listener>,
    pub(super) repeats: RetriedBinds,
    pub(super) unseen: Unseen,
}

impl Answers {
    /// Starts the thread.
    ///
    /// # Errors
    /// No thread can be started. `halt` has it then, for a later one.
    pub(super) fn begin(self, halt: &Halt<Self>) -> Result<()> {
        let thread = std::thread::Builder::new().name("seccomp".to_owned());
        halt.begin(thread, self, Self::run).context("cannot start a thread")
    }

    /// Answers until no instance can be started any more, or the thread is stopped for a hand-over.
    fn run(mut self, halt: &Halt<Self>) {
        // The kernel reports an error of a listener if a signal comes while it looks at the listener. Signals are for
        // other threads.
        let _ = SigSet::all().thread_block();
        while let Ok(ready) = self.wait() {
            let mut gone = vec![];
            for (at, flags) in ready.iter().enumerate().skip(1) {
                if flags.contains(PollFlags::POLLIN) {
                    self.answer_next(at - 1);
                } else if flags.contains(PollFlags::POLLHUP) {
                    gone.push(at - 1);
                }
            }
            for at in gone.into_iter().rev() {
                self.listeners.remove(at);
            }
            if !ready[0].is_empty() {
                match self.instances.take() {
                    Ok(Handed::Listener(listener)) => {
                        self.add(Listener { descriptor: listener, owner: Cell::default() });
                    }
                    Ok(Handed::Call) => match halt.come_by(self) {
                        Some(answers) => self = answers,
                        None => return,
                    },
                    Ok(Handed::Nothing) => {}
                    Err(_) => return,
                }
            }
        }
    }

    /// Waits for events. Gives those of the hand, and then those of each listener.
    fn wait(&self) -> io::Result<Vec<PollFlags>> {
        let of = |end| PollFd::new(end, PollFlags::POLLIN);
        let listeners = self.listeners.iter().map(|listener| of(listener.descriptor.as_fd()));
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
        let repeat = self.repeats.take(call.thread);
        let (answer, socket) = self.judge(at, &call, repeat.as_ref());
        let is_told = self.listeners[at].answer(&call, answer);
        if answer != Answer::Done(Ok(())) {
            if let Some(repeat) = repeat.filter(|_| !is_told) {
                self.repeats.keep(repeat);
            }
            return;
        }
        match (call.kind, socket) {
            (Kind::Listen, _) => {
                self.listeners[at].owner.get_mut().listens();
                self.listens.notify_one();
            }
            (Kind::Bind, Some(socket)) => self.repeats.note(call.thread, &socket, is_told),
            (Kind::Bind, None) => {}
        }
    }

    /// The answer to a call, and the socket that the call was made with.
    fn judge(
        &self,
        at: usize,
        call: &Call,
        repeat: Option<&RetriedBind>,
    ) -> (Answer, Option<OwnedFd>) {
        let judged = match call.kind {
            Kind::Bind => self.bind(at, call, repeat),
            Kind::Listen => self.listen(at, call),
        };
        judged.unwrap_or_else(|error| {
            // If the thread has ended meanwhile, it waits for no answer.
            if self.listeners[at].is_waiting(call) {
                self.unseen.note(call.thread, &error);
            }
            (Answer::Continue, None)
        })
    }

    /// We bind only to an address that concerns our ports, and to the very address that we have read. With any other
    /// address the kernel goes on, and reads it once more from the program's memory: if it has become one of ours by
    /// then, our own sockets are in its way.
    fn bind(
        &self,
        at: usize,
        call: &Call,
        repeat: Option<&RetriedBind>,
    ) -> io::Result<(Answer, Option<OwnedFd>)> {
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
        let is_done = |repeat: &RetriedBind| {
            repeat.is_of(&socket) && rules::is_moved(&socket, self.relocated.port)
        };
        if repeat.is_some_and(is_done) {
            return Ok((Answer::Done(Ok(())), Some(socket)));
        }
        let refused = |why: io::Error| {
            let (thread, why) = (call.thread, bridge::error_text(&why));
            warn!(
                "cannot give the relocated port to process {thread}, which has another user: {why}"
            );
        };
        let owner = &self.listeners[at].owner;
        Ok((rules::bind(&socket, address, (&self.relocated, owner), refused), Some(socket)))
    }

    fn listen(&self, at: usize, call: &Call) -> io::Result<(Answer, Option<OwnedFd>)> {
        let Some(socket) = self.socket_of(at, call)? else { return Ok((Answer::Continue, None)) };
        Ok((rules::listen(&socket, call.argument, &self.relocated), Some(socket)))
    }

    /// The socket that a call means, if the thread has one with that number. The call still waits after the copy was
    /// made, so the copy is surely of that thread's socket.
    fn socket_of(&self, at: usize, call: &Call) -> io::Result<Option<OwnedFd>> {
        let socket = caller::socket_of(call.thread, call.socket)?;
        Ok(socket.filter(|_| self.listeners[at].is_waiting(call)))
    }
}
