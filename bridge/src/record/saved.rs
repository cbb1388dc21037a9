//! A recording in the state of a hand-over: the new binary goes on in the middle of its file. Must not know how the
//! state is written down.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::recording::{Recording, Written};
use super::script::Script;
use super::{Recorder, Recordings};
use crate::peer::Peer;
use crate::saved::{Descriptors, Invalid, Moment};
use crate::ws::Encoding;

/// A recording.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SavedRecording {
    number: u64,
    encoding: Encoding,
    began: Moment,
    is_over: bool,
    file: Option<SavedFile>,
}

/// Its file, once there is one.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct SavedFile {
    descriptor: RawFd,
    path: PathBuf,
    /// How many bytes of the file are whole: the head and entries.
    length: u64,
    has_entries: bool,
}

/// The recording of a session that stands still, of which something may still have to be written.
#[derive(Debug)]
pub(crate) struct StoodRecording {
    began: std::time::Instant,
    is_over: bool,
    recording: Arc<Recording>,
}

impl Recorder {
    /// The recording, for the hand-over, which waits until all is written.
    pub(crate) fn stand(&self) -> StoodRecording {
        let recording = Arc::clone(&self.recording);
        StoodRecording { began: self.began, is_over: self.is_over, recording }
    }
}

impl StoodRecording {
    /// Waits until all that the session has recorded is in the file.
    pub(crate) async fn flushed(&self) {
        self.recording.rests().await;
    }

    /// What the new binary needs to go on with the recording, once it is [flushed](Self::flushed).
    pub(crate) fn saved(&self) -> SavedRecording {
        let (number, encoding) = self.recording.kind();
        let (file, is_all) = self.recording.written(|written| match written {
            Written::Nothing => (None, false),
            Written::Begun(script, path) => (Some(SavedFile::of(script, path.clone())), false),
            Written::All => (None, true),
        });
        let is_over = self.is_over || is_all;
        SavedRecording { number, encoding, began: self.began.into(), is_over, file }
    }

    /// Takes the file, if there is one, in the forked copy of the old process, where nothing else writes to it any more. No new
    /// descriptor is needed, of which none may be left.
    pub(crate) fn take_file(&self) -> Option<OwnedFd> {
        match self.recording.leave() {
            Written::Begun(script, _) => Some(script.into_file().into()),
            Written::Nothing | Written::All => None,
        }
    }
}

impl SavedFile {
    fn of(script: &Script, path: PathBuf) -> Self {
        let (length, has_entries) = (script.length(), script.has_entries);
        Self { descriptor: script.file().as_raw_fd(), path, length, has_entries }
    }
}

impl SavedRecording {
    /// Its file's descriptor, if there is one.
    pub(crate) fn descriptor(&self) -> Option<RawFd> {
        self.file.as_ref().map(|file| file.descriptor)
    }

    /// Goes on with the recording of this session, which is with this peer.
    pub(crate) fn resume(
        self,
        recordings: &Arc<Recordings>,
        session: (u64, &Peer),
        descriptors: &mut Descriptors,
    ) -> Result<Recorder, Invalid> {
        let written = match self.file {
            Some(SavedFile { descriptor, path, length, has_entries }) => {
                let file = File::from(descriptors.take(descriptor)?);
                Written::Begun(Script::resume(file, self.encoding, length, has_entries), path)
            }
            None if self.is_over => Written::All,
            None => Written::Nothing,
        };
        let (recordings, number) = (Arc::clone(recordings), self.number);
        let (recording, ended) =
            Recording::resume(recordings, session, number, self.encoding, written);
        Ok(Recorder { began: self.began.instant(), recording, is_over: self.is_over, ended })
    }
}
