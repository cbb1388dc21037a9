//! What a websockify uses of its machine: memory, file descriptors, threads and children. Measured before a fault and
//! after it (L6).

use std::time::{Duration, Instant};

use procfs::process::all_processes;

use super::Process;
use super::wait::wait_for;
use super::websockify::Websockify;

/// How many bytes the allocator may keep of memory that was needed for a while. A leak in each of many sessions adds up
/// to more.
const KEPT: u64 = 8 << 20;

/// How long a test waits until the footprint is as small as before. A thread without work ends after ten seconds, and a
/// connection may wait as long for its peer.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(90);

/// How long nothing must change before websockify counts as idle.
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

    /// Waits until nothing but its memory has changed for [`REST`].
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

    /// Waits until websockify uses no more than this footprint.
    pub(crate) fn wait_until_back(&self, websockify: &Websockify) {
        let began = Instant::now();
        loop {
            let late = began.elapsed() > SETTLE_TIMEOUT;
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
