//! The leader: the first process of an instance, and the terminal that is lent to the program while it starts. Knows
//! its process id and its end; must not know what else the instance consists of.

use anyhow::{Result, ensure};
use nix::errno::Errno;
use nix::sys::signal::Signal::{SIGCONT, SIGSTOP};
use nix::sys::signal::{killpg, raise};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::exit::ExitStatus;
use crate::machine::terminal::Terminal;
use crate::processes::{is_child, number};

/// The leader of the present instance.
#[derive(Debug, Default)]
pub(super) struct Leader {
    /// Its process id, until it is reaped.
    running: Option<Pid>,
    /// How it ended, until we have seen which processes it left.
    ended: Option<ExitStatus>,
    /// The process id of this leader, or of the one before.
    last: Option<Pid>,
    /// The terminal that is lent to it.
    terminal: Option<Terminal>,
}

/// What the new binary needs to know of it.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LeaderState {
    #[serde(default, with = "number::maybe")]
    running: Option<Pid>,
    #[serde(default)]
    ended: Option<ExitStatus>,
    #[serde(default, with = "number::maybe")]
    last: Option<Pid>,
    #[serde(default)]
    has_terminal: bool,
}

impl Leader {
    pub(super) fn save(&self) -> LeaderState {
        let Self { running, ended, last, terminal } = *self;
        LeaderState { running, ended, last, has_terminal: terminal.is_some() }
    }

    /// # Errors
    /// The leader that runs is no child of ours.
    pub(super) fn resume(state: &LeaderState) -> Result<Self> {
        let LeaderState { running, ended, last, has_terminal } = *state;
        if let Some(pid) = running {
            ensure!(is_child(pid), "process {pid} is no child of ours");
        }
        let terminal = has_terminal.then(Terminal::lent).flatten();
        Ok(Self { running, ended, last, terminal })
    }

    /// The terminal that the leader is to be started with, if we have one to lend.
    pub(super) fn lend_terminal(&mut self) -> Option<Terminal> {
        self.terminal = Terminal::in_foreground();
        self.terminal
    }

    pub(super) fn begin(&mut self, pid: Pid) {
        self.running = Some(pid);
        self.last = Some(pid);
        // The end of the one before matters no more, if it was not reported.
        self.ended = None;
    }

    /// It could not be started.
    pub(super) fn fail(&mut self) {
        // The child had taken it before its exec failed.
        if let Some(terminal) = self.terminal.take() {
            terminal.take_back();
        }
    }

    pub(super) fn running(&self) -> Option<Pid> {
        self.running
    }

    /// It has been reaped. Returns its process id.
    pub(super) fn end(&mut self, status: ExitStatus) -> Option<Pid> {
        self.ended = Some(status);
        self.running.take()
    }

    /// How it ended, until that was [reported](Self::forget).
    pub(super) fn ended(&self) -> Option<ExitStatus> {
        self.ended
    }

    pub(super) fn forget(&mut self) {
        self.ended = None;
    }

    /// Whether this status says that the leader was ended from the terminal that it was lent (^C).
    pub(super) fn is_interrupted(&self, status: ExitStatus) -> bool {
        self.terminal.is_some() && status.is_interrupt()
    }

    pub(super) fn take_terminal_back(&mut self) {
        if let (Some(terminal), Some(group)) = (self.terminal.take(), self.last) {
            terminal.take_back_from(group);
        }
    }

    /// ^Z at the terminal while it is lent to the program. The shell that has started us expects its job, which we are,
    /// to stop: so we stop with the program, and the program is continued when we are.
    pub(super) fn suspend(&mut self) {
        let (Some(terminal), Some(group)) = (self.terminal, self.running) else { return };
        terminal.take_back();
        // Returns when somebody continues us: `fg`, or `bg`.
        if let Err(error) = raise(SIGSTOP) {
            warn!("cannot stop with the program: {}", bridge::error_text(&error.into()));
        }
        if let Some(terminal) = self.lend_terminal() {
            terminal.give_to(group);
        }
        match killpg(group, SIGCONT) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => {
                warn!("cannot continue the program: {}", bridge::error_text(&error.into()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use nix::sys::signal::{Signal, kill};
    use nix::sys::wait::{Id, WaitPidFlag, waitid, waitpid};

    use super::*;

    fn sleeper() -> Child {
        Command::new("sleep").arg("1000").spawn().expect("started")
    }

    #[test]
    #[expect(clippy::zombie_processes, reason = "waitpid(2) has its end")]
    fn o2_only_a_child_of_ours_is_a_leader_also_when_it_has_ended() {
        let child = sleeper();
        let pid = Pid::from_raw(child.id().try_into().expect("a pid"));
        let mut old = Leader::default();
        old.begin(pid);
        let json = serde_json::to_string(&old.save()).expect("JSON");
        let state: LeaderState = serde_json::from_str(&json).expect("the same");
        assert_eq!(state, old.save());
        assert_eq!(Leader::resume(&state).expect("a child").running(), Some(pid));
        kill(pid, Signal::SIGKILL).expect("killed");
        waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).expect("its end");
        Leader::resume(&state).expect("it was not waited for");
        waitpid(pid, None).expect("waited for");
        let error = Leader::resume(&state).expect_err("nobody");
        assert_eq!(error.to_string(), format!("process {pid} is no child of ours"));
        let other = LeaderState { running: Some(Pid::from_raw(1)), ..LeaderState::default() };
        assert_eq!(
            Leader::resume(&other).expect_err("another's").to_string(),
            "process 1 is no child of ours"
        );
    }

    #[test]
    fn o2_how_it_ended_is_told_later() {
        let mut old = Leader::default();
        old.begin(Pid::from_raw(7));
        old.end(ExitStatus::FAILURE);
        let new = Leader::resume(&old.save()).expect("nobody runs");
        assert_eq!((new.running(), new.ended()), (None, Some(ExitStatus::FAILURE)));
        assert_eq!(new.last, Some(Pid::from_raw(7)));
    }
}
