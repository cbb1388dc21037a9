//! Turns of the sessions that carry bulk: small messages must not wait behind all of them.
//!
//! A worker of the runtime goes through what is ready in order. Ten downloads are always ready, and
//! whoever has a few bytes to pass on would wait for ten buffers, there and back. So a session that has
//! moved a buffer queues here, and goes on when it is its turn and nobody else was ready meanwhile.

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
                // Over, be it that the pump must wait for bytes.
                turn = None;
                stop
            });
            match stop.await {
                Stop::Ended(end) => return end,
                Stop::TurnOver => {
                    turn = match self.0.try_acquire() {
                        Ok(turn) => Some(turn),
                        // Boxed: most sessions never wait for one.
                        Err(_) => Box::pin(self.0.acquire()).await.ok(),
                    };
                    // The worker asks the kernel who else is ready before it comes back here.
                    yield_now().await;
                }
            }
        }
    }
}
