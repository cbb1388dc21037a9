//! The view of a relay for those who may not change it: whether a client that comes now is served.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bridge::{Readiness, Shutdown};
use tokio::sync::watch;

/// A relay as others see it, at each moment.
#[derive(Debug, Clone)]
pub(crate) struct RelayView {
    pub(super) is_open: Arc<AtomicBool>,
    pub(super) shutdown: watch::Receiver<Shutdown>,
    /// How the program is, where there is one.
    pub(super) program: Option<ViewedProgram>,
}

/// A program as others see it.
#[derive(Debug, Clone)]
pub(super) struct ViewedProgram {
    pub(super) readiness: watch::Receiver<Readiness>,
    /// Whether a client that comes while it does not run has it started (O5).
    pub(super) is_on_demand: bool,
}

/// Why a client that comes now is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotReady {
    /// Nobody is let in yet.
    Starting,
    /// Nobody is let in any more.
    Draining,
    NotListening,
}

impl fmt::Display for NotReady {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Starting => "starting",
            Self::Draining => "draining",
            Self::NotListening => "the program does not listen",
        })
    }
}

impl RelayView {
    pub(crate) fn ready(&self) -> Result<(), NotReady> {
        if *self.shutdown.borrow() != Shutdown::Run {
            return Err(NotReady::Draining);
        }
        if self.program.as_ref().is_some_and(|program| !program.is_ready()) {
            return Err(NotReady::NotListening);
        }
        self.is_open.load(Ordering::Relaxed).then_some(()).ok_or(NotReady::Starting)
    }

    /// None: there is no program.
    pub(crate) fn program_listens(&self) -> Option<bool> {
        let program = self.program.as_ref()?;
        Some(matches!(*program.readiness.borrow(), Readiness::Ready(_)))
    }
}

impl ViewedProgram {
    /// Whether a client that comes now is served, at once or when the program has been started for it.
    fn is_ready(&self) -> bool {
        match *self.readiness.borrow() {
            Readiness::Ready(_) => true,
            Readiness::Waiting => self.is_on_demand,
            Readiness::Failed | Readiness::Gone => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// O3, O5: every readiness of a program that is started at once, and of one that clients have started.
    #[test]
    fn o3_o5_on_demand_who_is_held_is_served() {
        let address = (std::net::Ipv4Addr::LOCALHOST, 1).into();
        let cases = [
            (Readiness::Ready(address), [true, true]),
            (Readiness::Waiting, [false, true]),
            (Readiness::Failed, [false, false]),
            (Readiness::Gone, [false, false]),
        ];
        for (readiness, expected) in cases {
            let listens = matches!(readiness, Readiness::Ready(_));
            for (is_on_demand, is_ready) in [false, true].into_iter().zip(expected) {
                let (_program, readiness) = watch::channel(readiness.clone());
                let (shutdown, told) = watch::channel(Shutdown::Run);
                let view = RelayView {
                    is_open: Arc::new(AtomicBool::new(true)),
                    shutdown: told,
                    program: Some(ViewedProgram { readiness, is_on_demand }),
                };
                let ready = is_ready.then_some(()).ok_or(NotReady::NotListening);
                assert_eq!(view.ready(), ready, "{view:?}");
                assert_eq!(view.program_listens(), Some(listens), "{view:?}");
                for end in [Shutdown::Drain, Shutdown::Now] {
                    shutdown.send_replace(end);
                    assert_eq!(view.ready(), Err(NotReady::Draining), "{view:?}");
                }
            }
        }
    }
}
