//! What a process writes, as it comes.

use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// What came out of a pipe or a terminal so far. Reading ends with the last process that has it
/// open.
#[derive(Clone, Default)]
pub(crate) struct Heard {
    so_far: Arc<Mutex<SoFar>>,
}

#[derive(Default)]
struct SoFar {
    bytes: Vec<u8>,
    ended: bool,
}

impl Heard {
    pub(crate) fn of(mut pipe: impl Read + Send + 'static) -> Self {
        let heard = Self::default();
        let so_far = heard.so_far.clone();
        thread::spawn(move || {
            let mut piece = [0; 4096];
            // Reading a terminal ends with an error (EIO), not with 0 bytes.
            while let Ok(length @ 1..) = pipe.read(&mut piece) {
                let mut so_far = so_far.lock().unwrap_or_else(PoisonError::into_inner);
                so_far.bytes.extend_from_slice(&piece[..length]);
            }
            so_far.lock().unwrap_or_else(PoisonError::into_inner).ended = true;
        });
        heard
    }

    /// Everything, a last line without its end too.
    pub(crate) fn text(&self) -> String {
        let so_far = self.so_far.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&so_far.bytes).into_owned()
    }

    /// The lines that are complete, or all if nobody can write any more.
    pub(crate) fn lines(&self) -> Vec<String> {
        let text = self.text();
        let complete = match (self.ended(), text.rfind('\n')) {
            (true, _) => &text[..],
            (false, Some(end)) => &text[..end],
            (false, None) => "",
        };
        complete.lines().map(str::to_owned).collect()
    }

    /// Whether nobody can write any more.
    pub(crate) fn ended(&self) -> bool {
        self.so_far.lock().unwrap_or_else(PoisonError::into_inner).ended
    }
}
