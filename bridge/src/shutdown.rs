//! How a bridge is told to end, as its connections see it.
//!
//! Each connection watches what the supervisor says, and does not hear it from the accept loop: a target
//! that is stopped in the same breath could be noticed first, and make another close code of it.

use tokio::sync::watch;

/// How a bridge is told to end. Each value includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shutdown {
    /// Not yet.
    Run,
    /// Stop accepting: no connection becomes a session any more. A limit of the configuration that has
    /// run out means the same.
    NoMore,
    /// Close the held clients too (1011), and let the sessions come to their end.
    Drain,
    /// Close every session (1001).
    Now,
}

/// One connection's view of how its bridge is told to end.
#[derive(Debug, Clone)]
pub(crate) struct ShutdownWatch(pub(crate) watch::Receiver<Shutdown>);

impl ShutdownWatch {
    /// Whether the bridge is told to end in this way, or in one that includes it.
    pub(crate) fn has_reached(&self, shutdown: Shutdown) -> bool {
        *self.0.borrow() >= shutdown
    }

    /// Waits until it is. When nobody is left to tell it, it is told everything.
    pub(crate) async fn at_least(&mut self, shutdown: Shutdown) {
        let _ = self.0.wait_for(|told| *told >= shutdown).await;
    }
}
