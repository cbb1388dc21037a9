//! The rests: forked copies of the old process, each of which carries to their end the TLS sessions that it could not
//! hand over (O2). They end with the bridge. Knows processes of ours, and nothing of their sessions.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::clock::until;
use crate::processes::{Aside, ExitWatcher, Process};

/// The signal that asks a rest to close its sessions.
pub(crate) const REST_ASKED: Signal = Signal::SIGUSR1;

/// How long the rests may take to close their sessions: what does not close in time they cut off after five seconds.
const CUT_OFF: Duration = Duration::from_secs(7);

/// All rests.
#[derive(Debug)]
pub(crate) struct Rests {
    aside: Aside,
    /// When they are killed.
    cut_off: Option<Instant>,
}

impl Rests {
    pub(crate) fn new(aside: Aside) -> Self {
        Self { aside, cut_off: None }
    }

    /// The table that has them.
    pub(super) fn aside(&self) -> Aside {
        self.aside.clone()
    }

    /// Asks them to close their sessions, once.
    pub(super) fn terminate(&mut self) {
        if self.cut_off.is_none() {
            self.aside.signal_rests(REST_ASKED);
            self.cut_off = Some(Instant::now() + CUT_OFF);
        }
    }

    /// Waits until none is left. Cancel-safe.
    pub(super) async fn ended(&self) {
        loop {
            self.aside.reap_rests();
            let left: Vec<_> = self.aside.rests().into_iter().map(Process::of_leader).collect();
            if left.is_empty() {
                return;
            }
            let mut exits = ExitWatcher::of(&left);
            if exits.is_empty() {
                // They have ended since, and are waited for in the next round.
                tokio::task::yield_now().await;
                continue;
            }
            tokio::select! {
                () = exits.ended() => {}
                () = until(self.cut_off) => return self.aside.signal_rests(Signal::SIGKILL),
            }
        }
    }
}
