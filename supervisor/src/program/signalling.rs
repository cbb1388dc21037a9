//! The signals to the program's processes, which end them gently or not. Reports those that a signal did not reach.
//! Must not know when to send them.

use std::collections::HashSet;
use std::io;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal::{self, SIGCONT, SIGTERM};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tracing::{debug, warn};

use crate::clock::maybe_instant;
use crate::launcher::Launcher;
use crate::processes::{Process, number};

/// How often the tree is walked again while it is being killed: it may still fork.
const KILL_INTERVAL: Duration = Duration::from_millis(20);
/// How soon the processes are looked for again that could not be seen when they were to get SIGTERM.
const BLIND_INTERVAL: Duration = Duration::from_millis(100);

/// What is known of the signals that were sent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Signalling {
    /// The signals that could not be sent, and to which processes, as far as that was logged.
    unsent: HashSet<Unsent>,
    #[serde(with = "maybe_instant")]
    next_terminate: Option<Instant>,
    #[serde(with = "maybe_instant")]
    next_kill: Option<Instant>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Unsent {
    signal: String,
    #[serde(with = "number")]
    to: Pid,
}

impl Signalling {
    /// SIGTERM to each; the launcher sends it where we may not. `None`: they cannot be seen now, and are to get it at
    /// [`next_terminate`](Self::next_terminate).
    pub(super) fn terminate(&mut self, processes: Option<&[Process]>, launcher: Option<&Launcher>) {
        self.next_terminate = processes.is_none().then(|| Instant::now() + BLIND_INTERVAL);
        for process in processes.unwrap_or_default() {
            let sent = signal(process, SIGTERM, launcher);
            // A stopped process handles no SIGTERM before it is continued.
            let sent = sent.and_then(|()| signal(process, SIGCONT, launcher));
            self.note("SIGTERM", process, sent);
        }
    }

    /// SIGKILL to each. What is left is to be killed again at [`next_kill`](Self::next_kill).
    pub(super) fn kill(&mut self, processes: &[Process], launcher: Option<&Launcher>) {
        self.next_kill = Some(Instant::now() + KILL_INTERVAL);
        for process in processes {
            let sent = unless_denied(process.kill(), launcher, |launcher| launcher.kill(process));
            self.note("SIGKILL", process, sent);
        }
    }

    /// When SIGTERM is to be sent again, as the processes could not be seen.
    pub(super) fn next_terminate(&self) -> Option<Instant> {
        self.next_terminate
    }

    /// When the tree is to be killed again, once it has been.
    pub(super) fn next_kill(&self) -> Option<Instant> {
        self.next_kill
    }

    /// Says once of each process and signal why it could not be sent.
    fn note(&mut self, name: &str, process: &Process, sent: io::Result<()>) {
        match sent {
            Ok(()) => debug!("{name} to {process}"),
            Err(failure) => {
                if self.unsent.insert(Unsent { signal: name.to_owned(), to: process.pid }) {
                    warn!("cannot send {name} to {process}: {}", bridge::error_text(&failure));
                }
            }
        }
    }
}

fn signal(process: &Process, signal: Signal, launcher: Option<&Launcher>) -> io::Result<()> {
    unless_denied(process.signal(signal), launcher, |launcher| launcher.signal(process, signal))
}

/// Has the launcher do it where we were refused.
fn unless_denied(
    sent: io::Result<()>,
    launcher: Option<&Launcher>,
    instead: impl Fn(&Launcher) -> io::Result<()>,
) -> io::Result<()> {
    match (sent, launcher) {
        (Err(refused), Some(launcher)) if refused.kind() == io::ErrorKind::PermissionDenied => {
            instead(launcher)
        }
        (sent, _) => sent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn o2_who_was_not_reached_is_not_named_again() {
        let now = Some(Instant::now());
        let mut old = Signalling { next_terminate: now, next_kill: now, ..Signalling::default() };
        old.unsent.insert(Unsent { signal: "SIGKILL".to_owned(), to: Pid::from_raw(7) });
        let json = serde_json::to_string(&old).expect("JSON");
        assert_eq!(serde_json::from_str::<Signalling>(&json).expect("the same"), old);
        assert_eq!(serde_json::from_str::<Signalling>("{}").expect("none"), Signalling::default());
    }
}
