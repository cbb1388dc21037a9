//! Our own files, which are not served to web requests and not shown in listings, whatever name leads to them: keys,
//! logs, recordings. Knows names and identities; must not know what is in them.

use std::cell::OnceCell;
use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;

use crate::opened::real_path;

/// The files that are ours alone. The default has none.
#[derive(Debug, Default)]
pub struct Private {
    places: RwLock<Arc<Places>>,
    series: Vec<Series>,
    /// The files that were seen at those places: a log is still ours after it was moved away.
    seen: Mutex<HashSet<Identity>>,
}

/// The paths of our files.
#[derive(Debug, Clone, Default)]
struct Places {
    files: Vec<PathBuf>,
    /// Whatever lies directly in these is ours, but not what lies deeper.
    directories: Vec<PathBuf>,
}

/// Files with a number in one directory, of this run and of earlier ones: this name, a dot or a hyphen, a number, and
/// perhaps more. Recordings have such names, and logs that were rotated.
#[derive(Debug)]
struct Series {
    directory: PathBuf,
    name: OsString,
}

/// What tells a file from every other file, also from a later one that has got the same inode number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Identity {
    device: u64,
    inode: u64,
    /// When the file was created, if the file system knows that.
    made: Option<SystemTime>,
}

impl Private {
    /// Our files are what lies at the paths of `files`, now or later, and what is named like one of `series` with a
    /// number.
    pub fn new(files: Vec<PathBuf>, series: impl IntoIterator<Item = PathBuf>) -> Self {
        let series = series.into_iter().filter_map(|path| Series::of(&path)).collect();
        let places = Places { files, directories: Vec::new() };
        Self { places: RwLock::new(Arc::new(places)), series, seen: Mutex::default() }
    }

    /// Adds the file at this path, now or later; and if the path is a directory, what lies in it.
    pub fn add(&self, path: &Path) {
        let mut places = self.places.write().unwrap_or_else(PoisonError::into_inner);
        let places = Arc::make_mut(&mut places);
        for paths in [&mut places.files, &mut places.directories] {
            if !paths.iter().any(|other| other == path) {
                paths.push(path.to_owned());
            }
        }
    }

    /// Adds this one file.
    pub fn note(&self, file: &Metadata) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(Identity::of(file));
    }

    /// Adds the files that lie at the paths now: they may be moved away later.
    pub fn look(&self) {
        // The lock of the paths is not held here: a file system that hangs must not block a caller of `add`.
        for metadata in self.places().files.iter().filter_map(|path| fs::metadata(path).ok()) {
            self.note(&metadata);
        }
    }

    fn places(&self) -> Arc<Places> {
        Arc::clone(&self.places.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The files that are ours now, for one request. Blocks, as the methods of the result do.
    pub(crate) fn snapshot(&self) -> Snapshot<'_> {
        self.look();
        Snapshot { private: self, places: self.places(), numbered: OnceCell::new() }
    }
}

/// The files that are ours at this moment.
pub(crate) struct Snapshot<'a> {
    private: &'a Private,
    places: Arc<Places>,
    /// The files of the series, listed when they are needed first.
    numbered: OnceCell<HashSet<Identity>>,
}

impl Snapshot<'_> {
    /// Whether the file that `path` leads to, and that has this metadata, is one of ours.
    pub(crate) fn contains(&self, path: &Path, file: &Metadata) -> io::Result<bool> {
        let identity = Identity::of(file);
        let seen = &self.private.seen;
        if seen.lock().unwrap_or_else(PoisonError::into_inner).contains(&identity) {
            return Ok(true);
        }
        if !file.is_file() {
            return Ok(false);
        }
        if !self.places.directories.is_empty() && self.is_in_directory(&real_path(path)?) {
            return Ok(true);
        }
        if self.private.series.is_empty() {
            return Ok(false);
        }
        // A file with several hard links may have a name of a series elsewhere.
        if file.nlink() > 1 {
            return Ok(self.numbered().contains(&identity));
        }
        if fs::symlink_metadata(path)?.is_symlink() {
            return Ok(self.is_numbered(&real_path(path)?));
        }
        Ok(self.is_numbered(path))
    }

    fn is_in_directory(&self, path: &Path) -> bool {
        let Some(parent) = path.parent() else { return false };
        self.places.directories.iter().any(|directory| is_same(parent, directory))
    }

    fn is_numbered(&self, path: &Path) -> bool {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return false };
        self.private
            .series
            .iter()
            .any(|series| series.has(name) && is_same(parent, &series.directory))
    }

    fn numbered(&self) -> &HashSet<Identity> {
        self.numbered.get_or_init(|| self.private.series.iter().flat_map(Series::all).collect())
    }
}

impl Series {
    /// `None` for a path without a file name, beside which no file can lie.
    fn of(path: &Path) -> Option<Self> {
        Some(Self { directory: path.parent()?.to_owned(), name: path.file_name()?.to_owned() })
    }

    fn has(&self, name: &OsStr) -> bool {
        let rest = name.as_bytes().strip_prefix(self.name.as_bytes());
        matches!(rest, Some([b'.' | b'-', b'0'..=b'9', ..]))
    }

    fn all(&self) -> Vec<Identity> {
        let Ok(entries) = fs::read_dir(&self.directory) else { return Vec::new() };
        let ours = entries.flatten().filter(|entry| self.has(&entry.file_name()));
        ours.filter_map(|entry| Some(Identity::of(&entry.metadata().ok()?))).collect()
    }
}

impl Identity {
    fn of(file: &Metadata) -> Self {
        Self { device: file.dev(), inode: file.ino(), made: file.created().ok() }
    }
}

fn is_same(one: &Path, other: &Path) -> bool {
    match (fs::metadata(one), fs::metadata(other)) {
        (Ok(one), Ok(other)) => Identity::of(&one) == Identity::of(&other),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f6_k2_what_lies_in_a_directory_of_ours_is_ours() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::create_dir_all(at("tokens/deeper")).unwrap();
        for name in ["tokens/one", "tokens/deeper/two", "three"] {
            fs::write(at(name), "").unwrap();
        }
        std::os::unix::fs::symlink("tokens/one", at("link")).unwrap();
        let private = Private::new(vec![], []);
        private.add(&at("tokens"));
        private.add(&at("three"));
        for (name, expected) in
            [("tokens/one", true), ("link", true), ("tokens/deeper/two", false), ("three", true)]
        {
            let metadata = fs::metadata(at(name)).unwrap();
            assert_eq!(
                private.snapshot().contains(&at(name), &metadata).unwrap(),
                expected,
                "{name}"
            );
        }
    }

    #[test]
    fn f6_files_are_known_by_any_name_and_after_they_were_moved() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for name in
            ["log", "rec.1", "rec.12.gz", "log-20240101", "rec.html", "rec", "x.1", "log.txt"]
        {
            fs::write(at(name), "").unwrap();
        }
        let private = Private::new(vec![at("log")], [at("rec"), at("log")]);
        let have = |name: &str| {
            let metadata = fs::metadata(at(name)).unwrap();
            private.snapshot().contains(&at(name), &metadata).unwrap()
        };
        for name in ["log", "rec.1", "rec.12.gz", "log-20240101"] {
            assert!(have(name), "{name}");
            fs::hard_link(at(name), at("linked")).unwrap();
            assert!(have("linked") && have(name), "{name}");
            fs::remove_file(at("linked")).unwrap();
            std::os::unix::fs::symlink(at(name), at("symbolic")).unwrap();
            assert!(have("symbolic"), "{name}");
            fs::remove_file(at("symbolic")).unwrap();
        }
        for name in ["rec.html", "rec", "x.1", "log.txt"] {
            assert!(!have(name), "{name}");
        }
        fs::rename(at("log"), at("page")).unwrap();
        assert!(have("page"));
        fs::remove_file(at("page")).unwrap();
        fs::write(at("page"), "").unwrap();
        assert!(!have("page"), "another file");
    }
}
