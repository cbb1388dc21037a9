//! The readers: tasks that log what the instances write, line by line. They can be stopped between two reads for a
//! hand-over, so that the new binary goes on in the middle of a line (O2). Knows pipes and lines; must not know who
//! writes.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use bridge::error_text;
use serde::{Deserialize, Serialize};
use tokio::net::unix::pipe::Receiver;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::handed::Handed;
use crate::octets::Octets;

/// A longer line is logged in pieces; journald's own limit, bytes.
const LINE_MAX: usize = 48 * 1024;
/// How much is read at once, bytes.
const READ: usize = 8 * 1024;
/// How long our end waits for the last of the program's lines.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// All readers.
#[derive(Debug, Default)]
pub(super) struct Readers {
    tasks: JoinSet<()>,
    lines: Vec<Arc<Lines>>,
}

/// What the new binary needs to go on with a reader.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ReaderState {
    pipe: RawFd,
    tag: String,
    /// The beginning of a line whose end has not been read.
    #[serde(default)]
    begun: Option<Octets>,
}

/// A reader: what it reads from, and what it has read.
#[derive(Debug)]
struct Lines {
    pipe: Receiver,
    tag: String,
    begun: Mutex<PartialLine>,
    /// Notified when the reader may go on.
    may_go_on: Notify,
}

#[derive(Debug, Default)]
struct PartialLine {
    /// The beginning of a line, which is not logged yet.
    bytes: Vec<u8>,
    is_still: bool,
    /// Nothing is read from the pipe any more.
    has_ended: bool,
}

/// What one read has come to.
enum Read {
    Some,
    /// There is nothing to read now.
    None,
    /// The reader is stopped until it may go on.
    Still,
    End,
}

impl Readers {
    /// Logs what comes from `pipe`, tagged. Needs a runtime.
    pub(super) fn add(&mut self, pipe: Receiver, tag: String) {
        self.begin(Lines::new(pipe, tag, vec![]));
    }

    /// Forgets the readers whose pipe has ended.
    pub(super) fn tidy(&mut self) {
        while self.tasks.try_join_next().is_some() {}
        self.lines.retain(|lines| !lines.begun().has_ended);
    }

    /// Nothing is read from now on, until they [go on](Self::go_on).
    pub(super) fn still(&self) {
        self.lines.iter().for_each(|lines| lines.begun().is_still = true);
    }

    pub(super) fn go_on(&self) {
        for lines in &self.lines {
            lines.begun().is_still = false;
            lines.may_go_on.notify_one();
        }
    }

    /// The state of the readers for the new binary, while they are stopped.
    pub(super) fn save(&self) -> Vec<ReaderState> {
        self.lines.iter().filter_map(|lines| lines.save()).collect()
    }

    /// Goes on where the old binary has stopped, but reads only after [`go_on`](Self::go_on). Needs a runtime.
    ///
    /// # Errors
    /// A descriptor is no pipe.
    pub(super) fn resume(states: Vec<ReaderState>, handed: &mut Handed<'_>) -> Result<Self> {
        let mut readers = Self::default();
        for ReaderState { pipe, tag, begun } in states {
            let copy = handed.copy(pipe)?;
            let pipe = Receiver::from_owned_fd(copy)
                .with_context(|| format!("cannot read the output of {tag}"))?;
            let lines = Lines::new(pipe, tag, begun.map(Octets::into_bytes).unwrap_or_default());
            lines.begun().is_still = true;
            readers.begin(lines);
        }
        Ok(readers)
    }

    /// Waits until everything is logged that was written, but not for ever: processes that are left may go on to write.
    pub(super) async fn finish(mut self) {
        let all = async { while self.tasks.join_next().await.is_some() {} };
        let _ = timeout(LAST_WORDS, all).await;
    }

    fn begin(&mut self, lines: Lines) {
        let lines = Arc::new(lines);
        self.lines.push(Arc::clone(&lines));
        self.tasks.spawn(async move { lines.log().await });
    }
}

impl ReaderState {
    pub(super) fn descriptor(&self) -> RawFd {
        self.pipe
    }
}

/// Logs each line that comes from `pipe`, tagged, until it ends.
pub(crate) async fn log_lines(pipe: Receiver, tag: String) {
    Lines::new(pipe, tag, vec![]).log().await;
}

impl Lines {
    fn new(pipe: Receiver, tag: String, bytes: Vec<u8>) -> Self {
        let begun = Mutex::new(PartialLine { bytes, ..PartialLine::default() });
        Self { pipe, tag, begun, may_go_on: Notify::new() }
    }

    async fn log(&self) {
        loop {
            match self.read() {
                Ok(Read::Some) => {}
                Ok(Read::None) => drop(self.pipe.readable().await),
                Ok(Read::Still) => self.may_go_on.notified().await,
                Ok(Read::End) => break,
                Err(error) => {
                    warn!("cannot read the output of {}: {}", self.tag, error_text(&error));
                    break;
                }
            }
            // Reading lines that are there already never waits: without this, a program that floods its output would
            // keep a thread that sessions may need.
            tokio::task::coop::consume_budget().await;
        }
        self.begun().has_ended = true;
    }

    /// Reads once, and logs the lines that are whole.
    fn read(&self) -> io::Result<Read> {
        let mut begun = self.begun();
        if begun.is_still {
            return Ok(Read::Still);
        }
        let mut bytes = [0; READ];
        match self.pipe.try_read(&mut bytes) {
            Ok(0) => {
                let last = std::mem::take(&mut begun.bytes);
                if !last.is_empty() {
                    self.say(&last);
                }
                Ok(Read::End)
            }
            Ok(length) => {
                begun.bytes.extend_from_slice(&bytes[..length]);
                let mut rest = begun.bytes.as_slice();
                while let Some(line) = next_line(&mut rest) {
                    self.say(line);
                }
                begun.bytes = rest.to_vec();
                Ok(Read::Some)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Read::None),
            Err(error) => Err(error),
        }
    }

    fn say(&self, line: &[u8]) {
        let text = String::from_utf8_lossy(line);
        info!("{}: {}", self.tag, text.trim_end_matches(['\n', '\r']));
    }

    /// None: its pipe has ended.
    fn save(&self) -> Option<ReaderState> {
        let begun = self.begun();
        let bytes = (!begun.bytes.is_empty()).then(|| Octets::from(begun.bytes.clone()));
        let state =
            ReaderState { pipe: self.pipe.as_raw_fd(), tag: self.tag.clone(), begun: bytes };
        (!begun.has_ended).then_some(state)
    }

    fn begun(&self) -> MutexGuard<'_, PartialLine> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The next line, or as much of it as is logged at once; none if that has not been read yet.
fn next_line<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = rest.iter().take(LINE_MAX).position(|byte| *byte == b'\n').map(|at| at + 1);
    let end = end.or_else(|| (rest.len() >= LINE_MAX).then_some(LINE_MAX))?;
    let (line, others) = rest.split_at(end);
    *rest = others;
    Some(line)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::os::fd::OwnedFd;

    use bridge::Descriptors;
    use nix::fcntl::OFlag;

    use super::*;

    #[test]
    fn w11_a_long_line_is_logged_in_pieces() {
        let long = [vec![b'x'; LINE_MAX + 1], b"\ny\nz".to_vec()].concat();
        let mut rest = long.as_slice();
        let mut next = || next_line(&mut rest).map(<[u8]>::len);
        assert_eq!([next(), next(), next(), next()], [Some(LINE_MAX), Some(2), Some(2), None]);
        assert_eq!(rest, b"z");
    }

    fn pipe() -> (Receiver, File) {
        let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC).expect("a pipe");
        (Receiver::from_owned_fd(reader).expect("a pipe"), writer.into())
    }

    /// What is written during the hand-over waits in the pipe; each byte is read by only one of the two binaries.
    #[tokio::test]
    async fn o2_output_goes_on_in_the_middle_of_a_line() {
        let (pipe, mut writer) = pipe();
        let mut old = Readers::default();
        old.add(pipe, "actor[1]".to_owned());
        writer.write_all(b"whole\nbeg\xff").expect("written");
        let begun = |readers: &Readers| readers.lines[0].begun().bytes.clone();
        while begun(&old) != b"beg\xff" {
            tokio::task::yield_now().await;
        }
        old.still();
        writer.write_all(b"un\nnext").expect("written");
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        let states = old.save();
        let json = serde_json::to_string(&states).expect("JSON");
        let states: Vec<ReaderState> = serde_json::from_str(&json).expect("the same");
        // As exec(2) does: the tasks are gone, the descriptor is there.
        let number = states[0].descriptor();
        let kept = old.lines[0].pipe.as_raw_fd();
        assert_eq!(number, kept);
        let copy = crate::handed::tests::steal(number);
        old.tasks.shutdown().await;
        drop(old);
        let copy_number = copy.as_raw_fd();
        let states = states.into_iter().map(|state| ReaderState { pipe: copy_number, ..state });
        let mut all: Descriptors = [copy].into_iter().collect();
        let mut handed = Handed::of(&mut all);
        let new = Readers::resume(states.collect(), &mut handed).expect("resumed");
        handed.settle();
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(begun(&new), b"beg\xff", "nothing is read before all has succeeded");
        new.go_on();
        while begun(&new) != b"next" {
            tokio::task::yield_now().await;
        }
        drop(writer);
        new.finish().await;
    }

    #[tokio::test]
    async fn o2_a_reader_that_is_called_off_goes_on() {
        let (pipe, mut writer) = pipe();
        let mut readers = Readers::default();
        readers.add(pipe, "actor[1]".to_owned());
        readers.still();
        writer.write_all(b"a").expect("written");
        readers.go_on();
        while readers.lines[0].begun().bytes != b"a" {
            tokio::task::yield_now().await;
        }
        drop(writer);
        while !readers.lines[0].begun().has_ended {
            tokio::task::yield_now().await;
        }
        assert_eq!(readers.save(), []);
        readers.tidy();
        assert!(readers.lines.is_empty());
    }

    #[tokio::test]
    async fn o2_output_that_is_no_pipe_is_refused() {
        let file = OwnedFd::from(tempfile::tempfile().expect("a file"));
        let pipe = file.as_raw_fd();
        let mut all: Descriptors = [file].into_iter().collect();
        let state = ReaderState { pipe, tag: "actor[1]".to_owned(), begun: None };
        Readers::resume(vec![state], &mut Handed::of(&mut all)).expect_err("a file");
    }
}
