//! A log file: appended to on a thread of its own, so that a slow disk or a full pipe holds up nobody,
//! and opened anew when somebody has moved it away. Knows bytes and no records.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::fcntl::{FcntlArg, OFlag, fcntl};

/// How much waits for a slow file before the next lines are dropped, and counted; bytes.
const BACKLOG: usize = 4 << 20;
/// How long our end waits for what is not written yet.
const FLUSH: Duration = Duration::from_secs(1);

/// A log file that can be opened anew.
#[derive(Debug, Clone)]
pub(crate) struct LogFile {
    path: PathBuf,
    /// Locked to be replaced, never while somebody writes.
    file: Arc<Mutex<Arc<File>>>,
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

    /// Another descriptor of it, if it is one that a program may keep when we have ended: a pipe would
    /// break or fill up some day.
    pub(crate) fn to_keep(&self) -> io::Result<Option<File>> {
        let file = self.current();
        if file.metadata()?.is_file() { file.try_clone().map(Some) } else { Ok(None) }
    }

    /// Begins to write what is sent to the [`Lines`]; what is pending is written when the
    /// [`Writer`] is dropped.
    pub(super) fn write_lines(&self) -> io::Result<(Lines, Writer)> {
        let (sender, receiver) = mpsc::channel();
        let (ended, end) = mpsc::channel();
        let backlog = Arc::<Backlog>::default();
        let lines = Lines { sender, backlog: backlog.clone() };
        let file = self.clone();
        thread::Builder::new().name("log".into()).spawn(move || {
            file.write_all_of(&receiver, &backlog);
            drop(ended);
        })?;
        let writer = Writer { close: lines.sender.clone(), end };
        Ok((lines, writer))
    }

    fn write_all_of(&self, lines: &Receiver<Option<Vec<u8>>>, backlog: &Backlog) {
        while let Ok(Some(line)) = lines.recv() {
            let dropped = backlog.dropped.swap(0, Ordering::Relaxed);
            // A disk that is full now may have room later.
            if dropped > 0 {
                let _ = writeln!(&*self.current(), "{dropped} lines dropped: the log file is slow");
            }
            let _ = (&*self.current()).write_all(&line);
            backlog.pending.fetch_sub(line.len(), Ordering::Relaxed);
        }
    }

    fn current(&self) -> Arc<File> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Takes lines and never waits.
#[derive(Debug, Clone)]
pub(super) struct Lines {
    /// `None` ends the thread.
    sender: Sender<Option<Vec<u8>>>,
    backlog: Arc<Backlog>,
}

/// What is on its way to the thread.
#[derive(Debug, Default)]
struct Backlog {
    /// Bytes.
    pending: AtomicUsize,
    /// Lines that there was no room for.
    dropped: AtomicU64,
}

impl Write for Lines {
    /// `line` is a whole one.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let pending = self.backlog.pending.fetch_add(line.len(), Ordering::Relaxed);
        if pending + line.len() > BACKLOG || self.sender.send(Some(line.to_vec())).is_err() {
            self.backlog.pending.fetch_sub(line.len(), Ordering::Relaxed);
            self.backlog.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The thread that writes.
#[derive(Debug)]
pub(super) struct Writer {
    close: Sender<Option<Vec<u8>>>,
    /// Its other end is dropped by the thread.
    end: Receiver<()>,
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.close.send(None);
        let _ = self.end.recv_timeout(FLUSH);
    }
}

/// Without O_NONBLOCK, open(2) of a fifo that nobody reads would wait.
fn append(path: &Path) -> Result<File> {
    let open = || {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o640)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path)?;
        fcntl(&file, FcntlArg::F_SETFL(OFlag::O_APPEND))?;
        io::Result::Ok(file)
    };
    open().with_context(|| format!("cannot open log file {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d3_lines_that_a_slow_file_has_no_room_for_are_counted() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = LogFile::open(&directory.path().join("log")).expect("opened");
        let (sender, receiver) = mpsc::channel();
        let backlog = Arc::<Backlog>::default();
        let mut lines = Lines { sender, backlog: backlog.clone() };
        let long = vec![b'x'; BACKLOG];
        for line in [&long[..], b"dropped\n", b"dropped too\n"] {
            lines.write_all(line).expect("taken");
        }
        lines.sender.send(None).expect("sent");
        file.write_all_of(&receiver, &backlog);
        let text = std::fs::read(&file.path).expect("read");
        assert!(text.ends_with(&long) && text.starts_with(b"2 lines dropped"));
        assert_eq!(backlog.pending.load(Ordering::Relaxed), 0);
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
