//! The start of the runtime, tokio. Where the system gives it no thread for a worker, tokio panics, and on the way out waits
//! for the workers that it has already started, which never end. So it is built on a thread of its own, which is left
//! behind then. Knows nothing of what is done in the runtime.

use std::io;
use std::panic;
use std::sync::mpsc;
use std::thread;

use anyhow::{Context, Error, Result, anyhow};
use tokio::runtime::{Builder, Runtime};

/// Starts it, with as many workers as there are processors.
///
/// # Errors
///
/// There is no thread for it or for a worker, or no descriptor. Then nothing is left to do but to end the process.
pub(crate) fn start() -> Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    // Sessions in the order in which they became ready; see .cargo/config.toml.
    #[cfg(tokio_unstable)]
    builder.disable_lifo_slot();
    builder.enable_all();
    outlive_panics(move || Ok(builder.build()?)).context("cannot start the runtime")
}

/// Runs this on a thread of its own. If it panics, the message is the error, and is not printed.
fn outlive_panics<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let (done, outcome) = mpsc::channel();
    let panicked = done.clone();
    let hook = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        let text = panic.payload().downcast_ref().map_or("it panicked", String::as_str);
        let _ = panicked.send(Err(reason(text)));
    }));
    let worker = thread::Builder::new().spawn(move || done.send(work()));
    let outcome = match worker {
        Ok(worker) => outcome.recv().map_err(Error::from).flatten().inspect(|_| {
            let _ = worker.join();
        }),
        Err(error) => Err(error.into()),
    };
    panic::set_hook(hook);
    outcome
}

/// Tokio's words end with the system's: `OS can't spawn worker thread: ... (os error 11)`.
fn reason(text: &str) -> Error {
    let number = || text.rsplit_once("(os error ")?.1.strip_suffix(')')?.parse().ok();
    number().map_or_else(|| anyhow!("{text}"), |number| io::Error::from_raw_os_error(number).into())
}
