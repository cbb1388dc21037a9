//! The rest: a process that is forked from the old one. It goes on with the sessions that cannot be handed over, as
//! their TLS keys are in our memory, until they end, as a bridge that is drained. It has nothing else of ours. Must not
//! know what is handed over, nor how.

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

use super::workers;
use crate::log::Log;
use crate::relay::REST_ASKED;
use crate::writer::Writer;

/// How long writing what is logged may take, until the threads that write stop.
const HALT: Duration = Duration::from_millis(200);

/// How long a task may take until it pauses: on a busy machine, much longer than it works.
const PAUSE: Duration = Duration::from_secs(1);

/// How many threads carry these sessions.
const WORKERS: usize = 2;

/// What the process writes its log and its traffic letters by.
#[derive(Clone, Copy)]
pub(super) struct Writers<'a> {
    pub(super) log: &'a Log,
    pub(super) letters: Option<&'a Writer>,
}

/// The process that goes on with the sessions, as soon as the new binary is executed.
pub(super) struct Parted {
    pub(super) process: Pid,
    /// The pipe by which it is told that the hand-over has failed. exec(2) closes our end.
    word: OwnedFd,
}

impl Parted {
    /// The hand-over has failed: the sessions stay with us.
    pub(super) fn call_off(&self) {
        // The process ends by that, and is reaped as our other children are.
        let _ = write(&self.word, b"x");
    }
}

/// Forks the process. It keeps none of the descriptors in `others`. To be called on the main thread, while all sessions
/// stand still.
///
/// # Errors
/// No process or descriptor can be had, or the log or a task does not stop in time.
pub(super) fn part(
    rest: Rest,
    others: &[RawFd],
    writers: Writers<'_>,
) -> io::Result<(Parted, Rest)> {
    let (told, word) = pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    let us = getpid();
    let held = if writers.halt() {
        workers::hold(PAUSE)
    } else {
        Err(io::Error::other("the log does not stop in time"))
    };
    // SAFETY: the child has one thread, and a lock that another thread has at the fork is locked for ever in the child.
    // The threads that write have halted, and the workers are at no other task. Threads that read files go on: they
    // take no lock that the child takes but that of the log's queue, while a record is put into it. If the fork fell into
    // that moment, the child would hang at its first record, and its sessions with it; the parent goes on in any case.
    #[allow(unsafe_code)]
    let forked = held.and_then(|held| Ok((unsafe { fork() }?, held)));
    match forked {
        Ok((ForkResult::Child, _)) => {
            drop(word);
            // Our stack belongs to the runtime of the parent: we cannot return to it.
            let status = match live(rest, us, told, others, writers) {
                Ok(()) => 0,
                Err(_) => 1,
            };
            exit(status)
        }
        Ok((ForkResult::Parent { child }, _)) => {
            writers.go_on();
            // Parent and child both do this, so that it is done whichever comes first.
            let _ = setpgid(child, child);
            Ok((Parted { process: child, word }, rest))
        }
        Err(error) => {
            writers.go_on();
            Err(error)
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

/// What the process does, to its end.
fn live(
    rest: Rest,
    parent: Pid,
    told: OwnedFd,
    others: &[RawFd],
    writers: Writers<'_>,
) -> io::Result<()> {
    // This signal only we send. SIGTERM may be sent to all processes of a service at once: then the main process
    // decides what becomes of this one.
    asked().thread_block()?;
    prctl::set_pdeathsig(REST_ASKED)?;
    // A process group of its own: neither a signal to websockify's group nor one that ends a helper's group is meant
    // for it.
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
    // The runtime that we are called from belongs to another process, the parent.
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

/// Waits for the signal that asks this process to end, which the kernel sends, too, when our parent has ended. When it
/// comes for the first time, the sessions are ended; at the second time, the process ends at once.
fn obey(shutdown: &watch::Sender<Shutdown>) -> Infallible {
    let asked = asked();
    loop {
        if asked.wait().is_ok() && shutdown.send_replace(Shutdown::Now) == Shutdown::Now {
            exit(1);
        }
    }
}

/// Closes the descriptors that other processes go on with, and sockets that are not of these sessions: nobody would
/// serve what stays open here.
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
        // SAFETY: what has owned this descriptor does nothing in this process any more.
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

/// Ends the process without what is usually done at the end of one: all that is the parent's to do.
#[allow(unsafe_code)]
fn exit(status: i32) -> ! {
    // SAFETY: it does not return.
    unsafe { libc::_exit(status) }
}
