//! The way back to the old binary, open until the new one has settled. Whatever happens to the new one until then, an
//! error, a panic, a deadly signal, or nothing for too long, the old binary is executed again with the same state.
//! Knows descriptors, signals and texts; must not know what the state is.
//!
//! Only the main thread may execute it: it has forked our children, which get their parent-death signal if this thread
//! ends (prctl(2), PR_SET_PDEATHSIG). A signal that another thread gets is passed on to the main thread.

use std::io;
use std::os::fd::RawFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::alarm;

use super::image::{BACK, ExecArgs, VARIABLE, environment};
use super::threads::is_main;
use crate::exit::Failure;

/// How long we may take to settle, seconds.
const SETTLE_TIMEOUT: u32 = 5;

/// The signals that a broken program causes, and the one that is sent to a program that hangs.
const DEADLY: [Signal; 6] = [
    Signal::SIGSEGV,
    Signal::SIGBUS,
    Signal::SIGILL,
    Signal::SIGFPE,
    Signal::SIGABRT,
    Signal::SIGALRM,
];

/// The old binary, and what it is told.
struct WayBack {
    program: RawFd,
    memory: RawFd,
    /// What it is executed with, for each signal.
    images: Vec<(Signal, ExecArgs)>,
    panicked: ExecArgs,
    /// What the signals did before.
    before: OnceLock<Vec<(Signal, SigAction)>>,
}

/// Where a signal's handler finds it.
static WAY: AtomicPtr<WayBack> = AtomicPtr::new(std::ptr::null_mut());
/// Whether another thread has panicked.
static PANICKED: AtomicBool = AtomicBool::new(false);

/// Opens it. To be called before there is a second thread.
#[allow(unsafe_code)]
pub(super) fn open(memory: RawFd, program: RawFd) -> io::Result<()> {
    let image = |why: &str| image(memory, program, why);
    let images = DEADLY.into_iter().map(|signal| Ok((signal, image(&cause(signal))?)));
    let images = images.collect::<io::Result<_>>()?;
    let way = WayBack {
        program,
        memory,
        images,
        panicked: image("it panicked")?,
        before: OnceLock::new(),
    };
    let way: &WayBack = Box::leak(Box::new(way));
    WAY.store(std::ptr::from_ref(way).cast_mut(), Ordering::Release);
    let flags = SaFlags::SA_ONSTACK | SaFlags::SA_NODEFER;
    let action = SigAction::new(SigHandler::Handler(caught), flags, SigSet::empty());
    let mut before = vec![];
    for signal in DEADLY {
        // SAFETY: the handler makes plain system calls, and reads only what is not changed any more: it does not read
        // `before`.
        before.push((signal, unsafe { sigaction(signal, &action) }?));
    }
    let _ = way.before.set(before);
    let mut alarm_alone = SigSet::empty();
    alarm_alone.add(Signal::SIGALRM);
    alarm_alone.thread_unblock()?;
    std::panic::set_hook(Box::new(|_| panicked()));
    alarm::set(SETTLE_TIMEOUT);
    Ok(())
}

/// Closes it, when we have settled.
#[allow(unsafe_code)]
pub(super) fn close() {
    alarm::cancel();
    let way = WAY.swap(std::ptr::null_mut(), Ordering::AcqRel);
    // SAFETY: it is null or was leaked above; nobody changes it any more, and it is never freed.
    let Some(way) = (unsafe { way.as_ref() }) else { return };
    drop(std::panic::take_hook());
    for (signal, action) in way.before.get().into_iter().flatten() {
        // SAFETY: it is what the signal did before, which was safe.
        let _ = unsafe { sigaction(*signal, action) };
    }
}

/// Goes back to the old binary for this failure, if there is a way. What has failed was not dropped yet: the
/// descriptors that it holds are still open.
pub(crate) fn or_back<T>(result: Result<T, Failure>) -> Result<T, Failure> {
    result.inspect_err(|failure| go(&failure.reason))
}

/// Goes back to the old binary, if there is a way.
#[allow(unsafe_code)]
pub(super) fn go(why: &str) {
    // SAFETY: it is null or was leaked above, and is never freed.
    let Some(way) = (unsafe { WAY.load(Ordering::Acquire).as_ref() }) else { return };
    // If the old binary cannot be executed, it is as if there were no way back.
    let why = why.replace('\0', " ");
    if let Ok(image) = image(way.memory, way.program, &why)
        && is_main()
    {
        alarm::cancel();
        image.execute(way.program);
    }
}

fn image(memory: RawFd, program: RawFd, why: &str) -> io::Result<ExecArgs> {
    let told = [(VARIABLE, format!("{memory},{program}")), (BACK, why.to_owned())];
    ExecArgs::new(std::env::args_os(), environment(&[VARIABLE, BACK], told))
}

fn cause(signal: Signal) -> String {
    match signal {
        Signal::SIGALRM => format!("it did not settle within {SETTLE_TIMEOUT} s"),
        signal => format!("it was ended by {signal}"),
    }
}

extern "C" fn caught(signal: i32) {
    if is_main() {
        back(signal);
    } else {
        pass_on(signal);
    }
}

fn panicked() {
    PANICKED.store(true, Ordering::Release);
    if is_main() {
        back(libc::SIGABRT);
    } else {
        pass_on(libc::SIGABRT);
    }
}

/// Executes the old binary. Async-signal-safe.
#[allow(unsafe_code)]
fn back(signal: i32) {
    // SAFETY: it is null or was leaked, and is never freed.
    if let Some(way) = unsafe { WAY.load(Ordering::Acquire).as_ref() } {
        let of_signal = way.images.iter().find(|(known, _)| *known as i32 == signal);
        let image = if PANICKED.load(Ordering::Acquire) {
            Some(&way.panicked)
        } else {
            of_signal.map(|(_, image)| image)
        };
        // SAFETY: alarm(2) takes no pointer.
        unsafe { libc::alarm(0) };
        image.map(|image| image.execute(way.program));
    } else if signal == libc::SIGALRM {
        // The alarm was due while there was still a way back.
        return;
    }
    // SAFETY: these calls take no memory of ours. There is no way back, so the signal does what it does to a program
    // without a handler.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}

/// Has the main thread go back, and waits to be ended by its exec(2). Async-signal-safe.
#[allow(unsafe_code)]
fn pass_on(signal: i32) {
    // SAFETY: these are plain system calls.
    unsafe {
        let us = libc::getpid();
        libc::syscall(libc::SYS_tgkill, us, us, signal);
        loop {
            libc::pause();
        }
    }
}
