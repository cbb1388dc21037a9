//! Tokens in a file of lines, or in the files of a directory (K2).
//!
//! - `line` is what a line means,
//! - `table` is one file as it was read, `tables` are all of them,
//! - `files` says when one is read again, and which tokens may be about to be written.
//!
//! A look-up answers by what the files contain at that moment; a file is read again only when it has changed. That blocks, so it
//! is done in a thread that may; one look-up at a time, so that a file system that hangs holds one thread. A client that comes
//! while a file is read again, and whose token was in it when it was read last, does not wait. Knows which look-up waits for
//! which; must not know what files and lines look like.

mod files;
pub(crate) mod line;
mod table;
mod tables;

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::failure::SourceError;
use super::token::TokenPlace;
use crate::destination::Endpoint;
use files::{Files, Found};
use tables::Tables;

/// How often a file that is being written is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// A file of tokens, or a directory of such files.
#[derive(Debug)]
pub(super) struct TokenFile {
    files: Arc<Mutex<Files>>,
    /// The tables of the files as they were read last.
    published: Arc<RwLock<Tables>>,
}

/// When files are read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rereads {
    WhenChanged,
    Never,
}

impl TokenFile {
    pub(super) fn new(path: PathBuf, place: TokenPlace, rereads: Rereads) -> Self {
        let published = Arc::default();
        let files = Files::new(path, place, rereads, Arc::clone(&published));
        Self { files: Arc::new(Mutex::new(files)), published }
    }

    /// Reads the files.
    pub(super) async fn prepare(&self) -> Result<(), SourceError> {
        let mut files = Arc::clone(&self.files).lock_owned().await;
        spawn_blocking(move || files.prepare()).await.unwrap_or(Err(SourceError::Failed))
    }

    pub(super) async fn look_up(&self, token: &str) -> Result<Option<Endpoint>, SourceError> {
        loop {
            let asked = Instant::now();
            let mut files = match Arc::clone(&self.files).try_lock_owned() {
                Ok(files) => files,
                // Another look-up is under way.
                Err(_) => match self.read_last(token) {
                    Some(endpoint) => return Ok(Some(endpoint)),
                    None => Arc::clone(&self.files).lock_owned().await,
                },
            };
            let token = token.to_owned();
            // The thread holds the lock until the file system answers, whether the client still waits or not.
            let found = spawn_blocking(move || files.look_up(&token, asked)).await;
            match found.unwrap_or(Err(SourceError::Failed))? {
                Found::Target(endpoint) => return Ok(Some(endpoint)),
                Found::Nothing => return Ok(None),
                Found::Changing => sleep(LOOK).await,
            }
        }
    }

    fn read_last(&self, token: &str) -> Option<Endpoint> {
        let tables = self.published.read().unwrap_or_else(PoisonError::into_inner);
        tables.target(token).cloned()
    }
}

#[cfg(test)]
mod tests;
