//! Recordings: what a session carried, as a script that noVNC's playback page loads.
//!
//! The format is upstream's: `VNC_frame_encoding`, and `VNC_frame_data` with one string for every
//! piece of traffic: `{` from the target or `}` from the client, the milliseconds since the session
//! began, the brace again, the payload; `'EOF'` is the last. Files are written by the threads that may block; a
//! session never waits for a disk while it lives.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;
use tracing::{info, warn};

use crate::words::words;
use crate::ws::append_base64;

/// How much may wait for the disk, bytes. Whatever would exceed it ends the recording.
const PENDING_MAX: usize = 16 * 1024 * 1024;

/// What an entry costs besides its payload.
const OVERHEAD: usize = 64;

/// How many entries a thread is given at once.
const BATCH: usize = 64;

/// How much text is written at once, or little more.
const WRITE: usize = 64 * 1024;

/// How long the end of a session waits for the end of its recording.
const FINISH: Duration = Duration::from_secs(5);

const END: &[u8] = b"'EOF'];\n";

/// The recordings of one bridge: `FILE.1`, `FILE.2` and so on, without those that exist.
#[derive(Debug)]
pub(crate) struct Recordings {
    path: PathBuf,
    taken: AtomicU64,
}

/// Who sent something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    Client,
    Target,
}

/// How payload is written into a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// One character for a byte.
    Binary,
    /// As the client sends and gets it.
    Base64,
}

struct Entry {
    from: From,
    at: Duration,
    payload: Vec<u8>,
}

/// The recording of one session.
pub(crate) struct Recorder {
    session: u64,
    began: Instant,
    /// `None`: it has ended before its session.
    entries: Option<mpsc::UnboundedSender<Entry>>,
    /// The size of the entries that are not yet written.
    pending: Arc<AtomicUsize>,
    writer: JoinHandle<()>,
}

impl Recordings {
    /// Recordings beside each other, their names beginning with `path`.
    pub(crate) fn new(path: PathBuf) -> Arc<Self> {
        Arc::new(Self { path, taken: AtomicU64::new(0) })
    }

    /// Begins a recording. What cannot be done about it is said in the log.
    pub(crate) fn begin(self: &Arc<Self>, session: u64, encoding: Encoding) -> Recorder {
        let (sender, entries) = mpsc::unbounded_channel();
        let pending = Arc::new(AtomicUsize::new(0));
        let number = self.number();
        let writing =
            write(Arc::clone(self), number, session, encoding, entries, Arc::clone(&pending));
        let writer = tokio::spawn(writing);
        Recorder { session, began: Instant::now(), entries: Some(sender), pending, writer }
    }

    fn number(&self) -> u64 {
        self.taken.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Creates the file with this number, or with the next one that is free. It may hold passwords.
    fn create(&self, mut number: u64) -> Result<(File, PathBuf), (PathBuf, io::Error)> {
        loop {
            let mut name = OsString::from(&self.path);
            name.push(format!(".{number}"));
            let path = PathBuf::from(name);
            match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
                Ok(file) => return Ok((file, path)),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => number = self.number(),
                Err(error) => return Err((path, error)),
            }
        }
    }
}

impl Recorder {
    /// Takes down what was sent, unless the disk is too far behind.
    pub(crate) fn record(&mut self, from: From, bytes: &[u8]) {
        let Some(entries) = &self.entries else { return };
        let size = bytes.len() + OVERHEAD;
        if self.pending.fetch_add(size, Ordering::Relaxed) + size > PENDING_MAX {
            let session = self.session;
            warn!(session, "recording ended early: the disk is too slow for session {session}");
            self.entries = None;
            return;
        }
        let entry = Entry { from, at: self.began.elapsed(), payload: bytes.to_vec() };
        if entries.send(entry).is_err() {
            // The writer has said why.
            self.entries = None;
        }
    }

    /// Waits until all of it is in its file, but not for a disk that hangs.
    pub(crate) async fn finish(mut self) {
        self.entries = None;
        if timeout(FINISH, &mut self.writer).await.is_err() {
            let session = self.session;
            warn!(session, "recording of session {session} is still being written");
        }
    }
}

/// Writes a recording until its session ends.
async fn write(
    recordings: Arc<Recordings>,
    number: u64,
    session: u64,
    encoding: Encoding,
    mut entries: mpsc::UnboundedReceiver<Entry>,
    pending: Arc<AtomicUsize>,
) {
    let begun = blocking(move || {
        let (file, path) = recordings.create(number)?;
        match Script::begin(file, encoding) {
            Ok(script) => Ok((script, path)),
            Err(error) => Err((path, error)),
        }
    });
    let (mut script, path) = match begun.await {
        Some(Ok(begun)) => begun,
        Some(Err((path, error))) => {
            return warn!(session, "cannot record to {}: {}", path.display(), words(&error));
        }
        None => return,
    };
    info!(session, "recording to {}", path.display());
    let mut batch = Vec::new();
    loop {
        let is_last = entries.recv_many(&mut batch, BATCH).await == 0;
        let written = std::mem::take(&mut batch);
        let size: usize = written.iter().map(|entry| entry.payload.len() + OVERHEAD).sum();
        let deed = blocking(move || {
            let result = if is_last { script.end() } else { script.append(&written) };
            (script, result)
        });
        let Some((same, result)) = deed.await else { return };
        script = same;
        pending.fetch_sub(size, Ordering::Relaxed);
        match result {
            Ok(()) if !is_last => {}
            Ok(()) => return,
            Err(error) => {
                let (path, error) = (path.display(), words(&error));
                return warn!(session, "recording ended early: cannot write {path}: {error}");
            }
        }
    }
}

/// Does what may wait for a disk. `None`: the runtime is going.
async fn blocking<T: Send + 'static>(deed: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    spawn_blocking(deed).await.ok()
}

/// A recording's file. What ends early ends so that it can be loaded.
struct Script {
    file: File,
    encoding: Encoding,
    /// How much of it is whole entries.
    length: u64,
}

impl Script {
    fn begin(file: File, encoding: Encoding) -> io::Result<Self> {
        let mut script = Self { file, encoding, length: 0 };
        let name = match encoding {
            Encoding::Binary => "binary",
            Encoding::Base64 => "base64",
        };
        let head = format!("var VNC_frame_encoding = '{name}';\nvar VNC_frame_data = [\n");
        script.write(head.as_bytes())?;
        Ok(script)
    }

    fn append(&mut self, entries: &[Entry]) -> io::Result<()> {
        let mut text = Vec::new();
        for entry in entries {
            entry.format(self.encoding, &mut text);
            if text.len() >= WRITE {
                self.write(&text)?;
                text.clear();
            }
        }
        self.write(&text)
    }

    fn end(&mut self) -> io::Result<()> {
        self.write(END)
    }

    /// Writes whole entries, or cuts off what there is of them and ends the script.
    fn write(&mut self, text: &[u8]) -> io::Result<()> {
        if let Err(error) = self.file.write_all(text) {
            // A disk that is full has room for the end when the part of an entry is gone.
            let _ = self.file.set_len(self.length);
            let _ = self.file.seek(SeekFrom::Start(self.length));
            let _ = self.file.write_all(END);
            return Err(error);
        }
        self.length += text.len() as u64;
        Ok(())
    }
}

impl Entry {
    fn format(&self, encoding: Encoding, text: &mut Vec<u8>) {
        let side = match self.from {
            From::Client => '}',
            From::Target => '{',
        };
        text.extend_from_slice(format!("'{side}{}{side}", self.at.as_millis()).as_bytes());
        match encoding {
            Encoding::Base64 => append_base64(text, &self.payload),
            Encoding::Binary => {
                for byte in &self.payload {
                    match byte {
                        b'\\' | b'\'' => text.extend([b'\\', *byte]),
                        b' '..=b'~' => text.push(*byte),
                        _ => text.extend_from_slice(format!("\\x{byte:02x}").as_bytes()),
                    }
                }
            }
        }
        text.extend_from_slice(b"',\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory of this test, gone with it.
    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
            std::fs::create_dir(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn entry(from: From, at: u64, payload: &[u8]) -> Entry {
        Entry { from, at: Duration::from_millis(at), payload: payload.to_vec() }
    }

    #[test]
    fn f1_entries_as_upstream_writes_them() {
        let mut text = Vec::new();
        entry(From::Client, 583, b"hello'\\\x00\xff~").format(Encoding::Binary, &mut text);
        entry(From::Target, 621, b"hello").format(Encoding::Base64, &mut text);
        let expected = "'}583}hello\\'\\\\\\x00\\xff~',\n'{621{aGVsbG8=',\n";
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }

    #[tokio::test]
    async fn f2_no_file_is_overwritten_and_none_is_anybodys() {
        use std::os::unix::fs::PermissionsExt;
        let directory = Directory::new("recordings");
        let path = directory.0.join("session");
        let file = |number: u32| directory.0.join(format!("session.{number}"));
        std::fs::write(file(1), "mine").unwrap();
        std::fs::write(file(3), "mine").unwrap();
        let recordings = Recordings::new(path);
        for _ in 0..2 {
            let mut recorder = recordings.begin(1, Encoding::Binary);
            recorder.record(From::Target, b"x");
            recorder.finish().await;
        }
        for number in [2, 4] {
            let mode = std::fs::metadata(file(number)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            assert!(std::fs::read_to_string(file(number)).unwrap().ends_with("{x',\n'EOF'];\n"));
        }
        for number in [1, 3] {
            assert_eq!(std::fs::read_to_string(file(number)).unwrap(), "mine");
        }
    }

    #[tokio::test]
    async fn f2_a_recording_that_cannot_be_is_none() {
        let mut recorder = Recordings::new("/dev/null/x".into()).begin(1, Encoding::Binary);
        for _ in 0..3 {
            recorder.record(From::Target, b"x");
            tokio::task::yield_now().await;
        }
        recorder.finish().await;
    }

    /// The writer does not run in between: to the recorder that is a disk that takes nothing.
    #[tokio::test]
    async fn f2_a_slow_disk_neither_blocks_nor_costs_memory() {
        let directory = Directory::new("slow");
        let recordings = Recordings::new(directory.0.join("session"));
        let mut recorder = recordings.begin(1, Encoding::Binary);
        let piece = vec![b'x'; 65_000];
        let fitting = PENDING_MAX / (piece.len() + OVERHEAD);
        for _ in 0..fitting {
            recorder.record(From::Target, &piece);
        }
        assert!(recorder.entries.is_some());
        recorder.record(From::Target, &piece);
        assert!(recorder.entries.is_none());
        recorder.record(From::Target, &piece);
        recorder.finish().await;
        let written = std::fs::read_to_string(directory.0.join("session.1")).unwrap();
        assert_eq!(written.matches("',\n").count(), fitting);
        assert!(
            written.ends_with(std::str::from_utf8(END).unwrap()),
            "what there is can be loaded"
        );
    }

    /// The kernel's own full disk.
    #[test]
    fn f2_a_full_disk_is_an_error_of_the_recording() {
        let file = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut script = Script { file, encoding: Encoding::Binary, length: 0 };
        let error = script.append(&[entry(From::Client, 0, b"x")]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StorageFull);
    }
}
