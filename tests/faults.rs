//! Peers that go without a word (L4): their sessions end, and nothing of them is left.

mod blackhole;
mod counted;

use std::time::Duration;

use procfs::process::Process;

use crate::support::{Websockify, wait_for_within};

/// Longer than all limits on the way one after the other, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// How many descriptors it has open.
fn descriptors(websockify: &Websockify) -> usize {
    Process::new(websockify.pid()).unwrap().fd_count().unwrap()
}

/// Waits until this many sessions have begun and ended, and as few descriptors are open as `before`.
fn wait_for_the_end(websockify: &Websockify, sessions: usize, before: usize) {
    let count = |what: &str| websockify.logged(&[what]).len();
    let wait_until = |what, condition: &dyn Fn() -> bool| {
        wait_for_within(PATIENCE, what, || condition().then_some(()));
    };
    wait_until("the end of all sessions", &|| count("session ended") >= sessions);
    wait_until("the end of their descriptors", &|| descriptors(websockify) <= before);
    assert_eq!((count("session started"), count("session ended")), (sessions, sessions));
    assert_eq!(descriptors(websockify), before);
}
