//! The signals that we are sent, as what they ask for. Knows nothing of who answers them.

use std::io::{self, IsTerminal};

use futures_util::StreamExt;
use nix::sys::signal::{self, SigSet};
use procfs::process::Process;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGXFSZ};

/// The signals that no longer do what they do by default; but SIGHUP, where it was ignored when we were
/// started (nohup, `trap '' HUP`), stays so.
const CAUGHT: [i32; 6] = [SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGXFSZ];

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// A child has ended, or more than one.
    Child,
    /// Stop; asked for a second time, at once.
    Stop,
    /// Read again what may have changed.
    Reload,
}

/// The signals that websockify listens to.
pub(crate) struct Signals {
    /// Apart from SIGCHLD: one stream tells signals by their numbers, and begins with the first again only
    /// after a moment without any. Where children end all the time there is no such moment.
    asked: signal_hook_tokio::Signals,
    children: signal_hook_tokio::Signals,
    /// SIGHUP from a terminal that closed is a stop: who would see the rest?
    hangup_stops: bool,
}

impl Signals {
    /// From here on these signals no longer end the process. Needs a runtime.
    ///
    /// exec(2) keeps the mask: whoever called us may have blocked them, and they would never come.
    pub(crate) fn catch() -> io::Result<Self> {
        let ignored = ignores_hangup();
        let caught = || CAUGHT.into_iter().filter(|signal| *signal != SIGHUP || !ignored);
        let unblocked = caught().map(signal::Signal::try_from);
        unblocked.collect::<nix::Result<SigSet>>()?.thread_unblock()?;
        Self::tell(caught().filter(|signal| *signal != SIGCHLD))
    }

    fn tell(asked: impl Iterator<Item = i32>) -> io::Result<Self> {
        Ok(Self {
            asked: signal_hook_tokio::Signals::new(asked)?,
            children: signal_hook_tokio::Signals::new([SIGCHLD])?,
            hangup_stops: io::stderr().is_terminal(),
        })
    }

    /// Waits until one asks us to stop. Cancel-safe.
    pub(crate) async fn stop(&mut self) {
        while self.next().await != Signal::Stop {}
    }

    /// The next signal, what somebody asks for first. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Signal {
        // A stream that always has something would keep the runtime from looking at anything else.
        tokio::task::consume_budget().await;
        loop {
            let signal = tokio::select! {
                biased;
                signal = self.asked.next() => signal,
                child = self.children.next() => child,
            };
            match signal {
                Some(SIGCHLD) => return Signal::Child,
                Some(SIGHUP) if !self.hangup_stops => return Signal::Reload,
                // Caught, so that the write fails instead, and a full recording ends no session.
                Some(SIGXFSZ) => {}
                Some(_) => return Signal::Stop,
                // A stream ends only when its handle is closed, which nobody does.
                None => std::future::pending().await,
            }
        }
    }
}

/// Whether we were started with SIGHUP ignored; as long as nobody has caught it.
fn ignores_hangup() -> bool {
    let status = Process::myself().and_then(|us| us.status());
    status.is_ok_and(|status| status.sigign & (1 << (SIGHUP - 1)) != 0)
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::{Signal as Raised, raise};

    use super::*;

    /// W9: a program whose processes end all the time does not keep us from being stopped.
    #[tokio::test]
    async fn w9_what_is_asked_for_is_heard_while_children_end_without_a_pause() {
        let mut signals = Signals::tell([SIGHUP].into_iter()).unwrap();
        raise(Raised::SIGCHLD).unwrap();
        assert_eq!(signals.next().await, Signal::Child);
        raise(Raised::SIGCHLD).unwrap();
        raise(Raised::SIGHUP).unwrap();
        // The runtime looks for what is new on a pipe after some rounds.
        for _ in 0..1000 {
            raise(Raised::SIGCHLD).unwrap();
            if signals.next().await != Signal::Child {
                return;
            }
        }
        panic!("only children were told of");
    }
}
