//! How a bridge is told to end, as one connection hears it.
//!
//! It hears it from who says it, not by way of the accept loop: a target that is stopped in the same
//! breath could be heard first, and make another close code of it.

use tokio::sync::watch;

/// How a bridge is told to end. Each order includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shutdown {
    /// Not yet.
    Run,
    /// Stop accepting: no connection becomes a session any more. A limit of the configuration that has
    /// run out orders the same.
    NoMore,
    /// Close the held clients too (1011), and let the sessions come to their end.
    Drain,
    /// Close every session (1001).
    Now,
}

/// One connection's view of the orders.
#[derive(Debug, Clone)]
pub(crate) struct Orders(pub(crate) watch::Receiver<Shutdown>);

impl Orders {
    /// Whether `order` or a stronger one is given by now.
    pub(crate) fn given(&self, order: Shutdown) -> bool {
        *self.0.borrow() >= order
    }

    /// Waits until `order` or a stronger one is given. When nobody is left to give one, all are.
    pub(crate) async fn at_least(&mut self, order: Shutdown) {
        let _ = self.0.wait_for(|given| *given >= order).await;
    }
}
