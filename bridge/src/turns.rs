//! Turns of the sessions that carry bulk data, so that small messages do not wait behind all of them.
//!
//! A worker of the runtime polls the tasks that are ready one after the other. Ten downloads are always ready, and a
//! session with a few bytes would wait while ten buffers are moved, on the way there and on the way back. So a session
//! that has read a buffer waits in the queue here. It goes on when it is its turn and the worker has polled the other
//! tasks that were ready. Must not know what the bytes mean.

use std::future::poll_fn;

use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::yield_now;

use crate::pump::{End, Pump, Stop};

/// As many turns at a time as there are workers.
#[derive(Debug)]
pub(crate) struct Turns(Semaphore);

impl Turns {
    /// For the sessions of the current runtime.
    pub(crate) fn new() -> Self {
        Self(Semaphore::new(Handle::current().metrics().num_workers()))
    }

    /// Runs a pump to its end, turn by turn.
    pub(crate) async fn carry(&self, pump: &mut Pump<'_>) -> End {
        let mut turn = None;
        loop {
            let stop = poll_fn(|cx| {
                let stop = pump.poll(cx);
                // The turn ends here, also if the pump must wait for bytes.
                turn = None;
                stop
            });
            match stop.await {
                Stop::Ended(end) => return end,
                Stop::TurnOver => {
                    turn = match self.0.try_acquire() {
                        Ok(turn) => Some(turn),
                        // Boxed, so that the task is small: most sessions never wait for a turn.
                        Err(_) => Box::pin(self.0.acquire()).await.ok(),
                    };
                    // The worker asks the kernel which other tasks are ready before it polls this one again.
                    yield_now().await;
                }
            }
        }
    }
}
