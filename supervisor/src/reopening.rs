//! What SIGHUP does to our own files: the log file is opened again, and the private files are looked at. Either may hang,
//! as on a network file system whose server does not answer, so threads do it that may block, and neither waits for the
//! other. Knows nothing of what the files are.

use std::sync::Arc;

use bridge::Private;
use tokio::task::spawn_blocking;
use tracing::warn;

use crate::exit::Failure;
use crate::log::LogFile;
use crate::reread::Reread;

/// How far that is.
#[derive(Debug, Default)]
pub(crate) struct Reopening {
    log: Reread,
    private: Reread,
}

impl Reopening {
    /// Begins both. Needs a runtime.
    pub(crate) fn begin(&self, log: Option<&LogFile>, private: &Arc<Private>) {
        // The files that are read just now stay private when they are moved away.
        look(&self.private, Arc::clone(private));
        let Some(log) = log.cloned() else { return };
        let (turns, private) = (self.private.clone(), Arc::clone(private));
        self.log.begin_work(async move {
            if let Ok(Err(failure)) = spawn_blocking(move || log.reopen()).await {
                warn!("{}", Failure::from(failure).reason);
            }
            // So does the new log file.
            look(&turns, private);
        });
    }
}

fn look(turns: &Reread, private: Arc<Private>) {
    turns.begin_work(async move {
        // It fails only where the runtime ends.
        let _ = spawn_blocking(move || private.look()).await;
    });
}
