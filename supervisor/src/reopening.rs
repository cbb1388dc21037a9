//! What SIGHUP does to our own files: the log file is opened again, and the private files are looked at. Either may hang,
//! as on a network file system whose server does not answer, so threads do it that may block, and neither waits for the
//! other. Knows nothing of what the files are.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use bridge::{Private, blocking};
use tokio::time::sleep;
use tracing::warn;

use crate::exit::Failure;
use crate::log::LogFile;
use crate::reread::Reread;

/// After which time the log file is opened again if no thread could be started for that.
const NEXT_TRY: Duration = Duration::from_secs(1);

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
            let reopened = reopen(log).await.context("cannot open the log file again");
            if let Err(failure) = reopened {
                warn!("{}", Failure::from(failure).reason);
            }
            // So does the new log file.
            look(&turns, private);
        });
    }
}

/// Where no thread can be started for it, this is tried again: until then all lines go to the file that was moved away.
async fn reopen(log: LogFile) -> Result<()> {
    loop {
        let log = log.clone();
        match blocking::begin(move || log.reopen()) {
            Ok(reopened) => return reopened.await.context("a thread has panicked")?,
            Err(_) => sleep(NEXT_TRY).await,
        }
    }
}

fn look(turns: &Reread, private: Arc<Private>) {
    turns.begin_work(async move {
        let looked = blocking::run(move || private.look()).await;
        if let Err(failure) = looked.context("cannot look at the files that are never served") {
            warn!("{}", Failure::from(failure).reason);
        }
    });
}
