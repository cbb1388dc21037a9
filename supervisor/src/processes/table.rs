//! The process table: the processes that proc(5) shows, and those below us that it hides.
//!
//! If it is mounted with `hidepid=` (systemd: `ProtectProc=`), it hides every process that we could not trace: one that
//! has changed user, or has made itself undumpable. The lists of children of their parents, which can be read without
//! any right, still have their ids. Knows nothing of instances.

use std::collections::HashMap;
use std::io;

use nix::unistd::{Pid, getpgid, getsid};
use procfs::ProcError;
use procfs::process::Stat;

use super::children;

/// A process as it was seen when we looked.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) pid: i32,
    pub(super) ppid: i32,
    pub(super) group: i32,
    pub(super) session: i32,
    pub(super) name: String,
    /// When it began, in the kernel's ticks: it tells the process from a later one with the same id. `None` if it is
    /// hidden.
    pub(super) start: Option<u64>,
    pub(super) alive: bool,
}

/// How the table is read.
#[derive(Debug)]
pub(super) struct ProcessTable {
    us: i32,
    /// Whether /proc may hide others than our own children.
    hides: bool,
}

impl ProcessTable {
    pub(super) fn new(us: i32) -> Self {
        Self { us, hides: is_mounted_hiding() }
    }

    /// Every process there is, by its id. One that ends meanwhile is left out. It is an error if we cannot look for
    /// want of descriptors or memory: then no process may be believed to be gone.
    pub(super) fn read(&self) -> io::Result<HashMap<i32, Seen>> {
        let mut all = HashMap::new();
        for process in procfs::process::all_processes().map_err(cause)? {
            match process.and_then(|process| process.stat()) {
                Ok(stat) => drop(all.insert(stat.pid, Seen::from(stat))),
                Err(error) => match cause(error) {
                    error if is_shortage(&error) => return Err(error),
                    _ => {}
                },
            }
        }
        self.add_hidden(&mut all)?;
        Ok(all)
    }

    /// Adds the processes below us that /proc has not shown: hidden, or forked since.
    fn add_hidden(&self, all: &mut HashMap<i32, Seen>) -> io::Result<()> {
        let mut parents = vec![self.us];
        while let Some(parent) = parents.pop() {
            for pid in children(parent)? {
                if let Some(child) = all.get(&pid).cloned().or_else(|| self.find(pid, parent)) {
                    all.insert(pid, child);
                    if self.hides {
                        parents.push(pid);
                    }
                }
            }
        }
        Ok(())
    }

    fn find(&self, pid: i32, parent: i32) -> Option<Seen> {
        if let Ok(stat) = stat(pid) {
            return Some(Seen::from(stat));
        }
        // These calls take no right. If they fail, the process has ended.
        let group = getpgid(Some(Pid::from_raw(pid))).ok()?;
        let session = getsid(Some(Pid::from_raw(pid))).ok()?;
        Some(Seen {
            pid,
            ppid: parent,
            group: group.as_raw(),
            session: session.as_raw(),
            name: "hidden".to_owned(),
            start: None,
            // Only its parent can ask whether it has ended.
            alive: parent != self.us || !children::has_ended(Pid::from_raw(pid)),
        })
    }

    /// To be called where no process is seen below us. Fails if there is a child of ours all the same: /proc hides it,
    /// and this kernel has no lists of children.
    pub(super) fn check_for_nameless(&self) -> io::Result<()> {
        let lists = format!("/proc/self/task/{}/children", self.us);
        if std::fs::exists(lists).unwrap_or(true) || !children::has_children() {
            return Ok(());
        }
        Err(io::Error::other("it hides our own children"))
    }
}

impl From<Stat> for Seen {
    fn from(stat: Stat) -> Self {
        Self {
            pid: stat.pid,
            ppid: stat.ppid,
            group: stat.pgrp,
            session: stat.session,
            start: Some(stat.starttime),
            alive: is_alive(&stat),
            name: stat.comm,
        }
    }
}

/// What proc(5) says of this process now.
pub(super) fn stat(pid: i32) -> io::Result<Stat> {
    procfs::process::Process::new(pid).and_then(|process| process.stat()).map_err(cause)
}

/// A process whose first thread has ended shows as a zombie while its other threads run.
pub(crate) fn is_alive(stat: &Stat) -> bool {
    !matches!(stat.state, 'Z' | 'X' | 'x') || stat.num_threads > 1
}

/// The children of all threads of this process; none if it has ended, or shows none.
fn children(pid: i32) -> io::Result<Vec<i32>> {
    let mut found = Vec::new();
    let threads = match std::fs::read_dir(format!("/proc/{pid}/task")) {
        Ok(threads) => threads,
        Err(error) if is_shortage(&error) => return Err(error),
        Err(_) => return Ok(found),
    };
    for thread in threads.flatten() {
        match std::fs::read_to_string(thread.path().join("children")) {
            Ok(list) => found.extend(list.split_whitespace().flat_map(str::parse::<i32>)),
            Err(error) if is_shortage(&error) => return Err(error),
            Err(_) => {}
        }
    }
    Ok(found)
}

/// Whether /proc is mounted so that it hides others' processes. If that cannot be read it may be: one mount of somebody
/// else, whose path is not UTF-8, is reason enough. Then more is looked at than must be.
fn is_mounted_hiding() -> bool {
    let mounts = procfs::process::Process::myself().and_then(|us| us.mountinfo());
    let hides = |option: Option<&Option<String>>| {
        option.is_some_and(|value| !matches!(value.as_deref(), None | Some("0" | "off")))
    };
    mounts.map_or(true, |mounts| {
        mounts.into_iter().any(|mount| {
            mount.fs_type == "proc"
                && mount.mount_point.as_os_str() == "/proc"
                && hides(mount.super_options.get("hidepid"))
        })
    })
}

pub(super) fn cause(error: ProcError) -> io::Error {
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
