//! What starts the program where it is another user than we, and signals it: a process that we fork while we are root,
//! and that becomes that user then (W16). Knows how it is asked; must not know what the program is.
//!
//! - `process` is what it does,
//! - `request` is what it is asked, in bytes,
//! - `saved` is how another image of us goes on with it (O2).
//!
//! It is asked one thing at a time, and we wait for the answer: it does nothing that lasts.

mod process;
mod request;
mod saved;

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, Uid, fork, getpid};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, shutdown, socketpair};

use crate::engine::RelocatedPort;
use crate::machine::open_files::OpenFiles;
use crate::machine::user::User;
use crate::processes::Process;
use process::Origin;
use request::Request;
pub(crate) use saved::{LauncherState, check};

/// How long its answer may take: a program may lie on a slow file system.
const PATIENCE: Duration = Duration::from_secs(30);

/// The same of a signal, which waits for nothing: the program, being the same user, may have stopped it.
const PATIENCE_FOR_SIGNALS: Duration = Duration::from_secs(1);

/// How long its end may take, and how often is looked.
const ENDING: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(1);

/// What is had as root for a program whose user we do not become.
#[derive(Debug)]
pub(crate) struct Apart {
    pub(crate) launcher: Launcher,
    /// The program's user may bind it. None where an engine has it already.
    pub(crate) relocated: Option<RelocatedPort>,
}

/// The process, and our end of the socket pair. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Launcher {
    /// None: it has ended, and whoever has its number now is another one.
    process: Option<Pid>,
    /// Whom it has become.
    user: Uid,
    socket: OwnedFd,
}

impl Apart {
    /// As root, and while there is one thread.
    pub(crate) fn begin(command: &[OsString], user: &User, open_files: OpenFiles) -> Result<Self> {
        let relocated = RelocatedPort::hold_for(user.uid)?;
        let launcher = Launcher::begin(command, user, open_files)
            .context("cannot begin the process that starts the program")?;
        Ok(Self { launcher, relocated: Some(relocated) })
    }
}

impl Launcher {
    #[allow(unsafe_code)]
    fn begin(command: &[OsString], user: &User, open_files: OpenFiles) -> io::Result<Self> {
        let (socket, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        let origin = Origin { command, user, open_files, parent: getpid() };
        // SAFETY: there is one thread, so the child may do whatever we may (fork(2)).
        let process = match unsafe { fork() }? {
            ForkResult::Child => process::run(theirs, &origin),
            ForkResult::Parent { child } => child,
        };
        let launcher = Self { process: Some(process), user: user.uid, socket };
        // It says so when it has become the user.
        drop(theirs);
        request::answer(&launcher.socket)?;
        Ok(launcher)
    }

    /// Starts the program with what this command changes in the environment. Its output goes to the file, or where ours
    /// does; it takes the terminal if it is to.
    pub(crate) fn start(
        &self,
        command: &Command,
        output: Option<&File>,
        takes_terminal: bool,
    ) -> io::Result<Pid> {
        let changes = command.get_envs();
        let changes = changes.map(|(name, value)| (name.to_owned(), value.map(OsString::from)));
        let start = Request::Start { changes: changes.collect(), takes_terminal };
        self.ask(&start, output).map(Pid::from_raw)
    }

    /// That it has ended is no error.
    pub(crate) fn signal(&self, process: &Process, signal: Signal) -> io::Result<()> {
        self.send(process, Some(signal))
    }

    /// With its process group, as [`Process::kill`].
    pub(crate) fn kill(&self, process: &Process) -> io::Result<()> {
        self.send(process, (!process.has_group_alone()).then_some(Signal::SIGKILL))
    }

    fn send(&self, process: &Process, signal: Option<Signal>) -> io::Result<()> {
        match self.ask(&Request::signal(process, signal), None) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) && !process.is_there() => {
                Ok(())
            }
            sent => sent.map(drop),
        }
    }

    /// Its number, unless it had ended when another image of us left it to us.
    pub(crate) fn process(&self) -> Option<Pid> {
        self.process
    }

    fn ask(&self, request: &Request, output: Option<&File>) -> io::Result<i32> {
        let patience = match request {
            Request::Start { .. } => PATIENCE,
            Request::Signal { .. } => PATIENCE_FOR_SIGNALS,
        };
        set_socket_timeout(&self.socket, Timeout::Recv, Some(patience))?;
        request.send(&self.socket, output.map(AsFd::as_fd))?;
        let answer = request::answer(&self.socket);
        if answer.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            // What it says later would be taken for the answer to the next.
            let _ = shutdown(&self.socket, Shutdown::Both);
            return Err(io::ErrorKind::TimedOut.into());
        }
        answer
    }
}

impl Drop for Launcher {
    #[expect(clippy::disallowed_methods, reason = "it is no child that others wait for")]
    fn drop(&mut self) {
        let _ = shutdown(&self.socket, Shutdown::Both);
        let Some(process) = self.process else { return };
        let until = Instant::now() + ENDING;
        // A reaper may have been first.
        while let Ok(WaitStatus::StillAlive) | Err(Errno::EINTR) =
            waitpid(process, Some(WaitPidFlag::WNOHANG))
            && Instant::now() < until
        {
            sleep(LOOK);
        }
    }
}
