//! What the machine gives us, and what is ours on it.

pub(crate) mod daemon;
pub(crate) mod directories;
pub(crate) mod pid_file;
pub(crate) mod ports;
pub(crate) mod private;
pub(crate) mod progress;
pub(crate) mod search_path;
pub(crate) mod signals;
pub(crate) mod systemd;
pub(crate) mod trusted;

use std::sync::Arc;

use bridge::Private;

use crate::certificates::Certificates;
use crate::exit::Failure;
use crate::log::{self, Log};
use progress::Progress;
use signals::Signals;

/// What belongs to us as a process, whatever we bridge to.
pub(crate) struct Host<'a> {
    pub(crate) signals: Signals,
    pub(crate) progress: &'a mut Progress,
    pub(crate) log: &'a Log,
    pub(crate) certificates: Certificates,
    /// Our own files, that nobody is served.
    pub(crate) private: Arc<Private>,
    /// The limit on open files that we were started with, soft and hard.
    pub(crate) open_files: (u64, u64),
}

impl Host<'_> {
    /// SIGHUP: opens anew what may have been replaced.
    pub(crate) fn reload(&mut self) {
        self.certificates.reload();
        if let log::Destination::File(file) = &self.log.destination
            && let Err(failure) = file.reopen()
        {
            tracing::warn!("{}", Failure::from(failure).reason);
        }
        // What was opened just now goes on being ours when it is moved away.
        self.private.look();
    }
}
