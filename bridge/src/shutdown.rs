//! How a bridge is told to end, as its connections see it.
//!
//! Each connection watches what the supervisor says, and does not hear it from the accept loop: a target
//! that is stopped in the same breath could be noticed first, and make another close code of it.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

/// How long a connection that was accepted before a [drain](Shutdown::Drain) may take to ask for what it is
/// refused.
const LATE: Duration = Duration::from_secs(5);

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

    /// Waits until whoever has no session is not to be answered any more. That is at once, but in a drain, which
    /// refuses nobody without a word.
    pub(crate) async fn turned_away(&mut self) {
        self.at_least(Shutdown::NoMore).await;
        if !self.has_reached(Shutdown::Finish) && self.has_reached(Shutdown::Drain) {
            let _ = timeout(LATE, self.at_least(Shutdown::Finish)).await;
        }
    }

    /// Waits until it is. When nobody is left to tell it, it is told everything.
    pub(crate) async fn at_least(&mut self, shutdown: Shutdown) {
        let _ = self.0.wait_for(|told| *told >= shutdown).await;
    }
}
