//! What a websockify holds of its machine: memory, descriptors, threads and children. Measured before a fault and after
//! it (L6).

use std::time::{Duration, Instant};

use procfs::process::all_processes;

use super::Process;
use super::wait::wait_for;
use super::websockify::Websockify;

/// How much memory the allocator may keep of what was needed for a while, bytes. What leaks with each of many sessions
/// is more.
const KEPT: u64 = 8 << 20;

/// Threads that have done their work wait ten seconds for more; and so may a connection for its other end.
const PATIENCE: Duration = Duration::from_secs(90);

/// How long nothing must change for it to be at rest.
const REST: Duration = Duration::from_millis(300);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Footprint {
    /// Bytes.
    pub(crate) memory: u64,
    pub(crate) descriptors: usize,
    threads: i64,
    /// Zombies, too.
    pub(crate) children: usize,
}

impl Footprint {
    /// As it is now.
    pub(crate) fn of(websockify: &Websockify) -> Self {
        let us = Process::find(websockify.pid()).expect("it runs");
        let (stat, process) = (us.stat(), us.proc());
        let others = all_processes().unwrap().filter_map(|process| process.ok()?.stat().ok());
        Self {
            memory: stat.rss * procfs::page_size(),
            descriptors: process.fd_count().unwrap(),
            threads: stat.num_threads,
            children: others.filter(|other| other.ppid == us.pid).count(),
        }
    }

    /// When but for its memory nothing has changed for a while.
    pub(crate) fn at_rest(websockify: &Websockify) -> Self {
        let mut seen = (Self::of(websockify), Instant::now());
        wait_for("the same descriptors, threads and children for a while", || {
            let now = Self::of(websockify);
            if !(now.holds_no_more_than(&seen.0) && seen.0.holds_no_more_than(&now)) {
                seen = (now, Instant::now());
            }
            (seen.1.elapsed() > REST).then_some(now)
        })
    }

    /// Waits until no more is held than was then.
    pub(crate) fn wait_until_back(&self, websockify: &Websockify) {
        let began = Instant::now();
        loop {
            let late = began.elapsed() > PATIENCE;
            let now = Self::of(websockify);
            if now.holds_no_more_than(self) && now.memory <= self.memory + KEPT {
                return;
            }
            assert!(!late, "more than before is left: {now:?}, and it was {self:?}");
            std::thread::sleep(REST / 10);
        }
    }

    fn holds_no_more_than(&self, other: &Self) -> bool {
        self.descriptors <= other.descriptors
            && self.threads <= other.threads
            && self.children <= other.children
    }
}
