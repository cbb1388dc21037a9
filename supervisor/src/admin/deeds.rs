//! What an administrator wants done that is the main loop's to do: on its way there.

use std::future::pending;

use tokio::sync::mpsc;

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deed {
    /// To take no more clients, and to end.
    Drain,
}

/// Where the main loop hears of it.
#[derive(Debug, Default)]
pub(crate) struct Deeds(Option<mpsc::Receiver<Deed>>);

/// The other end.
#[derive(Debug)]
pub(super) struct Sender(mpsc::Sender<Deed>);

/// One is on its way at a time: more than once, none of them means anything else.
pub(super) fn channel() -> (Sender, Deeds) {
    let (sender, receiver) = mpsc::channel(1);
    (Sender(sender), Deeds(Some(receiver)))
}

impl Sender {
    pub(super) fn send(&self, deed: Deed) {
        let _ = self.0.try_send(deed);
    }
}

impl Deeds {
    /// The next one. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Deed {
        let deed = match &mut self.0 {
            Some(deeds) => deeds.recv().await,
            None => None,
        };
        match deed {
            Some(deed) => deed,
            None => pending().await,
        }
    }
}
