//! Tokens in a file of lines, or in the files of a directory (K2).
//!
//! What counts is what stands there at the moment of each look-up; a file is read again only when it has
//! changed. That blocks, so it is done in a thread that may; one look-up at a time, so that a file system that
//! hangs has one thread. A token is unknown only if it was not there when all was at rest: whoever writes a file
//! anew may have removed it for a moment, or have written half of it.

pub(crate) mod line;
mod table;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::failure::SourceError;
use super::token::TokenPlace;
use crate::destination::Endpoint;
use table::{Seen, Stamp, Table, settles_in};

/// How often a file that is being written is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// A file of tokens, or a directory of such files.
#[derive(Debug)]
pub(super) struct TokenFile(Arc<Mutex<Files>>);

/// When files are read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rereads {
    WhenChanged,
    Never,
}

#[derive(Debug)]
struct Files {
    path: PathBuf,
    place: TokenPlace,
    rereads: Rereads,
    is_read: bool,
    /// The directory, if it is one.
    directory: Option<Seen>,
    tables: BTreeMap<PathBuf, Table>,
    /// Since when something that was there, or should be, is missing.
    missing: Option<Instant>,
    /// Why a file of it was not read.
    failure: Option<SourceError>,
}

/// What a look-up finds.
enum Found {
    Target(Endpoint),
    Nothing,
    /// Nothing, but something may be about to be written.
    Changing,
}

impl TokenFile {
    pub(super) fn new(path: PathBuf, place: TokenPlace, rereads: Rereads) -> Self {
        Self(Arc::new(Mutex::new(Files {
            path,
            place,
            rereads,
            is_read: false,
            directory: None,
            tables: BTreeMap::new(),
            missing: None,
            failure: None,
        })))
    }

    /// Reads it.
    pub(super) async fn prepare(&self) -> Result<(), SourceError> {
        let mut files = Arc::clone(&self.0).lock_owned().await;
        let read = move || {
            files.refresh();
            files.failure.take().map_or(Ok(()), Err)
        };
        spawn_blocking(read).await.unwrap_or(Err(SourceError::Failed))
    }

    pub(super) async fn look_up(&self, token: &str) -> Result<Option<Endpoint>, SourceError> {
        loop {
            let mut files = Arc::clone(&self.0).lock_owned().await;
            let token = token.to_owned();
            // The thread holds the lock until the file system answers, whether the client still waits or not.
            let found = spawn_blocking(move || files.look_up(&token)).await;
            match found.unwrap_or(Err(SourceError::Failed))? {
                Found::Target(endpoint) => return Ok(Some(endpoint)),
                Found::Nothing => return Ok(None),
                Found::Changing => sleep(LOOK).await,
            }
        }
    }
}

impl Files {
    fn look_up(&mut self, token: &str) -> Result<Found, SourceError> {
        if self.rereads == Rereads::WhenChanged || !self.is_read {
            self.refresh();
        }
        // The last one counts, as within a file.
        let found = self.tables.values().rev().find_map(|table| table.target(token));
        if let Some(endpoint) = found {
            return Ok(Found::Target(endpoint.clone()));
        }
        if !self.settles_in().is_zero() {
            return Ok(Found::Changing);
        }
        self.failure.take().map_or(Ok(Found::Nothing), Err)
    }

    /// For how long what is not found may be still to come.
    fn settles_in(&self) -> Duration {
        let tables = self.tables.values().map(|table| table.seen);
        let seen = tables.chain(self.directory).map(|seen| seen.settles_in());
        seen.chain(self.missing.map(settles_in)).max().unwrap_or_default()
    }

    /// Reads what has changed.
    fn refresh(&mut self) {
        self.failure = None;
        let listed = self.list();
        let mut before = std::mem::take(&mut self.tables);
        let (paths, mut is_missing) = match listed {
            Ok(paths) => (paths, false),
            Err(error) => {
                let is_missing = error.kind() == ErrorKind::NotFound;
                self.failure = Some(SourceError::Read(self.path.clone(), error));
                (Vec::new(), is_missing)
            }
        };
        for (path, stamp) in paths {
            let old = before.remove(&path);
            let table = match old {
                Some(table) if table.is_of(&stamp) => Ok(table),
                old => Table::read(&path, self.place, old.as_ref()),
            };
            match table {
                Ok(mut table) => {
                    table.complain(&path);
                    self.tables.insert(path, table);
                }
                Err(SourceError::Read(_, error)) if error.kind() == ErrorKind::NotFound => {
                    is_missing = true;
                }
                Err(failure) => self.failure = Some(failure),
            }
        }
        self.missing = is_missing.then(|| self.missing.unwrap_or_else(Instant::now));
        self.is_read = self.failure.is_none() && !is_missing;
    }

    /// The files that there are now, in the order of their names. Names that begin with a dot are those of
    /// editors and of other programs.
    fn list(&mut self) -> io::Result<Vec<(PathBuf, Stamp)>> {
        let metadata = fs::metadata(&self.path)?;
        if !metadata.is_dir() {
            self.directory = None;
            if !metadata.is_file() {
                return Err(io::Error::other("it is neither a file nor a directory"));
            }
            return Ok(vec![(self.path.clone(), Stamp::of(&metadata))]);
        }
        self.directory = Some(Seen::new(Stamp::of(&metadata), self.directory));
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let path = entry?.path();
            if is_hidden(&path) {
                continue;
            }
            // One that is gone since was removed, or is a link to nothing.
            match fs::metadata(&path) {
                Ok(file) if file.is_file() => files.push((path, Stamp::of(&file))),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        files.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        Ok(files)
    }
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

#[cfg(test)]
mod tests;
