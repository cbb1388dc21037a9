//! The daemon: the processes that hold the listener of a daemonized instance, watched until each has ended. Knows
//! processes; is told which of them hold the listener.

use serde::{Deserialize, Serialize};

use crate::processes::{ExitWatcher, Process};

/// The processes that the daemon is.
#[derive(Debug, Default)]
pub(super) struct Daemon {
    exits: ExitWatcher,
    /// The watched processes were seen a moment ago, and may not be the daemon: they may have handed the listener on
    /// and ended, and a helper that was being forked has it until its exec. The next looks tell.
    is_unsettled: bool,
}

/// What the new binary needs to know of them.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct DaemonState {
    holders: Vec<Process>,
    is_unsettled: bool,
}

impl Daemon {
    pub(super) fn save(&self) -> DaemonState {
        DaemonState { holders: self.exits.processes(), is_unsettled: self.is_unsettled }
    }

    pub(super) fn resume(DaemonState { holders, is_unsettled }: DaemonState) -> Self {
        Self { exits: ExitWatcher::resume(holders), is_unsettled }
    }

    /// Watches these processes, which were seen to hold the listener.
    pub(super) fn watch(&mut self, holders: &[Process]) {
        self.exits = ExitWatcher::of(holders);
        self.is_unsettled = true;
    }

    /// These processes hold the listener now: one that holds it no more is no part of the daemon.
    pub(super) fn narrow(&mut self, holders: &[Process]) {
        self.exits.narrow(holders);
    }

    /// Whether a look is needed to know which processes the daemon is.
    pub(super) fn is_unsettled(&self) -> bool {
        self.is_unsettled
    }

    /// No look is needed any more: the watched processes are the daemon, or there is none.
    pub(super) fn settle(&mut self) {
        self.is_unsettled = false;
    }

    /// Whether all had ended before they could be watched.
    pub(super) fn is_lost(&self) -> bool {
        self.is_unsettled && self.exits.is_empty()
    }

    /// Returns when the last of them has ended. Cancel-safe.
    pub(super) async fn ended(&mut self) {
        self.exits.ended().await;
    }
}
