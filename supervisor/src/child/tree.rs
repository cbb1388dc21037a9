//! Who is left: the processes that the program started, however deep, found by their parents in
//! proc(5). As a child subreaper we become the parent of every orphan among them, so the walk from
//! ourselves finds all.
//!
//! Two kinds of process below us are set apart, with all that descends from them: *strangers*, who
//! were our children before we began (`helper & exec websockify`), and *leftovers* of earlier
//! instances. Their process groups are set apart with them: an orphan of theirs shows its group
//! where its parent is forgotten, and an instance begins with a group of its own.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::OwnedFd;

use nix::sys::signal::Signal::SIGKILL;
use nix::sys::signal::killpg;
use nix::unistd::{Pid, geteuid, getpgrp};
use procfs::ProcError;
use procfs::process::{FDTarget, Stat};
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::reap::Reaper;

/// A process that was alive when we looked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: Pid,
    pub(crate) name: String,
    group: Pid,
    /// With the pid it tells a process from a later one that got its number.
    start: u64,
}

/// The processes below us.
#[derive(Debug)]
pub(crate) struct Tree {
    us: i32,
    apart: HashMap<Identity, Kinship>,
    groups_apart: HashMap<i32, Kinship>,
}

type Identity = (i32, u64);

/// What a process is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kinship {
    Instance,
    Leftover,
    Stranger,
    /// Not below us.
    Outsider,
    /// Its parent has ended while we looked.
    Unknown,
}

impl Tree {
    /// Notes the children that we already have: they are strangers.
    ///
    /// # Errors
    ///
    /// /proc does not show who we are, or cannot be read.
    pub(crate) fn new() -> io::Result<Self> {
        let us = nix::unistd::getpid().as_raw();
        if std::fs::read_link("/proc/self")?.to_str() != Some(&us.to_string()) {
            return Err(io::Error::other("it belongs to another PID namespace"));
        }
        let mut tree = Self { us, apart: HashMap::new(), groups_apart: HashMap::new() };
        tree.set_apart(Kinship::Stranger)?;
        Ok(tree)
    }

    /// Notes that an instance begins: whoever is below us now is a leftover.
    pub(crate) fn begin_instance(&mut self) -> io::Result<()> {
        self.set_apart(Kinship::Leftover)
    }

    /// The living processes of the present instance.
    pub(crate) fn instance(&mut self, reaper: &mut Reaper) -> io::Result<Vec<Process>> {
        self.living(reaper, |kinship| kinship == Kinship::Instance)
    }

    /// The living processes of every instance.
    pub(crate) fn everyone(&mut self, reaper: &mut Reaper) -> io::Result<Vec<Process>> {
        self.living(reaper, |kinship| kinship != Kinship::Stranger)
    }

    fn set_apart(&mut self, kinship: Kinship) -> io::Result<()> {
        for (stat, found) in self.below()? {
            if found == Kinship::Instance {
                self.apart.insert((stat.pid, stat.starttime), kinship);
                self.groups_apart.insert(stat.pgrp, kinship);
            }
        }
        Ok(())
    }

    /// One pass may miss a process that is forked while it goes on, by a parent that ends before it
    /// is read itself. That parent, or the one who held on to it, is then a child of ours that has
    /// ended: nobody is believed to be left before a pass during which no child has.
    fn living(
        &mut self,
        reaper: &mut Reaper,
        wanted: impl Fn(Kinship) -> bool,
    ) -> io::Result<Vec<Process>> {
        loop {
            let alive = self.below()?.into_iter().filter(|(stat, _)| is_alive(stat));
            let wanted: Vec<_> = alive
                .filter(|(_, kinship)| wanted(*kinship))
                .map(|(stat, _)| Process {
                    pid: Pid::from_raw(stat.pid),
                    name: stat.comm,
                    group: Pid::from_raw(stat.pgrp),
                    start: stat.starttime,
                })
                .collect();
            if !wanted.is_empty() || !reaper.collect() {
                return Ok(wanted);
            }
        }
    }

    /// Everybody below us, zombies included; who descends from somebody apart is apart too, and
    /// stays so when that parent ends.
    fn below(&mut self) -> io::Result<Vec<(Stat, Kinship)>> {
        let all = everybody()?;
        self.apart.retain(|(pid, start), _| all.get(pid).is_some_and(|s| s.starttime == *start));
        let found: Vec<_> = all
            .values()
            .map(|stat| (stat.clone(), self.kinship(stat, &all)))
            .filter(|(_, kinship)| !matches!(kinship, Kinship::Outsider | Kinship::Unknown))
            .collect();
        for (stat, kinship) in &found {
            if *kinship != Kinship::Instance {
                self.apart.insert((stat.pid, stat.starttime), *kinship);
                self.groups_apart.insert(stat.pgrp, *kinship);
            }
        }
        let groups: HashSet<_> = found.iter().map(|(stat, _)| stat.pgrp).collect();
        self.groups_apart.retain(|group, _| groups.contains(group));
        Ok(found)
    }

    fn kinship(&self, stat: &Stat, all: &HashMap<i32, Stat>) -> Kinship {
        let mut kinship = Kinship::Instance;
        let mut at = stat;
        // Parents are read one after the other, so the chain could in theory close; no real one is
        // longer than there are processes.
        for _ in 0..all.len() {
            if kinship == Kinship::Instance {
                let apart = self.apart.get(&(at.pid, at.starttime));
                kinship = *apart.or(self.groups_apart.get(&at.pgrp)).unwrap_or(&kinship);
            }
            if at.ppid == self.us {
                return kinship;
            }
            match all.get(&at.ppid) {
                Some(parent) => at = parent,
                None if at.ppid == 0 => return Kinship::Outsider,
                None => return Kinship::Unknown,
            }
        }
        Kinship::Unknown
    }

    /// Whether somebody who is certainly none of the instance's has the socket with this inode open.
    pub(crate) fn is_held_outside(&self, inode: u64) -> io::Result<bool> {
        let all = everybody()?;
        let is_outside = |stat: &&Stat| {
            !matches!(self.kinship(stat, &all), Kinship::Instance | Kinship::Unknown)
        };
        Ok(all.values().filter(is_outside).any(|stat| has_open(stat.pid, inode)))
    }
}

impl Process {
    /// Whether it has the socket with this inode open. Where we may not look (it changed user, and we
    /// lack CAP_SYS_PTRACE), the socket's creator must do: that is its user, or the one that it was
    /// started as.
    pub(crate) fn holds(&self, inode: u64, uid: u32) -> bool {
        let pid = self.pid.as_raw();
        has_open(pid, inode) || hides_files(pid) && self.may_have_made(uid)
    }

    fn may_have_made(&self, uid: u32) -> bool {
        let status = procfs::process::Process::new(self.pid.as_raw()).and_then(|now| now.status());
        uid == geteuid().as_raw() || status.is_ok_and(|now| now.euid == uid)
    }

    /// Sends a signal to this very process, not to a later one with its number (pidfd_send_signal(2)).
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        let pidfd = self.pidfd()?;
        Ok(pidfd_send_signal(pidfd, signal)?)
    }

    /// Ends it, and whoever it has forked into its process group since we looked: of those that
    /// fork for ever, the one that we saw is gone before we get to it.
    pub(crate) fn kill(&self) {
        // It may have ended, or not be ours to kill; the next look tells.
        let _ = self.signal(Signal::KILL);
        if self.group != getpgrp() {
            let _ = killpg(self.group, SIGKILL);
        }
    }

    /// Becomes readable when the process ends; `None` if it has. Needs a runtime.
    #[allow(unsafe_code)]
    pub(crate) fn watch(&self) -> io::Result<Option<AsyncFd<OwnedFd>>> {
        let pidfd = match self.pidfd() {
            Ok(pidfd) => pidfd,
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(None),
            Err(error) => return Err(error),
        };
        // SAFETY: an OwnedFd is open, and the same, for as long as it is owned.
        Ok(Some(unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) }?))
    }

    /// pidfd_open(2), and a look that it is still the same process.
    fn pidfd(&self) -> io::Result<OwnedFd> {
        let pid =
            rustix::process::Pid::from_raw(self.pid.as_raw()).ok_or(rustix::io::Errno::SRCH)?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        let now = procfs::process::Process::new(self.pid.as_raw()).and_then(|now| now.stat());
        match now {
            Ok(stat) if stat.starttime == self.start => Ok(pidfd),
            _ => Err(rustix::io::Errno::SRCH.into()),
        }
    }
}

impl std::fmt::Display for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.pid, self.name)
    }
}

/// Every process there is, by its id. One that ends meanwhile is left out; where we cannot look for
/// want of descriptors or memory, nobody may be believed to be gone.
fn everybody() -> io::Result<HashMap<i32, Stat>> {
    let mut all = HashMap::new();
    for process in procfs::process::all_processes().map_err(cause)? {
        match process.and_then(|process| process.stat()) {
            Ok(stat) => drop(all.insert(stat.pid, stat)),
            Err(error) => match cause(error) {
                error if is_shortage(&error) => return Err(error),
                _ => {}
            },
        }
    }
    Ok(all)
}

fn cause(error: ProcError) -> io::Error {
    match error {
        ProcError::Io(error, _) => error,
        ProcError::NotFound(_) => io::ErrorKind::NotFound.into(),
        ProcError::PermissionDenied(_) => io::ErrorKind::PermissionDenied.into(),
        error => io::Error::other(error),
    }
}

fn is_shortage(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM))
}

/// Whether a process is seen to have the socket with this inode open.
fn has_open(pid: i32, inode: u64) -> bool {
    let fds = procfs::process::Process::new(pid).and_then(|process| process.fd());
    fds.is_ok_and(|mut fds| {
        fds.any(|fd| {
            fd.is_ok_and(|fd| matches!(fd.target, FDTarget::Socket(found) if found == inode))
        })
    })
}

/// Whether we may not see what a process has open. With CAP_DAC_READ_SEARCH the directory can be
/// listed, and its links still not be read.
fn hides_files(pid: i32) -> bool {
    let Ok(mut files) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return true };
    files.next().is_some_and(|file| {
        let link = file.and_then(|file| std::fs::read_link(file.path()));
        link.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
    })
}

/// A process whose first thread has ended shows as a zombie while its other threads run.
fn is_alive(stat: &Stat) -> bool {
    !matches!(stat.state, 'Z' | 'X' | 'x') || stat.num_threads > 1
}
