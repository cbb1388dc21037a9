//! Processes as proc(5) shows them. A zombie counts as dead.

use std::collections::HashMap;
use std::ffi::OsString;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use procfs::process::{FDTarget, Stat, all_processes};

/// One process. Its start time tells it from a later process with the same number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) name: String,
    start: u64,
}

impl Process {
    /// The living process with this number.
    pub(crate) fn find(pid: i32) -> Option<Self> {
        let stat = procfs::process::Process::new(pid).ok()?.stat().ok()?;
        is_alive(&stat).then(|| Self::from(&stat))
    }

    pub(crate) fn is_alive(&self) -> bool {
        Self::find(self.pid).is_some_and(|now| now.start == self.start)
    }

    /// Sends a signal, if the process is still there.
    pub(crate) fn signal(&self, signal: Signal) {
        if self.is_alive() {
            let _ = kill(Pid::from_raw(self.pid), signal);
        }
    }

    /// The environment that it was started with.
    pub(crate) fn environment(&self) -> HashMap<OsString, OsString> {
        self.proc().environ().unwrap()
    }

    pub(crate) fn variable(&self, name: &str) -> String {
        let environment = self.environment();
        let value = environment.get(&OsString::from(name));
        value.unwrap_or_else(|| panic!("{name} is not set")).to_str().unwrap().to_owned()
    }

    /// The inodes of the sockets that it has open; none if it has ended.
    pub(crate) fn sockets(&self) -> Vec<u64> {
        let fds = procfs::process::Process::new(self.pid).and_then(|process| process.fd());
        let fds = fds.into_iter().flatten().flatten();
        fds.filter_map(|fd| match fd.target {
            FDTarget::Socket(inode) => Some(inode),
            _ => None,
        })
        .collect()
    }

    /// What proc(5) says of it in `stat`; `None` if it has ended, as any process of a tree may at any time.
    pub(crate) fn stat_if_there(&self) -> Option<Stat> {
        procfs::process::Process::new(self.pid).and_then(|process| process.stat()).ok()
    }

    pub(crate) fn stat(&self) -> Stat {
        self.proc().stat().unwrap()
    }

    /// How many seconds of a processor's time it has used, in user and in kernel mode; its children not.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        let stat = self.stat();
        let ticks = u32::try_from(stat.utime + stat.stime).unwrap();
        f64::from(ticks) / f64::from(u32::try_from(procfs::ticks_per_second()).unwrap())
    }

    pub(crate) fn proc(&self) -> procfs::process::Process {
        procfs::process::Process::new(self.pid).unwrap()
    }
}

impl From<&Stat> for Process {
    fn from(stat: &Stat) -> Self {
        Self { pid: stat.pid, name: stat.comm.clone(), start: stat.starttime }
    }
}

/// The living processes that descend from this one.
pub(crate) fn below(ancestor: i32) -> Vec<Process> {
    let all = stats();
    let descends = |stat: &Stat| {
        let mut at = stat;
        // No chain of parents is longer than there are processes.
        for _ in 0..all.len() {
            if at.ppid == ancestor {
                return true;
            }
            match all.get(&at.ppid) {
                Some(parent) => at = parent,
                None => return false,
            }
        }
        false
    };
    all.values().filter(|stat| is_alive(stat) && descends(stat)).map(Process::from).collect()
}

/// All living processes that were started with this variable, and kept it.
pub(crate) fn everyone(name: &str, value: &str) -> Vec<Process> {
    let (name, value) = (OsString::from(name), OsString::from(value));
    let has = |process: &Process| {
        let found = procfs::process::Process::new(process.pid).and_then(|it| it.environ());
        found.is_ok_and(|environment| environment.get(&name) == Some(&value))
    };
    stats().values().filter(|stat| is_alive(stat)).map(Process::from).filter(has).collect()
}

fn stats() -> HashMap<i32, Stat> {
    let stats = all_processes().unwrap().filter_map(|process| process.ok()?.stat().ok());
    stats.map(|stat| (stat.pid, stat)).collect()
}

/// A zombie that has more than one thread counts as alive: it was killed, but its other threads have not ended yet, and
/// keep its files open.
fn is_alive(stat: &Stat) -> bool {
    !matches!(stat.state, 'Z' | 'X') || stat.num_threads > 1
}
