//! Repeats: calls of bind(2) that a thread may make once more, as it does not know that they are done: a signal has
//! taken it out of the call before the answer came. Such a call must be answered as the first one was, and not as a
//! second bind(2), which the kernel refuses with EINVAL. Knows which kernels do that, and no rule of moving a port.

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

/// A bind(2) whose answer may not have come to its thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RetriedBind {
    #[serde(with = "number")]
    pub(super) thread: Pid,
    /// The inode of the socket.
    pub(super) inode: u64,
}

/// All such calls that are remembered.
#[derive(Debug)]
pub(super) struct RetriedBinds {
    binds: VecDeque<RetriedBind>,
    /// Whether an answer that the kernel has taken surely comes to its thread.
    is_certain: bool,
}

impl RetriedBinds {
    pub(super) fn new() -> Self {
        Self::of(vec![])
    }

    /// As the old binary of a hand-over has noted them.
    pub(super) fn of(mut binds: Vec<RetriedBind>) -> Self {
        binds.drain(..binds.len().saturating_sub(BINDS_MAX));
        Self { binds: binds.into(), is_certain: is_certain() }
    }

    /// All of them, the oldest first.
    pub(super) fn all(&self) -> Vec<RetriedBind> {
        self.binds.iter().copied().collect()
    }

    /// Notes that this socket was bound for this thread; `is_told` says whether the kernel has taken the answer.
    pub(super) fn note(&mut self, thread: Pid, socket: &OwnedFd, is_told: bool) {
        let inode = inode(socket).filter(|_| !is_told || !self.is_certain);
        if let Some(inode) = inode {
            self.keep(RetriedBind { thread, inode });
        }
    }

    /// Keeps a repeat whose answer the kernel has not taken this time either.
    pub(super) fn keep(&mut self, repeat: RetriedBind) {
        if self.binds.len() == BINDS_MAX {
            self.binds.pop_front();
        }
        self.binds.push_back(repeat);
    }

    /// Takes out the bind(2) that this thread may repeat, as it makes a call now: either this is the repeat, or any
    /// other call shows that the thread knows the answer.
    pub(super) fn take(&mut self, thread: Pid) -> Option<RetriedBind> {
        let at = self.binds.iter().position(|bind| bind.thread == thread)?;
        self.binds.remove(at)
    }
}

impl RetriedBind {
    pub(super) fn is_of(&self, socket: &OwnedFd) -> bool {
        inode(socket) == Some(self.inode)
    }
}

/// Signals wait until we have answered since Linux 5.19, and until the answer has come to the thread since 6.17. Before
/// that, a thread that binds a socket twice cannot be told from one that repeats its call, and is answered that the
/// socket is bound.
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
    fn w14_of_too_many_calls_the_oldest_are_forgotten() {
        let bind = |number| RetriedBind { thread: Pid::from_raw(number), inode: 1 };
        let all: Vec<_> = (1..=258).map(bind).collect();
        let mut kept = RetriedBinds::of(all.clone());
        assert_eq!(kept.all(), all[2..]);
        kept.keep(bind(300));
        assert_eq!(kept.all(), [&all[3..], &[bind(300)]].concat());
    }

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
