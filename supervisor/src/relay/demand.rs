//! Whether anybody is there for the program (O5). Knows the bridge's count of sessions, and what was told of it.

use std::future::pending;

use tokio::sync::watch;

/// What is known of who is there.
#[derive(Debug)]
pub(super) struct Demand {
    sessions: watch::Receiver<usize>,
    is_wanted: bool,
}

impl Demand {
    /// And what the bridge counts with.
    pub(super) fn new() -> (bridge::Demand, Self) {
        let (count, sessions) = bridge::Demand::new();
        (count, Self { sessions, is_wanted: false })
    }

    /// Whether somebody is there, if that is not what was told last.
    pub(super) fn news(&mut self) -> Option<bool> {
        let is_wanted = *self.sessions.borrow_and_update() > 0;
        let was_wanted = std::mem::replace(&mut self.is_wanted, is_wanted);
        (is_wanted != was_wanted).then_some(is_wanted)
    }

    /// The same, waited for. Cancel-safe.
    pub(super) async fn changed(&mut self) -> bool {
        loop {
            if let Some(is_wanted) = self.news() {
                return is_wanted;
            }
            if self.sessions.changed().await.is_err() {
                pending::<()>().await;
            }
        }
    }
}
