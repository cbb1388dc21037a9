//! The files of tokens as they were read last, and as they were when none of them had changed for a while ("at rest"): a program
//! that writes a file anew may have removed a token for a moment, or have written half of the file. Knows when to read; must not
//! know which look-up waits. Blocks.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use super::super::failure::SourceError;
use super::super::token::TokenPlace;
use super::Rereads;
use super::table::{SETTLING, Seen, Stamp, Table, settles_in};
use super::tables::Tables;
use crate::destination::Endpoint;
use crate::opened::is_absence;

/// How long files may go on changing until less than [`SETTLING`] without a change counts as rest: since they were last at rest
/// (`UNREST`), or since the first look if they never were (`FIRST_UNREST`).
const UNREST: Duration = Duration::from_secs(60);
const FIRST_UNREST: Duration = Duration::from_secs(5);
const BRIEF_REST: Duration = Duration::from_millis(500);

/// The files.
#[derive(Debug)]
pub(super) struct Files {
    path: PathBuf,
    place: TokenPlace,
    rereads: Rereads,
    is_read: bool,
    /// When the last reading began.
    began: Option<Instant>,
    /// The directory, if `path` is one.
    directory: Option<Seen>,
    tables: Tables,
    /// The tables for look-ups that cannot wait until a file has been read again.
    published: Arc<RwLock<Tables>>,
    /// The tables when all files were last at rest; none: they never were.
    at_rest: Option<Tables>,
    /// Since when the files are not at rest.
    unrest: Option<Instant>,
    /// Since when `path`, or a file that was listed, is missing.
    missing: Option<Instant>,
    /// Why a file was not read.
    failure: Option<SourceError>,
}

/// What a look-up finds.
pub(super) enum Found {
    Target(Endpoint),
    Nothing,
    /// The token is not there, but may be about to be written.
    Changing,
}

impl Files {
    pub(super) fn new(
        path: PathBuf,
        place: TokenPlace,
        rereads: Rereads,
        published: Arc<RwLock<Tables>>,
    ) -> Self {
        Self {
            path,
            place,
            rereads,
            is_read: false,
            began: None,
            directory: None,
            tables: Tables::default(),
            published,
            at_rest: None,
            unrest: None,
            missing: None,
            failure: None,
        }
    }

    /// Reads all files.
    pub(super) fn prepare(&mut self) -> Result<(), SourceError> {
        self.refresh();
        self.failure.take().map_or(Ok(()), Err)
    }

    /// Where a token leads by what the files contained at the time `asked`, or after it.
    pub(super) fn look_up(&mut self, token: &str, asked: Instant) -> Result<Found, SourceError> {
        let is_fresh = match self.rereads {
            // Of many look-ups that have waited for one reading, only one has to read.
            Rereads::WhenChanged => self.began.is_some_and(|began| began >= asked),
            Rereads::Never => self.is_read,
        };
        if !is_fresh {
            self.refresh();
        }
        if let Some(endpoint) = self.tables.target(token) {
            return Ok(Found::Target(endpoint.clone()));
        }
        if self.may_come(token) {
            return Ok(Found::Changing);
        }
        // The files may have come to rest since they were read, so that their unreadable lines are to be logged.
        self.tables.complain(self.rereads);
        match &self.failure {
            Some(failure) => Err(failure.again()),
            None => Ok(Found::Nothing),
        }
    }

    /// Whether a token that is not there may be about to be written: it was there, or half of it is.
    fn may_come(&self, token: &str) -> bool {
        let was_there = |at_rest: &Tables| at_rest.has(token) || self.tables.has(token);
        !self.settles_in().is_zero() && self.at_rest.as_ref().is_none_or(was_there)
    }

    /// How long a token that is not found may still be about to be written.
    fn settles_in(&self) -> Duration {
        let directory = self.directory.map_or(Duration::ZERO, |seen| seen.settles_in());
        let missing = self.missing.map_or(Duration::ZERO, settles_in);
        self.tables.settle_in().max(directory).max(missing)
    }

    /// Reads the files that have changed.
    fn refresh(&mut self) {
        let now = Instant::now();
        self.began = Some(now);
        self.failure = None;
        let (paths, mut is_missing) = match self.list() {
            Ok(paths) => (paths, false),
            Err(error) => {
                let is_missing = error.kind() == ErrorKind::NotFound;
                self.failure = Some(SourceError::Read(self.path.clone(), error));
                (Vec::new(), is_missing)
            }
        };
        let mut tables = Vec::with_capacity(paths.len());
        for (path, stamp) in paths {
            let table = match self.tables.of(&path) {
                Some(table) if table.is_of(&stamp) => Ok(Arc::clone(table)),
                old => Table::read(&path, self.place, old.map(|old| &**old)).map(Arc::new),
            };
            match table {
                Ok(table) => {
                    tables.push((path, table));
                }
                Err(SourceError::Read(_, error)) if error.kind() == ErrorKind::NotFound => {
                    is_missing = true;
                }
                Err(failure) => self.failure = Some(failure),
            }
        }
        if self.tables.replace(tables) {
            *self.published.write().unwrap_or_else(PoisonError::into_inner) = self.tables.clone();
        }
        self.tables.complain(self.rereads);
        self.missing = is_missing.then(|| self.missing.unwrap_or(now));
        self.is_read = self.failure.is_none() && !is_missing;
        self.note_rest(now);
    }

    /// Remembers the tables if all files are at rest. A file that could not be read is not at rest.
    fn note_rest(&mut self, now: Instant) {
        let rest = SETTLING.saturating_sub(self.settles_in());
        let unrest = now - *self.unrest.get_or_insert(now);
        let most = if self.at_rest.is_some() { UNREST } else { FIRST_UNREST };
        let needed = if unrest > most { BRIEF_REST } else { SETTLING };
        if self.failure.is_none() && rest >= needed {
            self.at_rest = Some(self.tables.clone());
            self.unrest = None;
        }
    }

    /// The files that there are now, in the order of their names. If one cannot be looked at, only that one is left out. Names
    /// that begin with a dot are skipped: they are those of editors and of other programs.
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
            match fs::metadata(&path) {
                Ok(file) if file.is_file() => files.push((path, Stamp::of(&file))),
                Ok(_) => {}
                // It was removed since, or is a link to nothing.
                Err(error) if is_absence(&error) => {}
                Err(error) => self.failure = Some(SourceError::Read(path, error)),
            }
        }
        files.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        Ok(files)
    }

    #[cfg(test)]
    pub(super) fn tables(&mut self) -> &mut Tables {
        &mut self.tables
    }
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}
