//! A process of the instance that we may not look into: it has another user, or has made itself undumpable (ptrace(2)), and
//! we are not privileged. What it asks for is left to the kernel. Most ask for nothing of ours: it is told only of a program that does
//! not listen.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use nix::unistd::Pid;
use tracing::debug;

/// The first of the instance, and why. It is shared: the thread that answers notes it.
#[derive(Debug, Clone, Default)]
pub(super) struct Unseen(Arc<Mutex<Option<String>>>);

impl Unseen {
    /// As another image of us has noted it.
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
