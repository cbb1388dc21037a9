//! Sends signals to the program's processes, to end them gently or not, and says whom that did not reach.
//! Knows nothing of when to send them.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal::{self, SIGCONT, SIGTERM};
use nix::unistd::Pid;
use tracing::{debug, warn};

use crate::launcher::Launcher;
use crate::processes::Process;

/// How often the tree is walked again while it is being killed: it may still fork.
const KILL_INTERVAL: Duration = Duration::from_millis(20);

/// What was sent.
#[derive(Debug, Default)]
pub(super) struct Signalling {
    /// Which signals could not be sent to whom, as far as it was said.
    unsent: HashSet<(&'static str, Pid)>,
    next_kill: Option<Instant>,
    /// Who may where we may not.
    launcher: Option<Arc<Launcher>>,
}

impl Signalling {
    pub(super) fn by(launcher: Option<Arc<Launcher>>) -> Self {
        Self { launcher, ..Self::default() }
    }

    /// SIGTERM to each.
    pub(super) fn terminate(&mut self, processes: &[Process]) {
        for process in processes {
            let sent = self.signal(process, SIGTERM);
            // A stopped process handles no SIGTERM before it is continued.
            let sent = sent.and_then(|()| self.signal(process, SIGCONT));
            self.note("SIGTERM", process, sent);
        }
    }

    /// SIGKILL to each, and to whoever is left at [`next_kill`](Self::next_kill).
    pub(super) fn kill(&mut self, processes: &[Process]) {
        self.next_kill = Some(Instant::now() + KILL_INTERVAL);
        for process in processes {
            let sent = self.end(process);
            self.note("SIGKILL", process, sent);
        }
    }

    fn signal(&self, process: &Process, signal: Signal) -> io::Result<()> {
        let sent = process.signal(signal);
        self.unless_denied(sent, |launcher| launcher.signal(process, signal))
    }

    fn end(&self, process: &Process) -> io::Result<()> {
        let sent = process.kill();
        self.unless_denied(sent, |launcher| launcher.kill(process))
    }

    /// Has the launcher do it where we were refused.
    fn unless_denied(
        &self,
        sent: io::Result<()>,
        instead: impl Fn(&Launcher) -> io::Result<()>,
    ) -> io::Result<()> {
        match (sent, &self.launcher) {
            (Err(refused), Some(launcher)) if refused.kind() == io::ErrorKind::PermissionDenied => {
                instead(launcher)
            }
            (sent, _) => sent,
        }
    }

    /// When the tree is to be killed again, once it has been.
    pub(super) fn next_kill(&self) -> Option<Instant> {
        self.next_kill
    }

    /// Says once of each process and signal why it could not be sent.
    fn note(&mut self, name: &'static str, process: &Process, sent: io::Result<()>) {
        match sent {
            Ok(()) => debug!("{name} to {process}"),
            Err(failure) => {
                if self.unsent.insert((name, process.pid)) {
                    warn!("cannot send {name} to {process}: {}", bridge::error_text(&failure));
                }
            }
        }
    }
}
