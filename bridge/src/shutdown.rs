//! How a bridge is told to end, as its connections see it.
//!
//! Each connection watches what the supervisor says, and does not hear it from the accept loop: a target
//! that is stopped in the same breath could be noticed first, and make another close code of it.

use std::sync::Arc;

use tokio::sync::watch;

use crate::pause::Pause;

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
pub(crate) struct ShutdownWatch {
    told: watch::Receiver<Shutdown>,
    /// Whether it stands still, which the same channel wakes for.
    pub(crate) pause: Arc<Pause>,
}

/// What a session is told while it moves bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// To end, [now](Shutdown::Now).
    Shutdown,
    /// To stand still.
    Still,
}

impl ShutdownWatch {
    pub(crate) fn new(told: watch::Receiver<Shutdown>, pause: Arc<Pause>) -> Self {
        Self { told, pause }
    }

    /// Waits until a session is to stand still, or to end if it was not told that before. Cancel-safe.
    pub(crate) async fn told(&mut self, knows_end: bool) -> Told {
        let told = self.until(|told, pause| {
            if !knows_end && told >= Shutdown::Now {
                return Some(Told::Shutdown);
            }
            pause.is_still().then_some(Told::Still)
        });
        match told.await {
            None if knows_end => std::future::pending().await,
            told => told.unwrap_or(Told::Shutdown),
        }
    }

    /// Waits until it is to stand still. Cancel-safe.
    pub(crate) async fn still(&mut self) {
        let still = self.until(|_, pause| pause.is_still().then_some(()));
        if still.await.is_none() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until all [have gone on](Pause::has_gone_on) since they stood still, if they did.
    pub(crate) async fn goes_on(&mut self, stood: Option<u64>) {
        let Some(goings) = stood else { return };
        self.until(|_, pause| pause.has_gone_on(goings).then_some(())).await;
    }

    /// Waits for something that is said here. None: nobody is left to say it. Smaller than [`watch::Receiver::wait_for`], as each
    /// session is in one of these all the time.
    async fn until<T>(&mut self, mut is: impl FnMut(Shutdown, &Pause) -> Option<T>) -> Option<T> {
        loop {
            let told = *self.told.borrow_and_update();
            if let Some(is) = is(told, &self.pause) {
                return Some(is);
            }
            self.told.changed().await.ok()?;
        }
    }

    /// Whether the bridge is told to end in this way, or in one that includes it.
    pub(crate) fn has_reached(&self, shutdown: Shutdown) -> bool {
        *self.told.borrow() >= shutdown
    }

    /// Whether whoever has connected may still ask, and be answered.
    pub(crate) fn is_draining(&self) -> bool {
        *self.told.borrow() == Shutdown::Drain
    }

    /// Waits until whoever has no session is not to be answered any more. That is at once, but in a drain, which
    /// refuses nobody without a word.
    pub(crate) async fn turned_away(&mut self) {
        let _ = self.told.wait_for(|told| !matches!(told, Shutdown::Run | Shutdown::Drain)).await;
    }

    /// Waits until it is. When nobody is left to tell it, it is told everything.
    pub(crate) async fn at_least(&mut self, shutdown: Shutdown) {
        let _ = self.told.wait_for(|told| *told >= shutdown).await;
    }
}
