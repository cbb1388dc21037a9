//! One recording between its session, which must not wait, and the thread that writes it.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};
use tracing::{info, warn};

use super::Recordings;
use super::script::{Entry, Script, WRITE};
use crate::error_text::error_text;
use crate::peer::Peer;
use crate::ws::Encoding;

/// What an entry costs besides its payload.
const OVERHEAD: usize = 64;

#[derive(Debug)]
pub(super) struct Recording {
    pub(super) session: u64,
    /// The client of the session, for the log.
    client: Box<str>,
    number: u64,
    encoding: Encoding,
    recordings: Arc<Recordings>,
    waiting: Mutex<Waiting>,
    /// Locked by the thread that writes, for as long as the disk takes.
    written: Mutex<Written>,
    /// Notified when the thread that writes has nothing more to write.
    rest: Notify,
}

/// What the session has recorded, and the thread that writes has not taken yet.
#[derive(Debug)]
struct Waiting {
    entries: VecDeque<Entry>,
    /// The memory that the entries take, bytes.
    size: usize,
    /// Whether the recording is in the queue of the threads, or one of them is writing it.
    is_queued: bool,
    /// What follows the last entry.
    end: End,
    /// Dropped when nothing is left to be written.
    done: Option<oneshot::Sender<()>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The session goes on.
    Open,
    /// The end of the script.
    Due,
    /// The session no longer waits for it. If there is no file yet, none is created.
    Abandoned,
    /// Nothing: the file could not be written.
    Failed,
}

#[derive(Debug)]
pub(super) enum Written {
    Nothing,
    Begun(Script, PathBuf),
    All,
}

impl Recording {
    /// Begins a recording; the receiver learns of its end.
    pub(super) fn new(
        recordings: Arc<Recordings>,
        (session, peer): (u64, &Peer),
        encoding: Encoding,
    ) -> (Arc<Self>, oneshot::Receiver<()>) {
        let (done, ended) = oneshot::channel();
        let (entries, size) = (VecDeque::new(), 0);
        let done = Some(done);
        let waiting = Waiting { entries, size, is_queued: true, end: End::Open, done };
        let recording = Arc::new(Self {
            session,
            client: peer.whence().to_string().into(),
            number: recordings.number(),
            encoding,
            recordings,
            waiting: Mutex::new(waiting),
            written: Mutex::new(Written::Nothing),
            rest: Notify::new(),
        });
        recording.recordings.writers.put(Arc::clone(&recording));
        (recording, ended)
    }

    /// Goes on with a recording of which `written` is in the file.
    pub(super) fn resume(
        recordings: Arc<Recordings>,
        (session, peer): (u64, &Peer),
        number: u64,
        encoding: Encoding,
        written: Written,
    ) -> (Arc<Self>, oneshot::Receiver<()>) {
        let (done, ended) = oneshot::channel();
        let is_over = matches!(written, Written::All);
        let waiting = Waiting {
            entries: VecDeque::new(),
            size: 0,
            is_queued: false,
            end: if is_over { End::Failed } else { End::Open },
            done: (!is_over).then_some(done),
        };
        let recording = Arc::new(Self {
            session,
            client: peer.whence().to_string().into(),
            number,
            encoding,
            recordings,
            waiting: Mutex::new(waiting),
            written: Mutex::new(written),
            rest: Notify::new(),
        });
        // If there is no file yet, it is created now, as it would have been.
        recording.wake(recording.waiting());
        (recording, ended)
    }

    /// Waits until the threads have written all that there is.
    pub(super) async fn rests(&self) {
        loop {
            let rests = self.rest.notified();
            {
                let waiting = self.waiting();
                if !waiting.is_queued || waiting.done.is_none() {
                    return;
                }
            }
            rests.await;
        }
    }

    /// The number of its file, and how its payload is written.
    pub(super) fn kind(&self) -> (u64, Encoding) {
        (self.number, self.encoding)
    }

    /// Looks at how much is written.
    pub(super) fn written<T>(&self, look: impl FnOnce(&Written) -> T) -> T {
        look(&self.written.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Leaves the file to the caller, and writes nothing more.
    pub(super) fn leave(&self) -> Written {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *written, Written::All)
    }

    /// Adds an entry. False: the recording takes none any more.
    pub(super) fn put(self: &Arc<Self>, entry: Entry) -> bool {
        let mut waiting = self.waiting();
        if waiting.end != End::Open {
            return false;
        }
        let size = cost(&entry);
        if waiting.size + size > self.recordings.share() || !self.recordings.reserve(size) {
            let session = self.session;
            warn!(session, "recording ended early: the disk is too slow for session {session}");
            self.end_with(waiting, End::Due);
            return false;
        }
        waiting.size += size;
        waiting.entries.push_back(entry);
        self.wake(waiting);
        true
    }

    /// The session has ended.
    pub(super) fn end(self: &Arc<Self>) {
        let waiting = self.waiting();
        if waiting.end == End::Open {
            self.end_with(waiting, End::Due);
        }
    }

    /// Drops what waits.
    pub(super) fn abandon(&self) {
        let mut waiting = self.waiting();
        if waiting.end != End::Failed {
            waiting.end = End::Abandoned;
        }
        self.clear(&mut waiting);
    }

    /// How much waits, bytes.
    pub(super) fn size(&self) -> usize {
        self.waiting().size
    }

    /// Writes a piece of what waits, the head of the script before the first one, and the end after the last one.
    /// Blocks.
    pub(super) fn write(self: &Arc<Self>) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let (entries, end) = self.take();
        let size = entries.iter().map(cost).sum();
        if let Err((path, error)) = self.write_to(&mut written, &entries, end) {
            self.fail(&mut written, &path, &error);
        }
        self.recordings.release(size);
        let mut waiting = self.waiting();
        if matches!(*written, Written::All) {
            waiting.done = None;
            self.rest.notify_one();
        } else if waiting.entries.is_empty() && waiting.end == End::Open {
            waiting.is_queued = false;
            self.rest.notify_one();
        } else {
            self.recordings.writers.put(Arc::clone(self));
        }
    }

    fn write_to(
        &self,
        written: &mut Written,
        entries: &[Entry],
        end: Option<End>,
    ) -> Result<(), (PathBuf, io::Error)> {
        if let Written::Nothing = written {
            if end == Some(End::Abandoned) {
                *written = Written::All;
                return Ok(());
            }
            *written = self.begin()?;
        }
        let Written::Begun(script, path) = written else { return Ok(()) };
        let failed = |error| (path.clone(), error);
        script.append(entries).map_err(failed)?;
        if end.is_some() {
            script.end().map_err(failed)?;
            *written = Written::All;
        }
        Ok(())
    }

    fn begin(&self) -> Result<Written, (PathBuf, io::Error)> {
        let (file, path): (File, _) = self.recordings.create(self.number)?;
        match Script::begin(file, self.encoding) {
            Ok(script) => {
                let (session, client) = (self.session, &self.client);
                info!(session, "recording session {session} of {client} to {}", path.display());
                Ok(Written::Begun(script, path))
            }
            Err(error) => {
                let _ = fs::remove_file(&path);
                Err((path, error))
            }
        }
    }

    /// Logs why the recording ends. A file without an entry is removed.
    fn fail(&self, written: &mut Written, path: &Path, error: &io::Error) {
        let (session, error) = (self.session, error_text(error));
        let begun = std::mem::replace(written, Written::All);
        match begun {
            Written::Begun(script, _) if script.has_entries => {
                warn!(
                    session,
                    "recording of session {session} ended early: cannot write {}: {error}",
                    path.display()
                );
            }
            begun => {
                if let Written::Begun(..) = begun {
                    let _ = fs::remove_file(path);
                }
                warn!(session, "cannot record session {session} to {}: {error}", path.display());
            }
        }
        let mut waiting = self.waiting();
        waiting.end = End::Failed;
        self.clear(&mut waiting);
    }

    /// The next entries, and what follows them if they are the last.
    fn take(&self) -> (Vec<Entry>, Option<End>) {
        let mut waiting = self.waiting();
        let (mut entries, mut size) = (Vec::new(), 0);
        while size < WRITE {
            let Some(entry) = waiting.entries.pop_front() else { break };
            size += cost(&entry);
            entries.push(entry);
        }
        waiting.size -= size;
        let is_last = waiting.entries.is_empty() && waiting.end != End::Open;
        (entries, is_last.then_some(waiting.end))
    }

    fn end_with(self: &Arc<Self>, mut waiting: MutexGuard<'_, Waiting>, end: End) {
        waiting.end = end;
        self.wake(waiting);
    }

    fn wake(self: &Arc<Self>, mut waiting: MutexGuard<'_, Waiting>) {
        if !std::mem::replace(&mut waiting.is_queued, true) {
            self.recordings.writers.put(Arc::clone(self));
        }
    }

    fn clear(&self, waiting: &mut Waiting) {
        waiting.entries = VecDeque::new();
        self.recordings.release(std::mem::take(&mut waiting.size));
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn cost(entry: &Entry) -> usize {
    entry.payload.len() + OVERHEAD
}
