//! Starts the program as if the caller of websockify had started it, but for the engine: what we
//! changed about ourselves is undone between fork and exec.
//!
//! Must be called on the main thread: the parent-death signal is sent when the *thread* that forked
//! ends (prctl(2), PR_SET_PDEATHSIG).

use std::ffi::{OsStr, OsString};
use std::fs::DirEntry;
use std::io;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::unistd::{AccessFlags, Pid, access, getpid, getppid};

use super::output::Output;
use super::terminal::Terminal;
use crate::engine::Engine;
use crate::exit::{ExitStatus, Failure};
use crate::host::executable;
use crate::host::open_files::OpenFiles;
use crate::host::privileges;
use crate::host::search_path;
use crate::host::user::{User, Users};
use crate::launcher::Launcher;

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

/// What the program is started with besides its command line.
pub(crate) struct Preparation<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) open_files: OpenFiles,
    pub(crate) output: &'a Output,
    /// The terminal whose foreground group the program becomes.
    pub(crate) terminal: Option<Terminal>,
    pub(crate) users: &'a Users,
    /// What starts it, where we are another user than it is to be.
    pub(crate) launcher: Option<&'a Launcher>,
}

/// How a child of ours begins.
pub(crate) struct Birth {
    pub(crate) open_files: OpenFiles,
    pub(crate) terminal: Option<Terminal>,
    /// The signal that it gets then.
    pub(crate) at_our_death: Signal,
    /// Whom it becomes.
    pub(crate) user: Option<User>,
    /// Us, unless another one starts it for us.
    pub(crate) parent: Pid,
}

impl Birth {
    /// As our user, and without a terminal.
    pub(crate) fn ordinary(open_files: OpenFiles, at_our_death: Signal) -> Self {
        Self { open_files, terminal: None, at_our_death, user: None, parent: getpid() }
    }
}

/// Forks and executes `command`; its name is looked up in `PATH` as execvp(3) does.
pub(crate) fn spawn(command: &[OsString], prepared: &Preparation<'_>) -> Result<Pid, Failure> {
    let (name, args) = command.split_first().expect("config.rs lets no empty command through");
    let mut child = Command::new(name);
    child.args(args).process_group(0);
    prepared.engine.prepare(&mut child);
    child.envs(prepared.users.of_program().into_iter().flat_map(User::environment));
    if let Some(stream) = prepared.output.journal_stream() {
        child.env("JOURNAL_STREAM", stream);
    }
    let started = match prepared.launcher {
        Some(launcher) => {
            launcher.start(&child, prepared.output.file(), prepared.terminal.is_some())
        }
        None => start(child, prepared),
    };
    started.map_err(|error| explain(name, &error))
}

fn start(mut child: Command, prepared: &Preparation<'_>) -> io::Result<Pid> {
    child.stdout(prepared.output.stdio()?).stderr(prepared.output.stdio()?);
    let birth = Birth {
        terminal: prepared.terminal,
        user: prepared.users.program_changes_to().cloned(),
        ..Birth::ordinary(prepared.open_files, Signal::SIGTERM)
    };
    undo_ours(&mut child, birth)?;
    let child = child.spawn()?;
    Ok(Pid::from_raw(i32::try_from(child.id()).expect("a pid fits pid_t")))
}

/// Whether there is such a program, as far as that can be seen without starting it.
pub(crate) fn look(command: &[OsString]) -> Result<(), Failure> {
    let name = command.first().expect("config.rs lets no empty command through");
    let path = std::env::var_os("PATH");
    let found = search_path::find(name, path.as_deref()).ok_or(Errno::ENOENT);
    let runs = found.and_then(|found| access(&found, AccessFlags::X_OK));
    runs.map_err(|errno| explain(name, &errno.into()))
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
        // Our death before the call above sends nothing.
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

/// Marks all others close-on-exec; std's own pipe to us among them, which is meant to be. `open` are
/// those of which that must be said one by one.
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

/// Tried where nothing can be open.
fn can_close_range() -> bool {
    mark_range(libc::c_uint::MAX)
}

/// What we have open beyond the standard streams. Limits say nothing of it: in some containers they
/// allow a thousand million. What our threads open from here on is close-on-exec, as all that is ours.
fn open_descriptors() -> io::Result<Vec<RawFd>> {
    let number = |entry: io::Result<DirEntry>| entry.ok()?.file_name().to_str()?.parse().ok();
    let numbers = std::fs::read_dir("/proc/self/fd")?.filter_map(number);
    Ok(numbers.filter(|number: &RawFd| *number > libc::STDERR_FILENO).collect())
}

/// exec(2) says ENOENT both for a missing program and for a missing interpreter.
fn explain(name: &OsStr, error: &io::Error) -> Failure {
    let path = std::env::var_os("PATH");
    if let Err(missing) = executable::find(name, path.as_deref()) {
        let reason = format!("program {} {missing}", name.display());
        return Failure { status: ExitStatus::NOT_EXECUTABLE, reason };
    }
    let (status, reason) = if is_missing(name, path.as_deref(), error) {
        (ExitStatus::NOT_FOUND, not_found(name, path.as_deref()))
    } else {
        (ExitStatus::NOT_EXECUTABLE, bridge::error_text(error))
    };
    Failure { status, reason: format!("cannot start program {}: {reason}", name.display()) }
}

fn not_found(name: &OsStr, path: Option<&OsStr>) -> String {
    match search_path::elsewhere(name, path) {
        Some(found) => format!("not found in PATH, but there is {}", found.display()),
        None => "not found".to_owned(),
    }
}

/// Whether the program is nowhere. A directory of `PATH` that may not be searched makes execvp(3) say
/// "permission denied" of what is in none; shells say "not found" then, as we do.
fn is_missing(name: &OsStr, path: Option<&OsStr>, error: &io::Error) -> bool {
    let is_in = |directory: PathBuf| directory.join(name).exists();
    match error.kind() {
        io::ErrorKind::NotFound => true,
        io::ErrorKind::PermissionDenied if !name.as_bytes().contains(&b'/') => {
            path.is_some_and(|path| !std::env::split_paths(path).any(is_in))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// W8: a program that is nowhere is 127, also where we may not look everywhere.
    #[test]
    fn w8_what_is_in_no_directory_of_path_is_not_found() {
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        let path = Some(OsStr::new("/nowhere:/bin"));
        assert!(is_missing("no-such-program".as_ref(), path, &denied));
        for (name, path) in [("sh", path), ("/nowhere/program", path), ("sh", None)] {
            assert!(!is_missing(name.as_ref(), path, &denied), "{name}");
        }
        let absent = io::Error::from(io::ErrorKind::NotFound);
        assert!(is_missing("/nowhere/program".as_ref(), path, &absent));
    }
}
