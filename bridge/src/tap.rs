//! A tap: what is shown of a session's traffic, as letters and as a recording.
//!
//! A session that nobody watches has no tap, and pays for a null pointer only. Nothing waits here while the session lives.
//! Knows payload and who has sent it; must not know how a recording is written.

use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;

use crate::buffer::Buffer;
use crate::record::{Recorder, SentBy, StoodRecording};

/// The meaning of the letters that a [`Traffic`] writes.
pub const TRAFFIC_LEGEND: &str = "
Traffic letters:
    }   a frame came from the client        }.  a part of one
    {   bytes came from the target
    >   bytes went to the target            >.  a part of them
    <   a frame went to the client          <.  a part of one

";

/// Writes one or two letters for each piece of data that a session moves.
#[derive(Clone)]
pub struct Traffic(Arc<Mutex<dyn Write + Send>>);

impl Traffic {
    /// Letters go to `writer`, which must not block: sessions wait for it.
    pub fn new(writer: impl Write + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(writer)))
    }

    fn say(&self, letter: &str) {
        let mut writer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // An error means that nobody reads the letters.
        let _ = writer.write_all(letter.as_bytes());
    }
}

impl fmt::Debug for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Traffic")
    }
}

/// The peer that bytes are written to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum To {
    Client,
    Target,
}

/// A session's tap.
pub(crate) struct Tap {
    traffic: Option<Traffic>,
    recorder: Option<Recorder>,
}

impl Tap {
    /// A tap for the letters and the recording, if there is at least one of them.
    pub(crate) fn new(traffic: Option<Traffic>, recorder: Option<Recorder>) -> Option<Box<Self>> {
        let is_watched = traffic.is_some() || recorder.is_some();
        is_watched.then(|| Box::new(Self { traffic, recorder }))
    }

    /// The recording of a session that is stopped for a hand-over, if it has one.
    pub(crate) fn stand(&self) -> Option<StoodRecording> {
        self.recorder.as_ref().map(Recorder::stand)
    }

    /// Payload came from the client. `is_end`: its frame ends with it.
    pub(crate) fn client_sent(&mut self, bytes: &[u8], is_end: bool) {
        self.say(if is_end { "}" } else { "}." });
        self.record(SentBy::Client, bytes);
    }

    /// Bytes came from the target.
    pub(crate) fn target_sent(&mut self, bytes: &[u8]) {
        self.say("{");
        self.record(SentBy::Target, bytes);
    }

    /// Writes as [`Buffer::poll_write`] does, and a letter that says whether all or a part was written.
    pub(crate) fn poll_write(
        &self,
        to: To,
        buffer: &mut Buffer,
        cx: &mut Context<'_>,
        sink: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        let before = buffer.left();
        let written = buffer.poll_write(cx, sink);
        match (&written, to) {
            (Poll::Ready(Ok(())), To::Client) => self.say("<"),
            (Poll::Ready(Ok(())), To::Target) => self.say(">"),
            (Poll::Pending, To::Client) if buffer.left() < before => self.say("<."),
            (Poll::Pending, To::Target) if buffer.left() < before => self.say(">."),
            _ => {}
        }
        written
    }

    /// Ends the recording, if there is one, and waits until it is written.
    pub(crate) async fn finish(self) {
        if let Some(recorder) = self.recorder {
            recorder.finish().await;
        }
    }

    fn say(&self, letter: &str) {
        if let Some(traffic) = &self.traffic {
            traffic.say(letter);
        }
    }

    fn record(&mut self, sent_by: SentBy, bytes: &[u8]) {
        if let Some(recorder) = &mut self.recorder {
            recorder.record(sent_by, bytes);
        }
    }
}
