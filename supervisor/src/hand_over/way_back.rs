//! The way back to the program before, open until we have settled in its place: whatever happens to us until then, an
//! error, a panic, a signal that is our death, or nothing for too long, that program is executed again with the same
//! state. Knows descriptors, signals and words; must not know what the state is.
//!
//! Only the main thread may execute it: the children that it has forked would die with it otherwise (prctl(2),
//! PR_SET_PDEATHSIG). A signal that another thread gets is passed on to it.

use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::alarm;

use super::image::{BACK, Image, VARIABLE, environment};
use super::threads::is_main;
use crate::exit::Failure;

/// How long we may take to settle, seconds.
const PATIENCE: u32 = 5;

/// What a program does that is broken, and what one is sent that hangs.
const DEADLY: [Signal; 6] = [
    Signal::SIGSEGV,
    Signal::SIGBUS,
    Signal::SIGILL,
    Signal::SIGFPE,
    Signal::SIGABRT,
    Signal::SIGALRM,
];

/// The program before, and what it is told.
struct WayBack {
    program: RawFd,
    memory: RawFd,
    /// For each signal.
    images: Vec<(Signal, Image)>,
    panicked: Image,
    /// What the signals did before.
    before: Vec<(Signal, SigAction)>,
}

/// Where a signal's handler finds it.
static WAY: AtomicPtr<WayBack> = AtomicPtr::new(std::ptr::null_mut());
/// Whether another thread has panicked.
static PANICKED: AtomicBool = AtomicBool::new(false);

/// Opens it. Before there is a second thread.
#[allow(unsafe_code)]
pub(super) fn open(memory: RawFd, program: RawFd) -> io::Result<()> {
    let image = |why: &str| image(memory, program, why);
    let images = DEADLY.into_iter().map(|signal| Ok((signal, image(&cause(signal))?)));
    let images = images.collect::<io::Result<_>>()?;
    let way = WayBack { program, memory, images, panicked: image("it panicked")?, before: vec![] };
    let way = Box::leak(Box::new(way));
    WAY.store(way, Ordering::Release);
    let flags = SaFlags::SA_ONSTACK | SaFlags::SA_NODEFER;
    let action = SigAction::new(SigHandler::Handler(caught), flags, SigSet::empty());
    for signal in DEADLY {
        // SAFETY: the handler makes plain system calls, and reads what is not changed any more but for this list.
        let before = unsafe { sigaction(signal, &action) }?;
        way.before.push((signal, before));
    }
    let mut alarm_alone = SigSet::empty();
    alarm_alone.add(Signal::SIGALRM);
    alarm_alone.thread_unblock()?;
    std::panic::set_hook(Box::new(|_| panicked()));
    alarm::set(PATIENCE);
    Ok(())
}

/// Closes it: we have settled.
#[allow(unsafe_code)]
pub(super) fn close() {
    alarm::cancel();
    let way = WAY.swap(std::ptr::null_mut(), Ordering::AcqRel);
    // SAFETY: it is null or was leaked above; nobody changes it any more, and it is never freed.
    let Some(way) = (unsafe { way.as_ref() }) else { return };
    drop(std::panic::take_hook());
    for (signal, action) in &way.before {
        // SAFETY: it is what the signal did before, which was safe.
        let _ = unsafe { sigaction(*signal, action) };
    }
}

/// Goes back for this failure, if there is a way. What has failed was not dropped yet: what it holds is still open.
pub(crate) fn or_back<T>(result: Result<T, Failure>) -> Result<T, Failure> {
    result.inspect_err(|failure| go(&failure.reason))
}

/// Goes back, if there is a way.
#[allow(unsafe_code)]
pub(super) fn go(why: &str) {
    // SAFETY: it is null or was leaked above, and is never freed.
    let Some(way) = (unsafe { WAY.load(Ordering::Acquire).as_ref() }) else { return };
    // One that cannot be executed is as if there were no way.
    let why = why.replace('\0', " ");
    if let Ok(image) = image(way.memory, way.program, &why)
        && is_main()
    {
        alarm::cancel();
        image.execute(way.program);
    }
}

fn image(memory: RawFd, program: RawFd, why: &str) -> io::Result<Image> {
    let told = [(VARIABLE, format!("{memory},{program}")), (BACK, why.to_owned())];
    Image::new(std::env::args_os(), environment(&[VARIABLE, BACK], told))
}

fn cause(signal: Signal) -> String {
    match signal {
        Signal::SIGALRM => format!("it did not settle within {PATIENCE} s"),
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

/// Executes the program before. Async-signal-safe.
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
        // SAFETY: alarm(2) has no memory.
        unsafe { libc::alarm(0) };
        image.map(|image| image.execute(way.program));
    } else if signal == libc::SIGALRM {
        // It was on its way when there was one.
        return;
    }
    // SAFETY: there is no way back: the signal does what it does to a program that does not expect it.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}

/// Has the main thread go back, and waits to be ended by that. Async-signal-safe.
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
