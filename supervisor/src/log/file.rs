//! A log file: appended to, and opened anew when somebody has moved it away. Knows lines and no
//! records.

use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use rustix::fs::{Mode, OFlags};

use super::lines::Lines;
use crate::machine::trusted;
use crate::writer::{self, Queue, Writer};

/// A log file that can be opened anew.
#[derive(Debug, Clone)]
pub(crate) struct LogFile {
    path: PathBuf,
    /// Locked to get or to replace the file, never while it is written to.
    file: Arc<Mutex<Arc<Opened>>>,
}

/// The file, and what was asked once: on a network file system whose server does not answer, the same question hangs.
#[derive(Debug)]
struct Opened {
    file: File,
    is_regular: bool,
}

impl LogFile {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let path = std::path::absolute(path).context("cannot find the working directory")?;
        let file = append(&path)?;
        Ok(Self { path, file: Arc::new(Mutex::new(Arc::new(file))) })
    }

    /// Opens the path again; if that fails, goes on with the file it has.
    pub(crate) fn reopen(&self) -> Result<()> {
        let file = append(&self.path)?;
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(file);
        Ok(())
    }

    /// Checks that the user that we are now could open the file again.
    pub(crate) fn check(&self) -> Result<()> {
        append(&self.path).map(drop)
    }

    /// Another descriptor of the file, for a program that keeps it when we have ended. None unless it is a regular
    /// file: a pipe would break or fill up some day. Does not block.
    pub(crate) fn to_keep(&self) -> io::Result<Option<File>> {
        let opened = self.current();
        opened.is_regular.then(|| opened.file.try_clone()).transpose()
    }

    /// Whether a descriptor, such as that of standard error, is of the same file.
    pub(super) fn is(&self, other: BorrowedFd<'_>) -> bool {
        let other = other.try_clone_to_owned().and_then(|other| File::from(other).metadata());
        match (self.current().file.metadata(), other) {
            (Ok(ours), Ok(theirs)) => (ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino()),
            _ => false,
        }
    }

    /// Begins to write lines; what is pending is written when the [`Writer`] is dropped.
    pub(super) fn write_lines(&self) -> io::Result<(Queue<Vec<u8>>, Writer)> {
        let file = self.clone();
        let mut lines = Lines::of("the log file");
        writer::start("log", move |line: Vec<u8>, dropped| {
            lines.write(&file.current().file, &line, dropped);
        })
    }

    fn current(&self) -> Arc<Opened> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Without O_NONBLOCK, open(2) of a fifo that nobody reads would wait.
fn append(path: &Path) -> Result<Opened> {
    let open = || {
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE;
        let flags = flags | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = trusted::open(path, flags, Mode::from_raw_mode(0o640))?;
        fcntl(&file, FcntlArg::F_SETFL(OFlag::O_APPEND)).map_err(io::Error::from)?;
        let is_regular = file.metadata()?.is_file();
        anyhow::Ok(Opened { file, is_regular })
    };
    open().with_context(|| format!("cannot open log file {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// W11: what is at the path now counts, once it is opened again.
    #[test]
    fn w11_a_program_keeps_a_regular_file_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("log");
        let file = LogFile::open(&path).expect("opened");
        std::fs::remove_file(&path).expect("removed");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        let reader = rustix::fs::open(&path, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty());
        let reader = reader.expect("opened");
        assert!(file.to_keep().expect("cloned").is_some());
        file.reopen().expect("somebody reads it");
        assert!(file.to_keep().expect("nothing to do").is_none());
        drop(reader);
    }

    #[test]
    fn d3_a_file_that_cannot_be_opened_again_is_kept() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("logs/log");
        std::fs::create_dir(directory.path().join("logs")).expect("a directory");
        let file = LogFile::open(&path).expect("opened");
        std::fs::rename(directory.path().join("logs"), directory.path().join("old"))
            .expect("moved");
        let error = file.reopen().expect_err("no directory");
        assert!(format!("{error:#}").contains("cannot open log file"), "{error:#}");
        let (mut lines, writer) = file.write_lines().expect("a thread");
        lines.write_all(b"hello\n").expect("taken");
        drop(writer);
        let old = directory.path().join("old/log");
        assert_eq!(std::fs::read(old).expect("read"), b"hello\n");
    }
}
