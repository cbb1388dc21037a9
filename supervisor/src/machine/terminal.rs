//! The controlling terminal, lent to the program while it starts: vncserver asks for a password at its first run, and
//! only the foreground process group may read (tcsetpgrp(3)). Knows process groups; when the terminal is lent and taken
//! back, `program/leader.rs` says.

use std::io::stdin;

use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::unistd::{Pid, getpgrp, tcgetpgrp, tcsetpgrp};

/// Standard input, where it is our controlling terminal and we are in its foreground.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terminal {
    ours: Pid,
}

impl Terminal {
    /// `None` where there is nothing to lend.
    pub(crate) fn in_foreground() -> Option<Self> {
        let ours = getpgrp();
        // ENOTTY unless it is our controlling terminal.
        (tcgetpgrp(stdin()).ok()? == ours).then_some(Self { ours })
    }

    /// The terminal that the old binary has lent: we are not in the foreground now. `None` if it is gone.
    pub(crate) fn lent() -> Option<Self> {
        tcgetpgrp(stdin()).ok()?;
        Some(Self { ours: getpgrp() })
    }

    /// The terminal of process group `ours`, for the launcher, which is in another group and may only
    /// [give](Self::give_to) it.
    pub(crate) fn of(ours: Pid) -> Self {
        Self { ours }
    }

    /// Makes a process group the foreground one. Async-signal-safe.
    #[allow(clippy::unused_self, reason = "only who has a terminal may give it")]
    pub(crate) fn give_to(self, group: Pid) {
        // A background group that does this is sent SIGTTOU, unless it blocks it.
        let mut blocked = SigSet::empty();
        blocked.add(Signal::SIGTTOU);
        let mut before = SigSet::empty();
        let _ = sigprocmask(SigmaskHow::SIG_BLOCK, Some(&blocked), Some(&mut before));
        let _ = tcsetpgrp(stdin(), group);
        let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), None);
    }

    /// Makes us the foreground group again.
    pub(crate) fn take_back(self) {
        self.give_to(self.ours);
    }

    /// Makes us the foreground group again, unless another group has become it since.
    pub(crate) fn take_back_from(self, group: Pid) {
        if tcgetpgrp(stdin()) == Ok(group) {
            self.take_back();
        }
    }
}
