//! Work that may block, as reading files does, each in a thread of its own. tokio's `spawn_blocking` panics where no thread
//! can be started; here that is an error. For work of the whole process; what is done for one client may end by a panic with
//! that client's session. Knows nothing of the work.

use std::{io, thread};

use tokio::sync::oneshot::{self, Receiver};

use crate::error_text::error_text;

/// Begins the work. The receiver gets what it gives, or nothing if the work panics.
///
/// # Errors
///
/// No thread can be started (pthread_create(3)). Then the work was dropped.
pub fn begin<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<Receiver<T>> {
    let (done, result) = oneshot::channel();
    let work = move || {
        // Whoever waited may have gone.
        let _ = done.send(work());
    };
    let started = thread::Builder::new().name("blocking".into()).spawn(work);
    let failed = |error: io::Error| {
        io::Error::new(error.kind(), format!("cannot start a thread: {}", error_text(&error)))
    };
    started.map_err(failed).map(|_| result)
}

/// What the work gives.
///
/// # Errors
///
/// As [`begin`]; or the work has panicked.
pub async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    begin(work)?.await.map_err(|_| io::Error::other("a thread has panicked"))
}
