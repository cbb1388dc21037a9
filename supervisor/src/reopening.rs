//! What SIGHUP does to our own files: the log file is opened again, and the private files are looked at. Either may hang,
//! as on a network file system whose server does not answer, so threads do it that may block, and neither waits for the
//! other. Knows nothing of what the files are.

use std::sync::Arc;

use anyhow::Context;
use bridge::Private;
use tracing::warn;

use crate::blocking;
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
            let reopened = blocking::run(move || log.reopen()).await;
            let reopened = reopened.context("cannot open the log file again").flatten();
            if let Err(failure) = reopened {
                warn!("{}", Failure::from(failure).reason);
            }
            // So does the new log file.
            look(&turns, private);
        });
    }
}

fn look(turns: &Reread, private: Arc<Private>) {
    turns.begin_work(async move {
        if let Err(failure) = blocking::run(move || private.look()).await {
            let failure = failure.context("cannot look at the files that are never served");
            warn!("{}", Failure::from(failure).reason);
        }
    });
}
