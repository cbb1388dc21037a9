//! What the accept loop tells its connections.

use tokio::sync::watch;

/// Each order includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Order {
    /// Nothing.
    Run,
    /// No connection becomes a session any more.
    NoMore,
    /// Clients that are held for a program are closed.
    Drain,
    /// Every session is closed.
    Now,
}

/// One connection's view of the orders.
#[derive(Debug, Clone)]
pub(crate) struct Orders(pub(crate) watch::Receiver<Order>);

impl Orders {
    /// Waits until `order` or a stronger one is given. An accept loop that is gone counts as all.
    pub(crate) async fn at_least(&mut self, order: Order) {
        let _ = self.0.wait_for(|given| *given >= order).await;
    }
}
