//! The first process of an instance, and the terminal that is the program's while it starts. Knows its
//! number and its end; what else the instance consists of it does not know.

use nix::errno::Errno;
use nix::sys::signal::Signal::{SIGCONT, SIGSTOP};
use nix::sys::signal::{killpg, raise};
use nix::unistd::Pid;
use tracing::warn;

use super::terminal::Terminal;
use crate::exit::ExitStatus;

/// The leader of the present instance.
#[derive(Debug, Default)]
pub(super) struct Leader {
    /// Until it is reaped.
    running: Option<Pid>,
    /// How it ended, until we have seen whom it left.
    ended: Option<ExitStatus>,
    /// The number of this one, or of the one before.
    last: Option<Pid>,
    /// Lent to it.
    terminal: Option<Terminal>,
}

impl Leader {
    /// What it is to be started with, if we have it to lend.
    pub(super) fn lend_terminal(&mut self) -> Option<Terminal> {
        self.terminal = Terminal::in_foreground();
        self.terminal
    }

    pub(super) fn begin(&mut self, pid: Pid) {
        self.running = Some(pid);
        self.last = Some(pid);
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

    /// It has been reaped. Returns its number.
    pub(super) fn end(&mut self, status: ExitStatus) -> Option<Pid> {
        self.ended = Some(status);
        self.running.take()
    }

    /// How it ended, until that was [told](Self::forget).
    pub(super) fn ended(&self) -> Option<ExitStatus> {
        self.ended
    }

    pub(super) fn forget(&mut self) {
        self.ended = None;
    }

    /// Whether somebody at the terminal has ended it by this status.
    pub(super) fn is_interrupted(&self, status: ExitStatus) -> bool {
        self.terminal.is_some() && status.is_interrupt()
    }

    pub(super) fn take_terminal_back(&mut self) {
        if let (Some(terminal), Some(group)) = (self.terminal.take(), self.last) {
            terminal.take_back_from(group);
        }
    }

    /// ^Z at the terminal that is the program's: its shell expects us to stop, as the job that we
    /// are, and to take both up again together.
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
