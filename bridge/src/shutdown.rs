//! The order to end, as the connections of a bridge see it.
//!
//! Each connection watches the supervisor's order itself, and does not hear of it from the accept loop: otherwise it
//! might first notice the end of a target that is stopped at the same moment, and send another close code.

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
    /// Another process takes our place: a client that has connected and asks for a session is answered 503; held
    /// clients are told to come again (1012); the sessions come to their end. The accept queue of a listening socket
    /// that only we have open is emptied first.
    Drain,
    /// The same, after clients that had connected have had their time to ask. Only the bridge itself sends this.
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
    /// Whether the bridge stands still. The same channel wakes the task when that changes.
    pub(crate) pause: Arc<Pause>,
}

/// What a session is told while it moves bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// To end, [now](Shutdown::Now).
    Shutdown,
    /// To stand still, for a hand-over.
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

    /// Waits until the bridge is to stand still. Cancel-safe.
    pub(crate) async fn still(&mut self) {
        let still = self.until(|_, pause| pause.is_still().then_some(()));
        if still.await.is_none() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until the pause in which a task stood still [has ended](Pause::has_ended_since). `stood` is what
    /// [`Pause::stand`] has returned; if that is `None`, this does not wait.
    pub(crate) async fn goes_on(&mut self, stood: Option<u64>) {
        let Some(pauses_ended) = stood else { return };
        self.until(|_, pause| pause.has_ended_since(pauses_ended).then_some(())).await;
    }

    /// Waits until `is` returns something. `None`: the sender is dropped. The future is smaller than that of
    /// [`watch::Receiver::wait_for`], since each session is in one of these all the time.
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

    /// Whether the bridge drains, and a client that has connected may still ask and be answered.
    pub(crate) fn is_draining(&self) -> bool {
        *self.told.borrow() == Shutdown::Drain
    }

    /// Waits until connections without a session are not answered any more. That is at once when the bridge is told to
    /// end, except in a drain: there each client may ask first, and is told why it is refused.
    pub(crate) async fn turned_away(&mut self) {
        let _ = self.told.wait_for(|told| !matches!(told, Shutdown::Run | Shutdown::Drain)).await;
    }

    /// Waits until the bridge is told to end in this way, or in one that includes it. If the sender is dropped, this
    /// does not wait.
    pub(crate) async fn at_least(&mut self, shutdown: Shutdown) {
        let _ = self.told.wait_for(|told| *told >= shutdown).await;
    }
}
