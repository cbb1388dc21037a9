//! An unseen process: one of the instance that we may not look into, as it runs as another user or has made itself
//! undumpable (ptrace(2)), and we are not privileged. Its calls are left to the kernel. Most of them do not concern our
//! ports, so the log says this only of a program that does not listen.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use nix::unistd::Pid;
use tracing::debug;

/// The first such process of the instance, and why we may not. It is shared: the thread that answers notes it.
#[derive(Debug, Clone, Default)]
pub(super) struct Unseen(Arc<Mutex<Option<String>>>);

impl Unseen {
    /// As the old binary of a hand-over has noted it.
    pub(super) fn of(first: Option<String>) -> Self {
        Self(Arc::new(Mutex::new(first)))
    }

    pub(super) fn note(&self, thread: Pid, error: &io::Error) {
        let line = format!(
            "cannot look into process {thread}, so its port is not moved: {}",
            bridge::error_text(error)
        );
        debug!("{line}");
        self.with(|first| _ = first.get_or_insert(line));
    }

    pub(super) fn forget(&self) {
        self.with(|first| *first = None);
    }

    pub(super) fn first(&self) -> Option<String> {
        self.with(|first| first.clone())
    }

    fn with<T>(&self, deed: impl FnOnce(&mut Option<String>) -> T) -> T {
        deed(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
