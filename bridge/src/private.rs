//! Our own files, which are not served to web requests and not shown in listings, whatever name leads to them: keys,
//! logs, recordings. Knows names and identities; must not know what is in them.

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::SystemTime;

use crate::opened::real_path;

/// How many files that were found at one path are remembered: also those that have been moved away, or replaced, since. A token
/// file may be replaced every second.
const FOUND_MOST: usize = 1024;

/// The files that are ours alone. The default has none.
#[derive(Debug, Default)]
pub struct Private {
    places: RwLock<Arc<Places>>,
    series: Vec<Series>,
    seen: Mutex<Seen>,
}

/// The files that are ours, whatever leads to them now.
#[derive(Debug, Default)]
struct Seen {
    /// Those that were named to us one by one.
    noted: HashSet<Identity>,
    /// Those that were found at the paths: a log is still ours after it was moved away.
    found: HashMap<Identity, Finding>,
    /// How many findings there were.
    findings: u64,
}

/// When a file was found last, and where first.
#[derive(Debug, Clone, Copy)]
struct Finding {
    number: u64,
    /// The path, as its place in the list of paths, which only grows.
    path: usize,
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
        self.seen().noted.insert(Identity::of(file));
    }

    /// Adds the files that lie at the paths now: they may be moved away later. Of those that have lain at one path, the last
    /// 1,024 are remembered.
    pub fn look(&self) {
        // No lock is held while a file system is asked, which may hang.
        for (path, name) in self.places().files.iter().enumerate() {
            if let Ok(metadata) = fs::metadata(name) {
                self.seen().find(Identity::of(&metadata), path);
            }
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
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

impl Seen {
    /// Notes that this file lies at this path, given by its place in the list of paths.
    fn find(&mut self, file: Identity, path: usize) {
        self.findings += 1;
        let number = self.findings;
        if let Some(finding) = self.found.get_mut(&file) {
            // It keeps its path: two paths may lead to the same file.
            finding.number = number;
            return;
        }
        self.found.insert(file, Finding { number, path });
        let there = self.found.iter().filter(|(_, finding)| finding.path == path);
        if there.clone().count() > FOUND_MOST
            && let Some((oldest, _)) = there.min_by_key(|(_, finding)| finding.number)
        {
            let oldest = *oldest;
            self.found.remove(&oldest);
        }
    }

    fn has(&self, file: &Identity) -> bool {
        self.noted.contains(file) || self.found.contains_key(file)
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
        if self.private.seen().has(&identity) {
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

    /// A token file that is replaced every second, and a log that was rotated away before that.
    #[test]
    fn f6_k2_files_that_are_replaced_for_ever_are_not_remembered_for_ever() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        for name in ["stdout", "log"] {
            fs::write(at(name), "").unwrap();
        }
        std::os::unix::fs::symlink("tokens", at("link")).unwrap();
        let private = Private::new(vec![at("log"), at("link"), at("tokens")], []);
        private.note(&fs::metadata(at("stdout")).unwrap());
        private.look();
        fs::rename(at("log"), at("page")).unwrap();
        let old = |number: u32| format!("old.{number}");
        for number in 0..5000 {
            // The old files are kept, so that each has an inode of its own.
            fs::write(at(&old(number)), "").unwrap();
            fs::rename(at(&old(number)), at("tokens")).unwrap();
            fs::hard_link(at("tokens"), at(&old(number))).unwrap();
            private.snapshot();
        }
        let found = private.seen().found.len();
        assert_eq!(found, FOUND_MOST + 1, "the tokens of one path, and the log");
        let have = |name: &str| {
            let metadata = fs::metadata(at(name)).unwrap();
            private.snapshot().contains(&at(name), &metadata).unwrap()
        };
        for name in ["stdout", "page", "tokens", &old(4999), &old(4000)] {
            assert!(have(name), "{name}");
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
