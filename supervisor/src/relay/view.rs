//! What others see of the bridge, who may not handle it: whether a client who comes now is served.

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
    pub(super) program: Option<watch::Receiver<Readiness>>,
}

/// Why a client who comes now is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotReady {
    /// Nobody is let in yet.
    Starting,
    /// No more are.
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
        if self.program_listens() == Some(false) {
            return Err(NotReady::NotListening);
        }
        self.is_open.load(Ordering::Relaxed).then_some(()).ok_or(NotReady::Starting)
    }

    /// None: there is no program.
    pub(crate) fn program_listens(&self) -> Option<bool> {
        let program = self.program.as_ref()?;
        Some(matches!(*program.borrow(), Readiness::Ready(_)))
    }
}
