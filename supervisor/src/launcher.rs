//! The launcher: a process that starts the program, and sends signals to it, where the program has another user than
//! websockify (`--user` with `--program-user`). It is forked while websockify is root, and then becomes the program's
//! user for good (W16). Knows how requests reach the launcher; must not know what the program is.
//!
//! - `process` is the code that runs in the launcher,
//! - `request` is its requests and answers, as bytes,
//! - `saved` is how the launcher is handed over to a new binary (O2).
//!
//! The launcher gets one request at a time, and websockify waits for the answer: no request lasts long.

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
use nix::unistd::{ForkResult, Pid, Uid, fork, getpid};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, Shutdown, SocketFlags, SocketType, recv, shutdown, socketpair,
};

use crate::engine::RelocatedPort;
use crate::machine::open_files::OpenFiles;
use crate::machine::user::User;
use crate::processes::{Process, wait};
use process::Origin;
use request::Request;
pub(crate) use saved::{LauncherState, check};

/// How long the launcher may take to answer a request to start: the program may be on a slow file system. The thread that
/// waits is the one that tells systemd's watchdog that we are alive, so this is less than half of what the watchdog waits.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// The same for a request to send a signal, which waits for nothing. The program has the launcher's user, and may have
/// stopped the launcher (SIGSTOP).
const SIGNAL_TIMEOUT: Duration = Duration::from_secs(1);

/// How long the launcher's end is waited for, and how often we look whether it has ended.
const EXIT_TIMEOUT: Duration = Duration::from_secs(1);
const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// What websockify takes as root for a program whose user it will not have itself.
#[derive(Debug)]
pub(crate) struct Apart {
    pub(crate) launcher: Launcher,
    /// The port on loopback for the program, whose user may bind it. None where an engine has it already.
    pub(crate) relocated: Option<RelocatedPort>,
}

/// The launcher process, and our end of its socket pair. The process ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Launcher {
    /// None: it has ended, and its process id may belong to another process now.
    process: Option<Pid>,
    /// The user that it has become.
    user: Uid,
    socket: OwnedFd,
}

impl Apart {
    /// Holds the port and forks the launcher. To be called as root, and while there is one thread.
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
        set_socket_timeout(&socket, Timeout::Recv, Some(START_TIMEOUT))?;
        let origin = Origin { command, user, open_files, parent: getpid() };
        // SAFETY: this process has one thread, so the child may do whatever the parent may (fork(2)).
        let process = match unsafe { fork() }? {
            ForkResult::Child => process::run(theirs, &origin),
            ForkResult::Parent { child } => child,
        };
        let launcher = Self { process: Some(process), user: user.uid, socket };
        // The launcher answers once it has become the user.
        drop(theirs);
        request::answer(&launcher.socket)?;
        Ok(launcher)
    }

    /// Starts the program, with the changes to the environment that `command` has. The program's output goes to
    /// `output`, or where ours goes. With `takes_terminal` it becomes the foreground process group of the terminal.
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

    /// Sends a signal to a process of the program. That the process has ended is no error.
    pub(crate) fn signal(&self, process: &Process, signal: Signal) -> io::Result<()> {
        self.send(process, Some(signal))
    }

    /// Sends SIGKILL to a process, and to its process group where [`Process::kill`] does that.
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

    /// Whether the launcher has ended, or was given up as it did not answer in time. It starts nothing any more then, and no
    /// other launcher can be forked, as that takes root.
    pub(crate) fn is_lost(&self) -> bool {
        let answer = recv(&self.socket, &mut [0; 4], RecvFlags::PEEK | RecvFlags::DONTWAIT);
        !matches!(answer, Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR))
    }

    /// The launcher's process id; none if it had ended when the old binary handed it over.
    pub(crate) fn process(&self) -> Option<Pid> {
        self.process
    }

    fn ask(&self, request: &Request, output: Option<&File>) -> io::Result<i32> {
        let timeout = match request {
            Request::Start { .. } => START_TIMEOUT,
            Request::Signal { .. } => SIGNAL_TIMEOUT,
        };
        set_socket_timeout(&self.socket, Timeout::Recv, Some(timeout))?;
        request.send(&self.socket, output.map(AsFd::as_fd))?;
        let answer = request::answer(&self.socket);
        if answer.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            // A late answer would be taken for the answer to the next request.
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
        let until = Instant::now() + EXIT_TIMEOUT;
        // The reaper may have waited for the launcher before us.
        while let Ok(None) | Err(Errno::EINTR) = wait(process)
            && Instant::now() < until
        {
            sleep(POLL_INTERVAL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program can stop its launcher (SIGSTOP) and end: the start that follows must not take longer than the watchdog
    /// of the units waits.
    #[test]
    fn w16_a_stopped_launcher_does_not_make_the_watchdog_end_us() {
        let units = concat!(env!("CARGO_MANIFEST_DIR"), "/../contrib/systemd");
        let units = std::fs::read_dir(units).expect("the units").flatten();
        let texts = units.filter_map(|unit| std::fs::read_to_string(unit.path()).ok());
        let seconds = |text: String| {
            let value = text.lines().find_map(|line| line.strip_prefix("WatchdogSec="))?;
            Some(Duration::from_secs(value.parse().expect("seconds")))
        };
        let watchdogs: Vec<_> = texts.filter_map(seconds).collect();
        assert!(watchdogs.len() >= 3, "{watchdogs:?}");
        for watchdog in watchdogs {
            assert!(START_TIMEOUT < watchdog / 2, "{watchdog:?}");
        }
    }
}
