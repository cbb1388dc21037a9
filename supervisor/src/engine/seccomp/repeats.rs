//! Binds that may be asked for once more by a thread that does not know that they are done: a signal has taken it out of its
//! call before the answer came. Such a call must be answered as it was, and not as a second one, by which the kernel says
//! EINVAL. Knows which kernels do that; no rule.

use std::collections::VecDeque;
use std::fs;
use std::os::fd::OwnedFd;

use nix::sys::stat::fstat;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::filter;
use crate::processes::number;

/// How many are remembered, one of each thread.
const BINDS_MAX: usize = 256;

/// A bind whose answer may not have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Repeat {
    #[serde(with = "number")]
    pub(super) thread: Pid,
    /// Of its socket.
    pub(super) inode: u64,
}

/// The binds whose answer may not have come.
#[derive(Debug)]
pub(super) struct Repeats {
    binds: VecDeque<Repeat>,
    /// Whether an answer that the kernel has taken has come.
    is_certain: bool,
}

impl Repeats {
    pub(super) fn new() -> Self {
        Self::of(vec![])
    }

    /// As another image of us has noted them.
    pub(super) fn of(mut binds: Vec<Repeat>) -> Self {
        binds.truncate(BINDS_MAX);
        Self { binds: binds.into(), is_certain: is_certain() }
    }

    /// All of them, the oldest first.
    pub(super) fn all(&self) -> Vec<Repeat> {
        self.binds.iter().copied().collect()
    }

    /// Such a socket was bound for such a thread, and the kernel has taken the answer or not.
    pub(super) fn note(&mut self, thread: Pid, socket: &OwnedFd, is_told: bool) {
        let inode = inode(socket).filter(|_| !is_told || !self.is_certain);
        if let Some(inode) = inode {
            self.keep(Repeat { thread, inode });
        }
    }

    /// It was not told this time either.
    pub(super) fn keep(&mut self, repeat: Repeat) {
        if self.binds.len() == BINDS_MAX {
            self.binds.pop_front();
        }
        self.binds.push_back(repeat);
    }

    /// What this thread may ask for once more, if the call that it makes now does: any other shows that it knows.
    pub(super) fn take(&mut self, thread: Pid) -> Option<Repeat> {
        let at = self.binds.iter().position(|bind| bind.thread == thread)?;
        self.binds.remove(at)
    }
}

impl Repeat {
    pub(super) fn is_of(&self, socket: &OwnedFd) -> bool {
        inode(socket) == Some(self.inode)
    }
}

/// Signals wait for the answer since Linux 5.19, and for its way to the thread since 6.17. Before, whoever binds a socket twice
/// cannot be told from who asks once more, and it is said to him that it is bound.
fn is_certain() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    version(&release) >= Some((6, 17)) && filter::has_signals_wait()
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn inode(socket: &OwnedFd) -> Option<u64> {
    fstat(socket).ok().map(|stat| stat.st_ino)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn w14_the_version_of_a_kernel() {
        for (release, expected) in [
            ("6.1.0-25-amd64\n", Some((6, 1))),
            ("6.17-rc1", Some((6, 17))),
            ("7.3.0+", Some((7, 3))),
            ("", None),
            ("linux", None),
        ] {
            assert_eq!(version(release), expected, "{release}");
        }
        assert!(Some((6, 17)) > Some((6, 6)) && Some((6, 17)) > None::<(u32, u32)>);
    }
}
