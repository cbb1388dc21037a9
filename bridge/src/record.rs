//! Recordings: what a session carried, as a script that noVNC's playback page loads (`script`).
//!
//! A session passes on what it carries, and never waits for a disk while it lives; a `recording` keeps that until one
//! of a few threads of our own (`writers`) has written it. How much may wait is bounded, for one recording and for all.

mod payload;
mod recording;
mod saved;
mod script;
mod writers;

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::warn;

use crate::budget::Budget;
use crate::peer::Peer;
use crate::ws::Encoding;
use payload::Payload;
use recording::Recording;
pub(crate) use saved::{SavedRecording, StoodRecording};
use script::Entry;
pub(crate) use script::SentBy;
use writers::Writers;

/// How many threads write: one disk is no faster with more.
const THREADS: usize = 4;

/// How many bytes of all recordings together may wait for the disk, but no more than half of the memory budget: a disk
/// that hangs keeps no client out. A recording that would exceed it ends.
const WAITING_MAX: usize = 64 * 1024 * 1024;
/// How many recordings it takes to use all of that: a recording whose client sends much does not end the others.
const SHARES: usize = 4;
/// The least number of bytes that one recording may have waiting, unless fewer may wait in all: several reads of small
/// frames wait while a disk is busy that is fast enough.
const SHARE_LEAST: usize = 2 * 1024 * 1024;

/// How long the end of a session waits for the end of its recording, if nothing of the recording is written meanwhile.
const FINISH: Duration = Duration::from_secs(5);
/// How many times the end of a session waits that long, at most.
const FINISHES: usize = 10;

/// The recordings of one bridge: `FILE.1`, `FILE.2` and so on; numbers of files that exist are skipped.
#[derive(Debug)]
pub(crate) struct Recordings {
    path: PathBuf,
    taken: AtomicU64,
    /// How many bytes wait for the disk.
    waiting: AtomicUsize,
    /// How many bytes may wait.
    waiting_max: usize,
    /// The memory budget, in which the waiting bytes count.
    budget: Arc<Budget>,
    writers: Writers,
}

/// The recording of one session.
pub(crate) struct Recorder {
    began: Instant,
    recording: Arc<Recording>,
    /// Nothing more is recorded.
    is_over: bool,
    ended: oneshot::Receiver<()>,
}

impl Recordings {
    /// Recordings in one directory, with names that begin with `path`.
    pub(crate) fn new(path: PathBuf, budget: Arc<Budget>) -> io::Result<Arc<Self>> {
        Self::with_threads(path, budget, THREADS)
    }

    fn with_threads(path: PathBuf, budget: Arc<Budget>, threads: usize) -> io::Result<Arc<Self>> {
        let (taken, waiting) = (AtomicU64::new(0), AtomicUsize::new(0));
        let waiting_max = WAITING_MAX.min(budget.most() / 2);
        let writers = Writers::new();
        for _ in 0..threads {
            writers.add_thread()?;
        }
        Ok(Arc::new(Self { path, taken, waiting, waiting_max, budget, writers }))
    }

    /// How many numbers recordings have been given.
    pub(crate) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// The old binary has given this many numbers.
    pub(crate) fn go_on_from(&self, taken: u64) {
        self.taken.store(taken, Ordering::Relaxed);
    }

    /// Begins a recording of the session with this number and this peer. Failures are logged.
    pub(crate) fn begin(self: &Arc<Self>, session: (u64, &Peer), encoding: Encoding) -> Recorder {
        let (recording, ended) = Recording::new(Arc::clone(self), session, encoding);
        Recorder { began: Instant::now(), recording, is_over: false, ended }
    }

    fn number(&self) -> u64 {
        self.taken.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Creates the file with this number, or with the next one that is free. Only its owner may read it: it may hold
    /// passwords.
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

    /// How many bytes of one recording may wait.
    fn share(&self) -> usize {
        (self.waiting_max / SHARES).max(SHARE_LEAST).min(self.waiting_max)
    }

    /// Counts `size` more bytes as waiting. False: so many more may not wait.
    fn reserve(&self, size: usize) -> bool {
        let is_room = self.waiting.fetch_add(size, Ordering::Relaxed) + size <= self.waiting_max;
        if is_room {
            // These bytes count in the budget, but a spent budget does not end the recording: its end would be final,
            // and the budget may have room again in a moment.
            self.budget.add(size);
        } else {
            self.waiting.fetch_sub(size, Ordering::Relaxed);
        }
        is_room
    }

    fn release(&self, size: usize) {
        self.waiting.fetch_sub(size, Ordering::Relaxed);
        self.budget.release(size);
    }
}

impl Recorder {
    /// Records what was sent, unless the disk is too far behind.
    pub(crate) fn record(&mut self, sent_by: SentBy, bytes: &[u8]) {
        if self.is_over {
            return;
        }
        let payload = Payload::copy(bytes);
        let entry = Entry { sent_by, at: self.began.elapsed(), payload };
        self.is_over = !self.recording.put(entry);
    }

    /// Waits until the whole recording is in its file, but not for a disk that hangs: then what waits is dropped.
    pub(crate) async fn finish(mut self) {
        self.recording.end();
        let mut before = self.recording.size();
        for _ in 0..FINISHES {
            if timeout(FINISH, &mut self.ended).await.is_ok() {
                return;
            }
            let now = self.recording.size();
            if now >= before || now == 0 {
                break;
            }
            before = now;
        }
        let session = self.recording.session;
        warn!(session, "recording of session {session} may lack its end: the disk is too slow");
        self.recording.abandon();
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.recording.end();
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::script::END;
    use super::*;

    const PIECE: usize = 65_000;

    fn recordings(directory: &TempDir, threads: usize) -> Arc<Recordings> {
        Recordings::with_threads(directory.path().join("session"), Budget::new(1 << 30), threads)
            .unwrap()
    }

    fn begin(recordings: &Arc<Recordings>, session: u64) -> Recorder {
        let peer = Peer::new(std::net::SocketAddr::from(([127, 0, 0, 1], 1)).into());
        recordings.begin((session, &peer), Encoding::Binary)
    }

    #[tokio::test]
    async fn s2_no_file_is_overwritten_and_none_is_anybodys() {
        use std::os::unix::fs::PermissionsExt;
        let directory = TempDir::new().unwrap();
        let file = |number: u32| directory.path().join(format!("session.{number}"));
        std::fs::write(file(1), "mine").unwrap();
        std::fs::write(file(3), "mine").unwrap();
        let recordings = recordings(&directory, 1);
        for _ in 0..2 {
            let mut recorder = begin(&recordings, 1);
            recorder.record(SentBy::Target, b"x");
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
    async fn s2_a_recording_that_cannot_be_is_none() {
        let recordings = Recordings::new("/dev/null/x".into(), Budget::new(1 << 30)).unwrap();
        let mut recorder = begin(&recordings, 1);
        for _ in 0..3 {
            recorder.record(SentBy::Target, b"x");
            tokio::task::yield_now().await;
        }
        recorder.finish().await;
        assert_eq!(recordings.waiting.load(Ordering::Relaxed), 0);
    }

    /// Pieces that four threads write at once are in order.
    #[tokio::test]
    async fn s2_every_piece_is_written_in_its_turn() {
        let directory = TempDir::new().unwrap();
        let recordings = recordings(&directory, THREADS);
        let mut recorders: Vec<_> = (0..20).map(|session| begin(&recordings, session)).collect();
        for number in 0..500 {
            for recorder in &mut recorders {
                recorder.record(SentBy::Client, format!("{number};").as_bytes());
            }
        }
        for recorder in recorders {
            recorder.finish().await;
        }
        let expected: Vec<_> = (0..500).map(|number| format!("{number};")).collect();
        for number in 1..=20 {
            let path = directory.path().join(format!("session.{number}"));
            let text = std::fs::read_to_string(path).unwrap();
            let lines = text.lines().filter(|line| line.starts_with("'}"));
            let found: Vec<_> = lines
                .map(|line| line.rsplit('}').next().unwrap().trim_end_matches("',").to_owned())
                .collect();
            assert_eq!(found, expected);
        }
        assert_eq!(recordings.waiting.load(Ordering::Relaxed), 0);
    }

    /// Without writer threads, it looks to the recorder as if the disk took nothing.
    #[tokio::test]
    async fn s2_a_slow_disk_neither_blocks_nor_costs_memory() {
        let directory = TempDir::new().unwrap();
        let recordings = recordings(&directory, 0);
        let (waiting, threads) = (&recordings.waiting, &recordings.writers);
        let mut recorder = begin(&recordings, 1);
        let piece = vec![b'x'; PIECE];
        let mut fitting = 0;
        while !recorder.is_over {
            recorder.record(SentBy::Target, &piece);
            fitting += usize::from(!recorder.is_over);
        }
        assert_eq!(fitting, recordings.share() / (PIECE + 64));
        recorder.record(SentBy::Target, &piece);
        assert!(waiting.load(Ordering::Relaxed) <= recordings.share());
        threads.add_thread().unwrap();
        recorder.finish().await;
        let written = std::fs::read_to_string(directory.path().join("session.1")).unwrap();
        assert_eq!(written.matches("',\n").count(), fitting);
        let end = std::str::from_utf8(END).unwrap();
        assert!(written.ends_with(end), "what there is can be loaded");
    }

    /// L5: what waits counts in the budget, but recordings go on where others have spent it.
    #[tokio::test]
    async fn l5_a_recording_goes_on_where_memory_is_scarce() {
        let directory = TempDir::new().unwrap();
        let budget = Budget::new(30_000);
        budget.add(28_000);
        let path = directory.path().join("session");
        let recordings = Recordings::with_threads(path, Arc::clone(&budget), 0).unwrap();
        let mut recorder = begin(&recordings, 1);
        for _ in 0..3 {
            recorder.record(SentBy::Target, &[b'x'; 900]);
        }
        assert!(!recorder.is_over && budget.is_spent());
        recordings.writers.add_thread().unwrap();
        recorder.finish().await;
        let written = std::fs::read_to_string(directory.path().join("session.1")).unwrap();
        assert_eq!(written.matches("',\n").count(), 3);
        budget.release(28_000);
        assert!(!budget.is_tight(), "it is given back");
    }

    /// S2: where little may wait, a recording that falls behind ends, and does not end the others.
    #[tokio::test]
    async fn s2_one_recording_that_falls_behind_does_not_end_another() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("session");
        let recordings = Recordings::with_threads(path, Budget::new(16 << 20), 0).unwrap();
        let (mut much, mut little) = (begin(&recordings, 1), begin(&recordings, 2));
        for _ in 0..40 {
            much.record(SentBy::Client, &vec![b'x'; PIECE]);
        }
        little.record(SentBy::Client, b"x");
        assert_eq!((much.is_over, little.is_over), (true, false));
    }

    /// L5: a disk that takes nothing costs half of the memory budget, and keeps no client out.
    #[tokio::test]
    async fn l5_recordings_together_wait_with_half_the_budget() {
        let directory = TempDir::new().unwrap();
        let budget = Budget::new(16 << 20);
        let path = directory.path().join("session");
        let recordings = Recordings::with_threads(path, Arc::clone(&budget), 0).unwrap();
        let mut recorders: Vec<_> = (0..6).map(|session| begin(&recordings, session)).collect();
        let piece = vec![b'x'; PIECE];
        for _ in 0..40 {
            for recorder in &mut recorders {
                recorder.record(SentBy::Target, &piece);
            }
        }
        let waiting = recordings.waiting.load(Ordering::Relaxed);
        assert!(((8 << 20) - PIECE * 2..=8 << 20).contains(&waiting), "{waiting}");
        assert!(!budget.is_spent(), "others have the other half");
        assert!(recorders.iter().all(|recorder| recorder.is_over));
        recordings.writers.add_thread().unwrap();
        for recorder in recorders {
            recorder.finish().await;
        }
        let end = std::str::from_utf8(END).unwrap();
        for number in 1..=6 {
            let path = directory.path().join(format!("session.{number}"));
            assert!(std::fs::read_to_string(path).unwrap().ends_with(end), "it can be loaded");
        }
        assert!(!budget.is_tight(), "it is given back");
    }

    /// F8: what waits for a disk that hangs is bounded for all recordings together, and is given back when the sessions
    /// have ended.
    #[tokio::test(start_paused = true)]
    async fn f8_what_waits_in_all_is_bounded_and_given_back_with_its_sessions() {
        let directory = TempDir::new().unwrap();
        let recordings = recordings(&directory, 0);
        let mut recorders: Vec<_> = (0..100).map(|session| begin(&recordings, session)).collect();
        let piece = vec![b'x'; PIECE];
        for _ in 0..50 {
            for recorder in &mut recorders {
                recorder.record(SentBy::Target, &piece);
            }
        }
        let waiting = || recordings.waiting.load(Ordering::Relaxed);
        assert!((WAITING_MAX - PIECE * 2..=WAITING_MAX).contains(&waiting()), "{}", waiting());
        assert!(recorders.iter().all(|recorder| recorder.is_over));
        for recorder in recorders {
            recorder.finish().await;
        }
        assert_eq!(waiting(), 0);
    }
}
