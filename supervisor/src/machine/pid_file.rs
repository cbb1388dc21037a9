//! The pid file (`--pid-file`), which one websockify has at a time. The lock says that it is in use; the number inside
//! is for people and scripts.

use std::fs::{File, Metadata, remove_file};
use std::io::{Read, Seek, Write};
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use rustix::fs::{Mode, OFlags};

use crate::machine::trusted;

/// A longer file is no pid file; bytes.
const LONGEST: u64 = 32;

/// A locked pid file, removed when this is dropped, if it is still ours: somebody may have removed it and
/// made room for another instance's.
#[derive(Debug)]
pub(crate) struct PidFile {
    path: PathBuf,
    file: Flock<File>,
    is_written: bool,
}

impl PidFile {
    /// Locks the file, which is created if it does not exist. The lock (flock(2)) survives a fork and
    /// ends with the last process that has the file open.
    pub(crate) fn lock(path: &Path) -> Result<Self> {
        let path = std::path::absolute(path).context("cannot find the working directory")?;
        loop {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW;
            let file = trusted::open(&path, flags, Mode::from_raw_mode(0o644))
                .with_context(|| format!("cannot open pid file {}", path.display()))?;
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                // Its owner may have removed it between the two calls.
                Ok(file) if !is_still(&file, &path) => drop(file),
                Ok(file) if is_pid_file(&file) => {
                    return Ok(Self { path, file, is_written: false });
                }
                Ok(_) => bail!("cannot use pid file {}: it is something else", path.display()),
                Err((file, Errno::EWOULDBLOCK)) => held_by_another(&path, file)?,
                Err((_, errno)) => {
                    let error = std::io::Error::from(errno);
                    return Err(error)
                        .with_context(|| format!("cannot lock pid file {}", path.display()));
                }
            }
        }
    }

    /// Goes on with the pid file that the old binary has locked and written, as this same process.
    ///
    /// # Errors
    /// It cannot be locked. Its descriptor stays open: the old binary may have to go on with it.
    pub(crate) fn resume(path: &Path, file: OwnedFd) -> Result<Self> {
        // If the working directory is gone, so is a file with a relative path.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        // It is locked already, by the very same open file (flock(2)).
        let file = Flock::lock(File::from(file), FlockArg::LockExclusiveNonblock);
        let file = file.map_err(|(file, errno)| {
            let _ = file.into_raw_fd();
            std::io::Error::from(errno)
        });
        let file = file.with_context(|| format!("cannot lock pid file {}", path.display()))?;
        Ok(Self { path, file, is_written: true })
    }

    /// Its descriptor.
    pub(crate) fn descriptor(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Writes our process id, after the last fork.
    pub(crate) fn write(&mut self) -> Result<()> {
        let write = |mut file: &File| {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        write(&self.file)
            .with_context(|| format!("cannot write pid file {}", self.path.display()))?;
        self.is_written = true;
        Ok(())
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let is_ours = !self.is_written || number_in(&self.file) == Some(std::process::id());
        if is_ours && is_still(&self.file, &self.path) {
            // If we have changed from root to another user, we may not remove it: then it is at least emptied.
            let _ = remove_file(&self.path).or_else(|_| self.file.set_len(0));
        }
    }
}

/// The process id in the file: it is not ours where somebody else has written to the file.
fn number_in(mut file: &File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().and_then(|()| file.take(LONGEST).read_to_string(&mut text)).ok()?;
    text.trim().parse().ok()
}

/// Whether it is a regular file with a number in it, or an empty one. Anything else, such as a device, or a
/// configuration that was named by mistake, must be left alone: a pid file is overwritten, and removed at the end.
fn is_pid_file(file: &File) -> bool {
    let mut text = String::new();
    let is_file = |metadata: Metadata| metadata.is_file() && metadata.len() <= LONGEST;
    let is_text =
        file.metadata().is_ok_and(is_file) && file.take(LONGEST).read_to_string(&mut text).is_ok();
    let number = text.trim();
    is_text && (number.is_empty() || number.parse::<u32>().is_ok())
}

fn is_still(file: &File, path: &Path) -> bool {
    match (file.metadata(), path.symlink_metadata()) {
        (Ok(ours), Ok(there)) => ours.ino() == there.ino() && ours.dev() == there.dev(),
        _ => false,
    }
}

fn held_by_another(path: &Path, file: File) -> Result<()> {
    let mut pid = String::new();
    // The number only makes the message better.
    let _ = file.take(LONGEST).read_to_string(&mut pid);
    let holder = match pid.trim() {
        "" => "another process".to_owned(),
        pid => format!("process {pid}"),
    };
    bail!("cannot lock pid file {}: held by {holder}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d3_a_pid_file_is_held_by_one_and_removed_at_the_end() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("pid");
        let mut held = PidFile::lock(&path).expect("locked");
        held.write().expect("written");
        let pid = std::process::id();
        assert_eq!(std::fs::read_to_string(&path).expect("read"), format!("{pid}\n"));
        let error = PidFile::lock(&path).expect_err("held");
        assert!(error.to_string().ends_with(&format!("held by process {pid}")), "{error}");
        drop(held);
        assert!(!path.exists());
        PidFile::lock(&path).expect("free again");
    }

    /// O2: the old binary may have to go on with it.
    #[test]
    fn d3_a_pid_file_that_cannot_be_locked_again_stays_open() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("pid");
        let _held = PidFile::lock(&path).expect("locked");
        let other = OwnedFd::from(File::open(&path).expect("opened"));
        let number = other.as_raw_fd();
        PidFile::resume(&path, other).expect_err("it is another's");
        assert!(Path::new(&format!("/proc/self/fd/{number}")).exists());
        assert!(path.exists());
    }

    #[test]
    fn d3_what_is_no_pid_file_is_left_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("settings");
        let blanks = &*format!("{:40}port = 80", "");
        for (text, is_taken) in
            [("port = 80\n", false), ("1\n", true), ("", true), ("\u{ff}", false), (blanks, false)]
        {
            std::fs::write(&path, text).expect("written");
            assert_eq!(PidFile::lock(&path).is_ok(), is_taken, "{text:?}");
            assert_eq!(path.exists(), !is_taken, "{text:?}");
        }
        let error = PidFile::lock(Path::new("/dev/null")).expect_err("a device");
        assert_eq!(error.to_string(), "cannot use pid file /dev/null: it is something else");
    }
}
