//! How a child of ours begins, program or helper: as if the caller of websockify had started it. What we changed about ourselves
//! is undone between fork and exec.
//!
//! Must be called on the main thread: the parent-death signal is sent when the *thread* that forked
//! ends (prctl(2), PR_SET_PDEATHSIG).

use std::fs::DirEntry;
use std::io;
use std::os::fd::RawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::unistd::{Pid, getpid, getppid};

use crate::machine::open_files::OpenFiles;
use crate::machine::privileges;
use crate::machine::terminal::Terminal;
use crate::machine::user::User;

/// Variables by which systemd speaks to websockify and not to the program (sd_notify(3),
/// sd_listen_fds(3), sd_watchdog_enabled(3)).
pub(crate) const SYSTEMD: &[&str] = &[
    "NOTIFY_SOCKET",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_PIDFDID",
    "LISTEN_FDNAMES",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
];

/// How a child of ours begins.
pub(crate) struct Birth {
    pub(crate) open_files: OpenFiles,
    pub(crate) terminal: Option<Terminal>,
    /// The signal that it gets when we die.
    pub(crate) at_our_death: Signal,
    /// The user that it becomes.
    pub(crate) user: Option<User>,
    /// The process whose child it is: us, also where the launcher starts it.
    pub(crate) parent: Pid,
}

impl Birth {
    /// As our user, and without a terminal.
    pub(crate) fn ordinary(open_files: OpenFiles, at_our_death: Signal) -> Self {
        Self { open_files, terminal: None, at_our_death, user: None, parent: getpid() }
    }
}

/// Has a child begin without what we changed about ourselves: signals, limits, descriptors, what systemd has
/// told us.
#[allow(unsafe_code)]
pub(crate) fn undo_ours(child: &mut Command, birth: Birth) -> io::Result<()> {
    let Birth { open_files, terminal, at_our_death, user, parent } = birth;
    for name in SYSTEMD {
        child.env_remove(name);
    }
    let open = if can_close_range() { vec![] } else { open_descriptors()? };
    let prepare = move || {
        if let Some(terminal) = terminal {
            terminal.give_to(getpid());
        }
        default_signals();
        open_files.restore()?;
        leave_only_standard_descriptors(&open);
        // Before the next call, which a change of user would undo.
        user.as_ref().map_or(Ok(()), privileges::change)?;
        nix::sys::prctl::set_pdeathsig(at_our_death)?;
        // If we died before the call above, no signal comes.
        if getppid() != parent {
            return Err(Errno::ESRCH.into());
        }
        Ok(())
    };
    // SAFETY: between fork and exec only async-signal-safe functions may be called (fork(2),
    // signal-safety(7)): `prepare` makes plain system calls and allocates nothing.
    unsafe { child.pre_exec(prepare) };
    Ok(())
}

/// exec(2) keeps ignored signals ignored, and the mask.
#[allow(unsafe_code)]
fn default_signals() {
    // nix knows no real-time signals; SIGKILL, SIGSTOP and the C library's own refuse.
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: no handler is installed, only the default restored (signal(2)).
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
}

/// Marks all descriptors but the standard streams close-on-exec, also std's own pipe to us, which is meant to be.
/// `open` are those that must be marked one by one.
#[allow(unsafe_code)]
fn leave_only_standard_descriptors(open: &[RawFd]) {
    if mark_range(3) {
        return;
    }
    for descriptor in open {
        // SAFETY: it sets a flag, or fails where nothing is open.
        unsafe { libc::fcntl(*descriptor, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}

/// Marks all descriptors from this one on close-on-exec. Kernels before 5.11 cannot, and some
/// containers refuse it.
#[allow(unsafe_code)]
fn mark_range(first: libc::c_uint) -> bool {
    // SAFETY: close_range(2) with CLOSE_RANGE_CLOEXEC only sets a flag on descriptors.
    let done = unsafe {
        libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC)
    };
    done == 0
}

/// Whether a range can be marked, tried on a number that no descriptor can have.
fn can_close_range() -> bool {
    mark_range(libc::c_uint::MAX)
}

/// The descriptors that we have open beyond the standard streams. The limit on open files does not say: in some
/// containers it is a thousand million. Descriptors that our threads open from here on are close-on-exec already, as
/// all of ours are.
fn open_descriptors() -> io::Result<Vec<RawFd>> {
    let number = |entry: io::Result<DirEntry>| entry.ok()?.file_name().to_str()?.parse().ok();
    let numbers = std::fs::read_dir("/proc/self/fd")?.filter_map(number);
    Ok(numbers.filter(|number: &RawFd| *number > libc::STDERR_FILENO).collect())
}
