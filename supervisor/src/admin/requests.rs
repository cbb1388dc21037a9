//! What a request at the admin address asks of the main loop, and the channel to it.

use std::future::pending;
use std::sync::Arc;

use tokio::sync::Notify;

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MainLoopRequest {
    /// To take no more clients, and to end.
    Drain,
    /// To look whether the program listens.
    Look,
}

/// The main loop's end of the channel. Without `--admin` nothing ever comes.
#[derive(Debug, Default)]
pub(crate) struct MainLoopRequests(Option<Arc<Wanted>>);

/// The administration's end of the channel.
#[derive(Debug)]
pub(super) struct Sender(Arc<Wanted>);

/// A flag for each kind of request: two requests of one kind that the main loop has not taken yet count as one.
#[derive(Debug, Default)]
struct Wanted {
    drain: Notify,
    look: Notify,
}

pub(super) fn channel() -> (Sender, MainLoopRequests) {
    let wanted = Arc::new(Wanted::default());
    (Sender(Arc::clone(&wanted)), MainLoopRequests(Some(wanted)))
}

impl Sender {
    pub(super) fn send(&self, request: MainLoopRequest) {
        let wanted = match request {
            MainLoopRequest::Drain => &self.0.drain,
            MainLoopRequest::Look => &self.0.look,
        };
        wanted.notify_one();
    }
}

impl MainLoopRequests {
    /// The next request. Cancel-safe.
    pub(crate) async fn next(&self) -> MainLoopRequest {
        let Some(wanted) = &self.0 else { return pending().await };
        tokio::select! {
            biased;
            () = wanted.drain.notified() => MainLoopRequest::Drain,
            () = wanted.look.notified() => MainLoopRequest::Look,
        }
    }

    /// Waits until somebody wants a drain. Cancel-safe.
    pub(crate) async fn drain(&self) {
        while self.next().await != MainLoopRequest::Drain {}
    }
}
