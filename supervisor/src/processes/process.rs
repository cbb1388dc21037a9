//! One process of the program: what it has open, and how it is signalled, whatever the kernel or a container refuses
//! us. Must not know which instance it belongs to.

use std::collections::HashSet;
use std::io;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, geteuid, getpgid, getpgrp, getsid};
use procfs::process::FDTarget;
use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use super::number;
use super::table::{Seen, is_alive, stat};
use crate::machine::proc_text;

/// A process that was alive when we looked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    #[serde(with = "number")]
    pub(crate) pid: Pid,
    pub(crate) name: String,
    #[serde(with = "number::group")]
    group: Pid,
    #[serde(with = "number::group")]
    session: Pid,
    /// As in [`Seen::start`].
    #[serde(default)]
    start: Option<u64>,
    /// Whether all processes in its group were seen to be the program's.
    #[serde(skip)]
    has_group_alone: bool,
}

impl From<Seen> for Process {
    fn from(seen: Seen) -> Self {
        Self {
            pid: Pid::from_raw(seen.pid),
            name: seen.name,
            group: Pid::from_raw(seen.group),
            session: Pid::from_raw(seen.session),
            start: seen.start,
            has_group_alone: false,
        }
    }
}

impl Process {
    /// A child of ours that leads its process group, and has not been waited for.
    pub(crate) fn of_leader(child: Pid) -> Self {
        let hidden = || Self::hidden(child, child);
        stat(child.as_raw()).map_or_else(|_| hidden(), |stat| Seen::from(stat).into())
    }

    /// The process with this id that began at `start`, if it is still there. Whichever process has the id now, if /proc
    /// does not show us when it began, or `start` is none, as /proc has hidden that from whoever asks.
    pub(crate) fn find(pid: Pid, start: Option<u64>) -> Option<Self> {
        let Ok(shown) = stat(pid.as_raw()) else {
            return Some(Self::hidden(pid, getpgid(Some(pid)).ok()?));
        };
        let seen = Seen::from(shown);
        (start.is_none() || seen.start == start).then(|| seen.into())
    }

    fn hidden(pid: Pid, group: Pid) -> Self {
        let session = getsid(Some(pid)).unwrap_or(group);
        let name = "hidden".to_owned();
        Self { pid, name, group, session, start: None, has_group_alone: false }
    }

    /// Notes whether its process group is one of `others`, in which there are processes that are not the program's.
    pub(super) fn among(self, others: &HashSet<i32>) -> Self {
        Self { has_group_alone: !others.contains(&self.group.as_raw()), ..self }
    }

    /// Whether its process group may be ended with it.
    pub(crate) fn has_group_alone(&self) -> bool {
        self.has_group_alone
    }

    /// When it began, in the kernel's ticks; `None` if /proc does not show it.
    pub(crate) fn start(&self) -> Option<u64> {
        self.start
    }

    /// Whether /proc does not show it.
    pub(crate) fn is_hidden(&self) -> bool {
        self.start.is_none()
    }

    /// Whether it is seen to have the socket with this inode open.
    pub(crate) fn holds(&self, inode: u64) -> bool {
        has_open(self.pid.as_raw(), inode)
    }

    /// Whether it may have a socket of this user's open, where we may not look (it changed user, and we lack
    /// CAP_SYS_PTRACE; or /proc hides it). The user must be its own, or the one that it was started as. A process that
    /// has ended shows no file either, and holds none.
    pub(crate) fn may_hold(&self, uid: u32) -> bool {
        hides_files(self.pid.as_raw()) && self.may_have_made(uid) && self.is_there()
    }

    fn may_have_made(&self, uid: u32) -> bool {
        uid == geteuid().as_raw() || self.effective_user().is_some_and(|user| user == uid)
    }

    /// `None`: it has ended, or /proc hides it.
    fn effective_user(&self) -> Option<u32> {
        let users = proc_text::status(self.pid, "Uid").ok()?;
        users.split_whitespace().nth(1)?.parse().ok()
    }

    /// Sends a signal to this very process, not to a later one with its id (pidfd_send_signal(2)). Where that is
    /// refused, by a kernel before 5.3 or a container, kill(2) does it, and its error is returned; then another process
    /// may get the id in the moment after our last look. That the process has ended is no error.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        let by_pidfd = self.pidfd().and_then(|pidfd| {
            let signal = rustix::process::Signal::from_named_raw(signal as i32)
                .ok_or(rustix::io::Errno::INVAL)?;
            Ok(pidfd_send_signal(pidfd, signal)?)
        });
        match by_pidfd {
            Err(error) if has_ended(&error) || !self.is_there() => Ok(()),
            Err(_) => match kill(self.pid, signal) {
                Ok(()) | Err(Errno::ESRCH) => Ok(()),
                Err(error) => Err(error.into()),
            },
            Ok(()) => Ok(()),
        }
    }

    /// Kills it, and whatever it has forked into its process group since we looked: of processes that fork for ever,
    /// the one that we saw is gone before we get to it. The group is left alone if others than the program's are in it:
    /// a process may have put itself into such a group (setpgid(2)).
    pub(crate) fn kill(&self) -> io::Result<()> {
        if self.has_group_alone { self.kill_group() } else { self.signal(Signal::SIGKILL) }
    }

    /// The same where it is known that the group is the program's.
    pub(crate) fn kill_group(&self) -> io::Result<()> {
        let killed = self.signal(Signal::SIGKILL);
        // For killpg(3), 0 is the caller's own group; in /proc, 0 is a group outside our PID namespace.
        if self.group == getpgrp() || self.group.as_raw() == 0 {
            return killed;
        }
        match killpg(self.group, Signal::SIGKILL) {
            // No process is left in the group, or none that we may kill: that is reported for each process by itself.
            Ok(()) | Err(Errno::ESRCH | Errno::EPERM) => killed,
            Err(error) => killed.and(Err(error.into())),
        }
    }

    /// pidfd_open(2), and a look that it is still the same process.
    pub(crate) fn pidfd(&self) -> io::Result<OwnedFd> {
        let pid =
            rustix::process::Pid::from_raw(self.pid.as_raw()).ok_or(rustix::io::Errno::SRCH)?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        if self.is_there() { Ok(pidfd) } else { Err(rustix::io::Errno::SRCH.into()) }
    }

    /// Whether it has not ended. A process that /proc hides, perhaps only since we saw it, is recognized by its process
    /// group, which can be asked for without any right.
    pub(crate) fn is_there(&self) -> bool {
        match stat(self.pid.as_raw()) {
            Ok(stat) if self.start.is_some() => {
                self.start == Some(stat.starttime) && is_alive(&stat)
            }
            _ => getpgid(Some(self.pid)) == Ok(self.group),
        }
    }
}

impl std::fmt::Display for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.pid, self.name)
    }
}

/// For the log.
pub(crate) fn list(processes: &[Process]) -> String {
    processes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// For the log, with the session and the process group of each: a daemon has its own, a job its shell's (W15).
pub(crate) fn list_with_sessions(processes: &[Process]) -> String {
    let placed = |process: &Process| {
        // It may have changed them since it was seen.
        let session = getsid(Some(process.pid)).unwrap_or(process.session);
        let group = getpgid(Some(process.pid)).unwrap_or(process.group);
        let apart = if group == session { String::new() } else { format!(", group {group}") };
        format!("{process} in session {session}{apart}")
    };
    processes.iter().map(placed).collect::<Vec<_>>().join("; ")
}

/// Whether an error says that there is no such process (any more).
pub(super) fn has_ended(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ESRCH)
}

/// Whether a process is seen to have the socket with this inode open. Its first thread shows what all threads have
/// open, until that thread ends.
pub(super) fn has_open(pid: i32, inode: u64) -> bool {
    match holds(pid, inode) {
        Some(holds) => holds,
        None => threads(pid).any(|thread| holds(thread, inode).unwrap_or_default()),
    }
}

/// `None`: the thread shows no file at all.
fn holds(thread: i32, inode: u64) -> Option<bool> {
    let fds = procfs::process::Process::new(thread).and_then(|process| process.fd()).ok()?;
    let mut fds = fds.flatten().peekable();
    fds.peek()?;
    Some(fds.any(|fd| matches!(fd.target, FDTarget::Socket(found) if found == inode)))
}

fn threads(pid: i32) -> impl Iterator<Item = i32> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    threads.filter_map(|thread| thread.file_name().to_str()?.parse().ok())
}

/// Whether we cannot see what a process has open, if it has not ended. With CAP_DAC_READ_SEARCH the directory can be
/// listed, and its links still not be read.
fn hides_files(pid: i32) -> bool {
    let Ok(mut files) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return true };
    files.next().is_some_and(|file| {
        let link = file.and_then(|file| std::fs::read_link(file.path()));
        link.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
    })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// W2: of a process that has ended /proc shows as little as of one that it hides.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "tests have no reaper")]
    fn w2_a_process_that_has_ended_holds_nothing() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let process = Process::of_leader(Pid::from_raw(child.id().cast_signed()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!process.may_hold(geteuid().as_raw()));
    }
}
