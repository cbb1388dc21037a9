//! How a bridge is stopped between two bytes, so that another image of this program goes on with it (O2): what it is told
//! by, and what it says of itself. Sockets are named by their descriptors, which exec(2) keeps.
//!
//! - `state` is what it says of itself,
//! - `rest` are sessions that cannot go along.
//!
//! How its tasks come to stand still is in [`pause`](crate::pause), and the order of it all in `listen`. Must not know how images
//! are changed, nor how the state is written.

mod rest;
mod state;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, timeout};

use crate::saved::Invalid;
pub use rest::Rest;
pub use state::BridgeState;

/// By which a bridge is asked to stand still, that was [told of it](crate::Orders); copies ask the same bridge.
#[derive(Debug, Clone)]
pub struct HandOver {
    requests: mpsc::Sender<Request>,
    heard: Arc<Mutex<Option<mpsc::Receiver<Request>>>>,
    /// Rung when one that was resumed may move bytes.
    released: Arc<Notify>,
}

/// That it should.
#[derive(Debug)]
pub(crate) struct Request {
    /// By when at the latest.
    pub(crate) until: Instant,
    pub(crate) answer: oneshot::Sender<Result<Frozen, NotFrozen>>,
}

/// Why a bridge does not stand still. It goes on as before.
#[derive(Debug, thiserror::Error)]
pub enum NotFrozen {
    /// There is none, or it comes to its end.
    #[error("the bridge is ending")]
    Ended,
    /// Something of it did not stop in time.
    #[error("{0} did not stop in time")]
    Busy(&'static str),
    /// What it says of itself is such that nobody could go on with it.
    #[error("the bridge's own state is not fit: {0}")]
    Unfit(Invalid),
}

/// A bridge that stands still. Dropped, it goes on, as if nothing had been.
#[derive(Debug)]
pub struct Frozen {
    /// What another image goes on with.
    pub state: BridgeState,
    /// The bytes that the state speaks of, which were read and not written yet.
    pub bytes: Vec<u8>,
    /// Those that cannot go along, and go on in a process of their own.
    pub rest: Rest,
    /// Dropped when it is to go on.
    _goes_on: Option<oneshot::Sender<()>>,
}

/// How long a bridge may take to say that it did not stop in time.
const SLACK: Duration = Duration::from_secs(1);

impl Default for HandOver {
    fn default() -> Self {
        let (requests, heard) = mpsc::channel(1);
        Self { requests, heard: Arc::new(Mutex::new(Some(heard))), released: Arc::default() }
    }
}

impl HandOver {
    /// Stops the bridge, which is done within this time or not at all.
    ///
    /// # Errors
    /// It goes on, and why.
    pub async fn freeze(&self, within: Duration) -> Result<Frozen, NotFrozen> {
        let (answer, answered) = oneshot::channel();
        let request = Request { until: Instant::now() + within, answer };
        self.requests.try_send(request).map_err(|_| NotFrozen::Ended)?;
        // One that has failed before it heard of anything answers nobody.
        let answered = timeout(within + SLACK, answered).await;
        answered.ok().and_then(Result::ok).unwrap_or(Err(NotFrozen::Ended))
    }

    /// Lets a bridge move bytes that was [resumed](crate::resume): from here on no other image can go on in its place.
    pub fn release(&self) {
        self.released.notify_one();
    }

    /// Waits until it may.
    pub(crate) async fn released(&self) {
        self.released.notified().await;
    }

    /// What is asked, for the bridge, which is one.
    pub(crate) fn requests(&self) -> Option<mpsc::Receiver<Request>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Frozen {
    /// As another image has said it.
    pub fn of(state: BridgeState, bytes: Vec<u8>) -> Self {
        Self { state, bytes, rest: Rest::default(), _goes_on: None }
    }

    /// Of a bridge that goes on when the other end of this hears that it was dropped.
    pub(crate) fn new(
        state: BridgeState,
        bytes: Vec<u8>,
        rest: Rest,
    ) -> (Self, oneshot::Receiver<()>) {
        let (goes_on, told) = oneshot::channel();
        (Self { state, bytes, rest, _goes_on: Some(goes_on) }, told)
    }
}
