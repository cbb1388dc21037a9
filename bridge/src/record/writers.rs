//! The threads that write recordings. They are few and do nothing else, so that a disk that hangs holds
//! up them alone, and neither a session nor a web page.

use std::io;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use super::recording::Recording;

/// Takes recordings that have something to be written. The threads end with it.
#[derive(Debug)]
pub(super) struct Writers {
    queue: Sender<Arc<Recording>>,
    recordings: Arc<Mutex<Receiver<Arc<Recording>>>>,
}

impl Writers {
    /// Without a thread: nothing is written yet.
    pub(super) fn new() -> Self {
        let (queue, recordings) = mpsc::channel();
        Self { queue, recordings: Arc::new(Mutex::new(recordings)) }
    }

    pub(super) fn add_thread(&self) -> io::Result<()> {
        let recordings = Arc::clone(&self.recordings);
        let thread = thread::Builder::new().name("recording".into());
        thread.spawn(move || write_all(&recordings)).map(drop)
    }

    /// Has a thread write a piece of the recording. The recording is put into the queue again only after that: so one
    /// thread at a time writes it.
    pub(super) fn put(&self, recording: Arc<Recording>) {
        self.queue.send(recording).expect("its other end is ours, too");
    }
}

fn write_all(recordings: &Mutex<Receiver<Arc<Recording>>>) {
    let next = || recordings.lock().unwrap_or_else(PoisonError::into_inner).recv();
    while let Ok(recording) = next() {
        recording.write();
    }
}
