//! The hand-over of a bridge to the new binary (O2): the request that stops the bridge between two bytes, and the state from
//! which the new binary goes on. The state names sockets by their file descriptors, which stay open over exec(2).
//!
//! - `state` is the state of a bridge,
//! - `rest` are the sessions that cannot be handed over.
//!
//! How the tasks of the bridge come to stand still is in [`pause`](crate::pause), and the order of the steps in `listen`. Must
//! not know how the new binary is started, nor how the state is written.

mod rest;
mod state;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, timeout};

use crate::saved::Invalid;
pub use rest::Rest;
pub use state::BridgeState;

/// The handle by which a bridge is asked to stand still. The bridge gets it in its [orders](crate::Orders); clones ask the same
/// bridge.
#[derive(Debug, Clone)]
pub struct HandOver {
    requests: mpsc::Sender<Request>,
    heard: Arc<Mutex<Option<mpsc::Receiver<Request>>>>,
    /// Notified when a resumed bridge may move bytes.
    released: Arc<Notify>,
}

/// A request to stand still.
#[derive(Debug)]
pub(crate) struct Request {
    /// The deadline for that.
    pub(crate) until: Instant,
    pub(crate) answer: oneshot::Sender<Result<Frozen, NotFrozen>>,
}

/// Why a bridge does not stand still. It goes on as before.
#[derive(Debug, thiserror::Error)]
pub enum NotFrozen {
    /// There is no bridge, or it is ending.
    #[error("the bridge is ending")]
    Ended,
    /// A part of the bridge did not stop in time.
    #[error("{0} did not stop in time")]
    Busy(&'static str),
    /// The bridge has saved a state from which the new binary could not go on.
    #[error("the bridge's own state is not fit: {0}")]
    Unfit(Invalid),
}

/// A bridge that stands still. When this is dropped, the bridge goes on as if nothing had happened.
#[derive(Debug)]
pub struct Frozen {
    /// The state from which the new binary goes on.
    pub state: BridgeState,
    /// The bytes that the state refers to: they were read and not written yet.
    pub bytes: Vec<u8>,
    /// The sessions that cannot be handed over, and go on in a forked copy of this process.
    pub rest: Rest,
    /// Dropping it lets the bridge go on.
    _goes_on: Option<oneshot::Sender<()>>,
}

/// How long after the deadline a bridge may still answer that it did not stop in time.
const SLACK: Duration = Duration::from_secs(1);

impl Default for HandOver {
    fn default() -> Self {
        let (requests, heard) = mpsc::channel(1);
        Self { requests, heard: Arc::new(Mutex::new(Some(heard))), released: Arc::default() }
    }
}

impl HandOver {
    /// Stops the bridge, within this time or not at all.
    ///
    /// # Errors
    /// Why the bridge did not stop. It goes on as before.
    pub async fn freeze(&self, within: Duration) -> Result<Frozen, NotFrozen> {
        let (answer, answered) = oneshot::channel();
        let request = Request { until: Instant::now() + within, answer };
        self.requests.try_send(request).map_err(|_| NotFrozen::Ended)?;
        // A bridge that failed before it received the request never answers.
        let answered = timeout(within + SLACK, answered).await;
        answered.ok().and_then(Result::ok).unwrap_or(Err(NotFrozen::Ended))
    }

    /// Lets a [resumed](crate::resume) bridge move bytes. From here on the old binary can no longer go on in its place.
    pub fn release(&self) {
        self.released.notify_one();
    }

    /// Waits until the bridge is released.
    pub(crate) async fn released(&self) {
        self.released.notified().await;
    }

    /// The receiver of the requests, for the bridge. The first call gets it: only one bridge may have it.
    pub(crate) fn requests(&self) -> Option<mpsc::Receiver<Request>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Frozen {
    /// A bridge as the old binary has saved it.
    pub fn of(state: BridgeState, bytes: Vec<u8>) -> Self {
        Self { state, bytes, rest: Rest::default(), _goes_on: None }
    }

    /// A bridge that stands still, and the receiver by which the bridge learns that this was dropped: it goes on then.
    pub(crate) fn new(
        state: BridgeState,
        bytes: Vec<u8>,
        rest: Rest,
    ) -> (Self, oneshot::Receiver<()>) {
        let (goes_on, told) = oneshot::channel();
        (Self { state, bytes, rest, _goes_on: Some(goes_on) }, told)
    }
}
