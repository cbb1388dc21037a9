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
    /// Another takes our place: whoever has connected, and asks for a session, is answered 503; held clients
    /// are told to come again (1012); the sessions come to their end. Of a listening socket that is ours alone
    /// nobody is left in the queue.
    Drain,
    /// The same, when those who had connected have had their time to ask: the bridge's own word.
    Late,
    /// The program has ended: close the held clients (1011), and let the sessions come to their end.
    Finish,
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

    /// Whether whoever has connected may still ask, and be answered.
    pub(crate) fn is_draining(&self) -> bool {
        *self.0.borrow() == Shutdown::Drain
    }

    /// Waits until whoever has no session is not to be answered any more. That is at once, but in a drain, which
    /// refuses nobody without a word.
    pub(crate) async fn turned_away(&mut self) {
        let _ = self.0.wait_for(|told| !matches!(told, Shutdown::Run | Shutdown::Drain)).await;
    }

    /// Waits until it is. When nobody is left to tell it, it is told everything.
    pub(crate) async fn at_least(&mut self, shutdown: Shutdown) {
        let _ = self.0.wait_for(|told| *told >= shutdown).await;
    }
}
