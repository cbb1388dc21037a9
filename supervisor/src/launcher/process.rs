//! The launcher process, from its fork to its end: it becomes the program's user, and then carries out requests until
//! websockify's end of the socket is closed. Has one thread, logs nothing, and keeps nothing open but its socket and
//! the standard streams.

use std::convert::Infallible;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::prctl;
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::unistd::{Pid, pipe2, setpgid};

use super::request::{self, Request};
use crate::machine::daemon::close_inherited;
use crate::machine::open_files::OpenFiles;
use crate::machine::privileges;
use crate::machine::terminal::Terminal;
use crate::machine::user::User;
use crate::processes::Process;
use crate::processes::birth::{Birth, undo_ours};

/// The descriptor of its socket, the first after the standard ones.
const SOCKET: i32 = 3;

/// The signals that the launcher ignores: those that ask a process to end or stop, and SIGPIPE.
const IGNORED: [Signal; 6] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGHUP,
    Signal::SIGTSTP,
    Signal::SIGPIPE,
];

/// What the launcher knows since its fork.
pub(super) struct Origin<'a> {
    pub(super) command: &'a [OsString],
    pub(super) user: &'a User,
    pub(super) open_files: OpenFiles,
    /// Websockify's process id: the programs will be its children.
    pub(super) parent: Pid,
}

/// Carries out requests until the other end of the socket is closed.
pub(super) fn run(socket: OwnedFd, origin: &Origin<'_>) -> ! {
    let begun = begin(socket, origin);
    if let Ok(socket) = &begun {
        request::say(socket, Ok(0));
        serve(socket, origin);
    }
    exit(i32::from(begun.is_err()))
}

fn serve(socket: &OwnedFd, origin: &Origin<'_>) {
    let mut leader = None;
    while let Some((request, output)) = Request::receive(socket) {
        let is_start = matches!(request, Request::Start { .. });
        let done = carry_out(request, output, origin);
        if let (true, Ok(pid)) = (is_start, &done) {
            leader = Some(Process::of_leader(Pid::from_raw(*pid)));
        }
        request::say(socket, done);
    }
    // Websockify has closed its end, so it ends or has ended. The kernel does not send its parent-death signal to the
    // program: it checks whether websockify may signal that process, and websockify has another user.
    if let Some(leader) = leader {
        let _ = leader.signal(Signal::SIGTERM);
    }
}

/// Ends without exit(3): this memory is a copy of websockify's, and what an orderly exit would close or remove belongs
/// to websockify.
#[allow(unsafe_code)]
fn exit(status: i32) -> ! {
    // SAFETY: `_exit` ends this process and does not return.
    unsafe { libc::_exit(status) }
}

fn begin(socket: OwnedFd, origin: &Origin<'_>) -> io::Result<OwnedFd> {
    let socket = keep_alone(socket)?;
    let begun = || {
        // Systemd or a terminal may tell all of websockify's processes to stop. The launcher must go on: it is needed
        // to stop the program.
        IGNORED.iter().try_for_each(|one| ignore(*one))?;
        setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
        privileges::change(origin.user)?;
        // This memory is a copy of websockify's: other processes of this user must not read it (ptrace(2)).
        prctl::set_dumpable(false)?;
        let _ = prctl::set_name(c"launcher");
        io::Result::Ok(())
    };
    match begun() {
        Ok(()) => Ok(socket),
        Err(error) => {
            let again = io::Error::from_raw_os_error(error.raw_os_error().unwrap_or(libc::EINVAL));
            request::say(&socket, Err(error));
            Err(again)
        }
    }
}

#[allow(unsafe_code)]
fn ignore(one: Signal) -> nix::Result<()> {
    // SAFETY: no handler is installed (signal(2)).
    unsafe { signal(one, SigHandler::SigIgn) }.map(drop)
}

/// Closes all descriptors but this socket and the standard streams: otherwise the launcher would hold websockify's
/// locks, ports and pipes as well.
#[allow(unsafe_code)]
fn keep_alone(socket: OwnedFd) -> io::Result<OwnedFd> {
    use std::os::fd::{FromRawFd, IntoRawFd};
    let socket = socket.into_raw_fd();
    // SAFETY: dup3(2) closes what had this number before; nothing in this process uses that any more, or closes it.
    if socket != SOCKET && unsafe { libc::dup3(socket, SOCKET, libc::O_CLOEXEC) } == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: nothing in this process uses or closes the other descriptors any more either. Kernels before 5.9 refuse
    // the call.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, SOCKET + 1, libc::c_uint::MAX, 0) };
    if closed != 0 {
        close_inherited(1);
    }
    // SAFETY: the descriptor is open, and nothing else in this process owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(SOCKET) })
}

fn carry_out(request: Request, output: Option<OwnedFd>, origin: &Origin<'_>) -> io::Result<i32> {
    match request {
        Request::Start { changes, takes_terminal } => {
            let mut child = command(origin, changes, output)?;
            let terminal = takes_terminal.then(|| Terminal::of(origin.parent));
            let ordinary = Birth::ordinary(origin.open_files, Signal::SIGTERM);
            undo_ours(&mut child, Birth { terminal, parent: origin.parent, ..ordinary })?;
            start(&mut child)
        }
        Request::Signal { process, start, signal } => {
            // A process that is not found has ended, as far as we can see.
            let process = Process::find(process, start).ok_or(Errno::ESRCH)?;
            match signal {
                Some(signal) => process.signal(signal)?,
                None => process.kill_group()?,
            }
            Ok(0)
        }
    }
}

fn command(
    origin: &Origin<'_>,
    changes: Vec<(OsString, Option<OsString>)>,
    output: Option<OwnedFd>,
) -> io::Result<Command> {
    let (name, args) =
        origin.command.split_first().expect("config.rs lets no empty command through");
    let mut child = Command::new(name);
    child.args(args).process_group(0);
    for (name, value) in changes {
        match value {
            Some(value) => child.env(name, value),
            None => child.env_remove(name),
        };
    }
    if let Some(output) = output {
        child.stdout(output.try_clone()?).stderr(output);
    }
    Ok(child)
}

/// Forks and executes the program. Returns its process id once exec(2) has succeeded.
fn start(child: &mut Command) -> io::Result<i32> {
    let (report, failure) = pipe2(OFlag::O_CLOEXEC)?;
    let Some(pid) = fork_for_parent()? else {
        drop(report);
        let Err(error) = execute(child);
        let errno = error.raw_os_error().unwrap_or(libc::EINVAL);
        let _ = File::from(failure).write_all(&errno.to_ne_bytes());
        exit(127);
    };
    drop(failure);
    let mut errno = [0; 4];
    match File::from(report).read_exact(&mut errno) {
        Ok(()) => Err(io::Error::from_raw_os_error(i32::from_ne_bytes(errno))),
        Err(_) => Ok(pid),
    }
}

fn execute(child: &mut Command) -> Result<Infallible, io::Error> {
    Err(child.exec())
}

/// Like fork(2), but the child's parent is our parent, websockify. None: in the child.
#[allow(unsafe_code)]
fn fork_for_parent() -> io::Result<Option<i32>> {
    let flags = libc::c_long::from(libc::CLONE_PARENT | libc::SIGCHLD);
    // SAFETY: without CLONE_VM the child has its own memory, and goes on with its own copy of this stack; there is one thread.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0_i64, 0_i64, 0_i64, 0_i64) };
    match i32::try_from(pid) {
        Ok(0) => Ok(None),
        Ok(pid) if pid > 0 => Ok(Some(pid)),
        _ => Err(io::Error::last_os_error()),
    }
}
