//! Sessions that cannot go along, as their keys are in our memory: a process that is forked from us goes on with them, to
//! their end, as a bridge that is drained. It has nothing else of ours. Must not know what is handed over, nor how.

use std::convert::Infallible;
use std::fs;
use std::io::{self, Read};
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::thread;
use std::time::Duration;

use bridge::{Rest, Shutdown};
use nix::sys::prctl;
use nix::sys::signal::SigSet;
use nix::unistd::{ForkResult, Pid, fork, getpid, getppid, pipe2, setpgid, write};
use socket2::{SockRef, Type};
use tokio::sync::watch;

use crate::log::Log;
use crate::relay::REST_ASKED;
use crate::writer::Writer;

/// How long what is logged may take before the log stands still.
const HALT: Duration = Duration::from_millis(200);

/// As many threads carry what is left.
const WORKERS: usize = 2;

/// What it writes by.
#[derive(Clone, Copy)]
pub(super) struct Writers<'a> {
    pub(super) log: &'a Log,
    pub(super) letters: Option<&'a Writer>,
}

/// The process that goes on with them, as soon as we are another program, or no more.
pub(super) struct Parted {
    pub(super) process: Pid,
    /// By which it is told that nothing has come of that.
    word: OwnedFd,
}

impl Parted {
    /// Nothing has come of it: the sessions are ours still.
    pub(super) fn call_off(&self) {
        // It ends by that; what waits for our children waits for it.
        let _ = write(&self.word, b"x");
    }
}

/// Parts from them. The process keeps none of the descriptors that are `others`. To be called while nothing else is at work.
///
/// # Errors
/// No process, or no descriptor, can be had.
pub(super) fn part(
    rest: Rest,
    others: &[RawFd],
    writers: Writers<'_>,
) -> io::Result<(Parted, Rest)> {
    let (told, word) = pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    let us = getpid();
    if !writers.halt() {
        writers.go_on();
        return Err(io::Error::other("the log does not stop in time"));
    }
    // SAFETY: the child has one thread, and locks that others had are locked for ever there. So all sessions stand still, and the
    // threads that write have ended. What is left are the administration and helpers, which share the log's and the book's
    // locks for a moment each.
    #[allow(unsafe_code)]
    let forked = unsafe { fork() };
    match forked {
        Ok(ForkResult::Child) => {
            drop(word);
            // Our stack is the runtime's: it cannot be returned to.
            let status = match live(rest, us, told, others, writers) {
                Ok(()) => 0,
                Err(_) => 1,
            };
            exit(status)
        }
        Ok(ForkResult::Parent { child }) => {
            writers.go_on();
            // For whichever of the two comes first.
            let _ = setpgid(child, child);
            Ok((Parted { process: child, word }, rest))
        }
        Err(errno) => {
            writers.go_on();
            Err(errno.into())
        }
    }
}

impl Writers<'_> {
    fn halt(self) -> bool {
        self.log.halt(HALT) && self.letters.is_none_or(|letters| letters.halt(HALT))
    }

    fn go_on(self) {
        self.log.go_on();
        self.letters.iter().for_each(|letters| drop(letters.go_on()));
    }
}

/// The process, to its end.
fn live(
    rest: Rest,
    parent: Pid,
    told: OwnedFd,
    others: &[RawFd],
    writers: Writers<'_>,
) -> io::Result<()> {
    // Ours alone: whoever asks all processes of a service to end (SIGTERM) has us decide what becomes of it.
    asked().thread_block()?;
    prctl::set_pdeathsig(REST_ASKED)?;
    // Nobody who speaks to our group means it, nor what ends with a helper's group.
    let _ = setpgid(Pid::from_raw(0), Pid::from_raw(0));
    let _ = prctl::set_name(c"websockify-rest");
    let mut word = Vec::new();
    fs::File::from(told).read_to_end(&mut word)?;
    let is_called_off = !word.is_empty();
    if is_called_off || getppid() != parent {
        return Ok(());
    }
    close(others, &rest);
    writers.go_on();
    let shutdown = watch::Sender::new(Shutdown::Drain);
    let ended = shutdown.clone();
    thread::Builder::new().name("signals".into()).spawn(move || obey(&ended))?;
    // The runtime that we are called from is of another process.
    let serving = move || -> io::Result<()> {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(WORKERS).enable_all().build()?;
        runtime.block_on(rest.serve(shutdown)).map(drop).map_err(io::Error::other)
    };
    let served = thread::Builder::new().name("rest".into()).spawn(serving)?.join();
    writers.log.flush();
    served.unwrap_or_else(|_| Err(io::Error::other("a panic")))
}

fn asked() -> SigSet {
    [REST_ASKED].into_iter().collect()
}

/// Ends the sessions when it is asked for, or our parent has ended; asked again, all.
fn obey(shutdown: &watch::Sender<Shutdown>) -> Infallible {
    let asked = asked();
    loop {
        if asked.wait().is_ok() && shutdown.send_replace(Shutdown::Now) == Shutdown::Now {
            exit(1);
        }
    }
}

/// What others have open must not stay open here: nobody would serve it.
#[allow(unsafe_code)]
fn close(others: &[RawFd], rest: &Rest) {
    let kept = rest.descriptors();
    let open = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let open: Vec<RawFd> =
        open.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    let closed = |number: &RawFd| {
        *number > 2 && !kept.contains(number) && (others.contains(number) || is_stream(*number))
    };
    for number in open.iter().filter(|number| closed(number)) {
        // SAFETY: whoever has owned it does nothing in this process any more.
        unsafe { libc::close(*number) };
    }
}

/// Whether it is a socket that somebody may have connected to.
#[allow(unsafe_code)]
fn is_stream(number: RawFd) -> bool {
    // SAFETY: it is used for one getsockopt(2), which fails where nothing is open.
    let socket = unsafe { BorrowedFd::borrow_raw(number) };
    SockRef::from(&socket).r#type().is_ok_and(|kind| kind == Type::STREAM)
}

/// Without what is done at the end of a process: all that is our parent's.
#[allow(unsafe_code)]
fn exit(status: i32) -> ! {
    // SAFETY: it does not return.
    unsafe { libc::_exit(status) }
}
