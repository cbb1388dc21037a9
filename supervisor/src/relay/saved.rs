//! The bridge on its way to another image of this program (O2), but for what it knows of itself.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use anyhow::Result;
use bridge::{Descriptors, Frozen, Outcome, Shutdown};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::host::public::{SavedFile, SocketFile};

/// An open relay.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SavedRelay {
    pub(crate) file: Option<SavedFile>,
}

impl SavedRelay {
    pub(super) fn of(file: Option<&SocketFile>) -> Self {
        Self { file: file.map(SocketFile::save) }
    }

    /// The descriptors that it names.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = RawFd> + use<> {
        self.file.as_ref().map(SavedFile::descriptors).into_iter().flatten()
    }
}

/// Has a bridge go on that stands still. Needs a runtime.
///
/// # Errors
///
/// What it has left cannot be used. Whether it can the bridge says at once.
pub(super) fn resume(
    (frozen, mut descriptors): (Frozen, Descriptors),
    config: Arc<bridge::Config>,
    shutdown: watch::Sender<Shutdown>,
) -> Result<JoinHandle<Result<Outcome, bridge::Error>>> {
    let mut serving =
        Box::pin(async move { bridge::resume(frozen, &mut descriptors, config, shutdown).await });
    match serving.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Err(error)) => Err(error.into()),
        Poll::Ready(ended) => Ok(tokio::spawn(async { ended })),
        // Polled again there, it is woken by what it waits for.
        Poll::Pending => Ok(tokio::spawn(serving)),
    }
}
