//! Work that may block, as reading files does, each in a thread of its own. tokio's `spawn_blocking` panics where no thread
//! can be started; here that is an error. For what SIGHUP and failures ask for, not for what clients do. Knows nothing of
//! the work.

use std::thread;

use anyhow::{Context, Result};
use tokio::sync::oneshot::{self, Receiver};

/// Begins the work. The receiver gets what it gives, or nothing if the work panics.
///
/// # Errors
///
/// No thread can be started. Then the work was dropped.
pub(crate) fn begin<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<Receiver<T>> {
    let (done, result) = oneshot::channel();
    let work = move || {
        // Whoever waited may have gone.
        let _ = done.send(work());
    };
    thread::Builder::new().name("blocking".into()).spawn(work).context("cannot start a thread")?;
    Ok(result)
}

/// What the work gives.
///
/// # Errors
///
/// As [`begin`]; or the work has panicked.
pub(crate) async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    begin(work)?.await.context("a thread has panicked")
}
