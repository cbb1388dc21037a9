//! The directory in which the built-in `rebind.so` lies while programs need it: made, looked at, mended and removed. A
//! lock on the directory says that it is in use; `stale` removes directories that nobody uses any more.

mod saved;

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::Uid;
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, fchmod, flock, openat, unlinkat};
use rustix::io::Errno;
use tracing::{info, warn};

use super::variable::check_text;
use crate::exit::Failure;
use crate::machine::trusted::{self, Writers};
pub(super) use saved::UnpackedState;

/// `rebind.so` as `build.rs` has compiled it.
pub(super) static EMBEDDED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/rebind.so"));

/// What the directory's name begins with.
pub(super) const PREFIX: &str = "websockify-";
/// The one file in it.
pub(super) const NAME: &str = "rebind.so";
/// The one file in a directory of the same kind that `clients` makes.
pub(super) const CLIENTS: &str = "clients";
/// Everybody may read the file. By its sticky bit systemd-tmpfiles(8) leaves it alone, also when a daemon is left
/// running and no websockify holds the lock any more.
pub(super) const MODE: u32 = 0o1444;
/// Everybody may look into it: the program may change to another user before it starts the next program.
pub(super) const DIRECTORY_MODE: u32 = 0o755;

/// The directory's mode when it is kept for a program of another user than ours, whose processes `stale` may not look
/// into: it is never removed.
pub(super) const KEPT_MODE: u32 = 0o555;

/// The directory's mode until it is locked and filled: `stale` removes directories with [`DIRECTORY_MODE`] only.
const NEW_DIRECTORY_MODE: u32 = 0o700;

/// How many directories are made at most, if other instances take each for a stale one before it is locked.
const ATTEMPTS: usize = 10;

/// An unpacked library, removed when this is dropped.
#[derive(Debug)]
pub(super) struct Unpacked {
    path: PathBuf,
    /// Locked, where the file system has locks.
    directory: File,
    is_kept: bool,
    /// The old binary of a hand-over may still need it, so it is not removed when this is dropped.
    keep_on_drop: bool,
}

impl Unpacked {
    /// Unpacks into the first of these directories that is fit.
    pub(super) fn into_one_of(parents: &[PathBuf]) -> Result<Self> {
        let mut reasons = Vec::new();
        for parent in parents {
            let reason = match Self::within(parent) {
                Ok(unpacked) => return Ok(unpacked),
                Err(reason) => format!("{}: {}", parent.display(), Failure::from(reason).reason),
            };
            if check_writers(parent).is_err_and(|error| !error.is::<io::Error>()) {
                warn!("the rebind library is not unpacked into {reason}");
            }
            reasons.push(reason);
        }
        let reasons = reasons.join("; ");
        bail!("cannot unpack the rebind library: {reasons}; --rebind-lib may name one")
    }

    pub(super) fn library(&self) -> PathBuf {
        self.path.join(NAME)
    }

    /// Whether programs still find there what we have put there.
    pub(super) fn is_whole(&self) -> bool {
        self.is_there() && self.is_embedded().unwrap_or(false)
    }

    /// Unpacks the library again where it was, as a daemon may still look for it there, or else in another directory.
    pub(super) fn mend(&mut self) -> Result<()> {
        let parent = self.path.parent().expect("it was made in a directory");
        let mended = check_parent(parent).and_then(|()| {
            if !self.is_there() {
                // If somebody else has made a directory of that name, it is left alone.
                DirBuilder::new().mode(NEW_DIRECTORY_MODE).create(&self.path)?;
                self.directory = hold(&self.path)?.context("it is being removed")?;
            }
            fill(&self.directory)
        });
        mended.or_else(|reason| {
            let reason = Failure::from(reason).reason;
            info!("cannot mend {}: {reason}", self.path.display());
            *self = Self::into_one_of(&candidates())?;
            Ok(())
        })
    }

    /// Leaves it: a daemon that is left running needs it when it starts another program. Where that has another user than
    /// we, it is marked, so that no later instance takes it for a stale one.
    pub(super) fn keep(&mut self, is_of_another_user: bool) {
        self.is_kept = true;
        if is_of_another_user {
            // The directory is ours. If this fails all the same, it may be removed before its time.
            let _ = fchmod(&self.directory, Mode::from_raw_mode(KEPT_MODE));
        }
    }

    fn within(parent: &Path) -> Result<Self> {
        let (path, directory) = make(parent, |parent| {
            check_text(parent)?;
            check_parent(parent)
        })?;
        let unpacked = Self { path, directory, is_kept: false, keep_on_drop: false };
        fill(&unpacked.directory)?;
        Ok(unpacked)
    }

    /// Whether the directory is where it was.
    fn is_there(&self) -> bool {
        is_at(&self.directory, &self.path)
    }

    fn is_embedded(&self) -> io::Result<bool> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mut file = File::from(openat(&self.directory, NAME, flags, Mode::empty())?);
        let metadata = file.metadata()?;
        let is_ours = metadata.uid() == Uid::effective().as_raw() && metadata.is_file();
        let is_readable = metadata.mode() & 0o777 == MODE & 0o777;
        let is_open = self.directory.metadata()?.mode() & 0o7777 == DIRECTORY_MODE;
        if !is_ours || !is_readable || !is_open || metadata.len() != EMBEDDED.len() as u64 {
            return Ok(false);
        }
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        Ok(text == EMBEDDED)
    }
}

impl Drop for Unpacked {
    fn drop(&mut self) {
        if !self.is_kept && !self.keep_on_drop {
            remove(&self.directory, &self.path);
        }
    }
}

/// Makes a directory in `parent`, if that is fit, and locks it.
pub(super) fn make(parent: &Path, check: impl Fn(&Path) -> Result<()>) -> Result<(PathBuf, File)> {
    let parent = std::path::absolute(parent)?;
    check(&parent)?;
    for _ in 0..ATTEMPTS {
        let path = tempfile::Builder::new()
            .prefix(PREFIX)
            .permissions(Permissions::from_mode(NEW_DIRECTORY_MODE))
            .tempdir_in(&parent)?
            .keep();
        if let Some(directory) = hold(&path)? {
            return Ok((path, directory));
        }
        // Another instance has it locked to look whether it is stale, and removes only a directory with a file of ours
        // in it.
        let _ = fs::remove_dir(&path);
    }
    bail!("what is made there is removed at once")
}

/// Where an unpacked library may lie, the best place first.
pub(super) fn candidates() -> Vec<PathBuf> {
    let mut candidates = vec![std::env::temp_dir()];
    for directory in ["/tmp", "/dev/shm", "/run", "/var/tmp"] {
        if candidates[0] != Path::new(directory) {
            candidates.push(directory.into());
        }
    }
    candidates
}

/// Removes the library, or the other file of ours, from the directory; then the directory, if it is still the one at
/// this path.
pub(super) fn remove(directory: &File, path: &Path) {
    for name in [NAME, CLIENTS] {
        let _ = unlinkat(directory, name, AtFlags::empty());
    }
    if is_at(directory, path) {
        let _ = fs::remove_dir(path);
    }
}

pub(super) fn is_at(directory: &File, path: &Path) -> bool {
    match (directory.metadata(), path.symlink_metadata()) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    }
}

/// Opens a directory that is not a link.
pub(super) fn open(path: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW).open(path)
}

/// Opens a directory that we have made, and locks it. `None`: another instance took it for a stale one.
fn hold(path: &Path) -> Result<Option<File>> {
    let directory = open(path)?;
    // Other errors are those of file systems without locks.
    if let Err(Errno::WOULDBLOCK) = flock(&directory, FlockOperation::NonBlockingLockShared) {
        return Ok(None);
    }
    Ok(is_at(&directory, path).then_some(directory))
}

/// Writes the library as a new file: processes that have loaded the one before keep that.
fn fill(directory: &File) -> Result<()> {
    // Not by the mode at its creation, which the caller's umask changes (W1).
    fchmod(directory, Mode::from_raw_mode(DIRECTORY_MODE)).map_err(io::Error::from)?;
    match unlinkat(directory, NAME, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(io::Error::from(errno).into()),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = openat(directory, NAME, flags, Mode::RUSR).map_err(io::Error::from)?;
    let mut file = File::from(file);
    file.write_all(EMBEDDED)?;
    fchmod(&file, Mode::from_raw_mode(MODE)).map_err(io::Error::from)?;
    Ok(())
}

/// Whether no other user can put another file in the place of a library there.
fn check_writers(directory: &Path) -> Result<()> {
    let writers = trusted::directory(directory)?;
    ensure!(writers != Writers::Group, "its group can put another file in its place");
    Ok(())
}

/// The same, and whether every program can load a library from there.
fn check_parent(directory: &Path) -> Result<()> {
    check_writers(directory)?;
    ensure!(!statvfs(directory)?.flags().contains(FsFlags::ST_NOEXEC), "mounted noexec");
    check_open(directory)
}

/// Whether every program can read what lies there, and nobody can exchange it.
pub(super) fn check_open(directory: &Path) -> Result<()> {
    check_writers(directory)?;
    // Only root can run programs as another user.
    if Uid::effective().is_root() { check_ancestors(directory) } else { Ok(()) }
}

/// Whether every user can reach this directory.
pub(super) fn check_ancestors(directory: &Path) -> Result<()> {
    for ancestor in directory.ancestors() {
        ensure!(ancestor.metadata()?.mode() & 0o001 != 0, "not open to other users");
    }
    Ok(())
}
