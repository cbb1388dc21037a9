//! The text of a recording, in a file. Knows no session and no thread.
//!
//! The format is upstream's: `VNC_frame_encoding`, and `VNC_frame_data` with one string for every piece of traffic: `{`
//! from the target or `}` from the client, the milliseconds since the session began, the brace again, the payload;
//! `'EOF'` is the last.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::time::Duration;

use super::payload::Payload;
use crate::ws::{Encoding, append_base64};

/// How many bytes of text are written at once, or little more.
pub(super) const WRITE: usize = 64 * 1024;

pub(super) const END: &[u8] = b"'EOF'];\n";

/// Who sent something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SentBy {
    Client,
    Target,
}

/// A piece of traffic.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) sent_by: SentBy,
    pub(super) at: Duration,
    pub(super) payload: Payload,
}

/// A recording's file. It can be loaded even if the recording ends early.
#[derive(Debug)]
pub(super) struct Script {
    file: File,
    encoding: Encoding,
    /// How many bytes of the file are whole: the head and entries.
    length: u64,
    /// Whether there is an entry in it.
    pub(super) has_entries: bool,
}

impl Script {
    pub(super) fn begin(file: File, encoding: Encoding) -> io::Result<Self> {
        let mut script = Self { file, encoding, length: 0, has_entries: false };
        let name = match encoding {
            Encoding::Binary => "binary",
            Encoding::Base64 => "base64",
        };
        let head = format!("var VNC_frame_encoding = '{name}';\nvar VNC_frame_data = [\n");
        script.write(head.as_bytes())?;
        Ok(script)
    }

    /// Goes on in the middle of the file, of which `length` bytes are whole.
    pub(super) fn resume(file: File, encoding: Encoding, length: u64, has_entries: bool) -> Self {
        Self { file, encoding, length, has_entries }
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    pub(super) fn into_file(self) -> File {
        self.file
    }

    /// How many bytes of the file are whole.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    pub(super) fn append(&mut self, entries: &[Entry]) -> io::Result<()> {
        let mut text = Vec::new();
        for entry in entries {
            entry.format(self.encoding, &mut text);
            if text.len() >= WRITE {
                self.append_text(&text)?;
                text.clear();
            }
        }
        self.append_text(&text)
    }

    fn append_text(&mut self, text: &[u8]) -> io::Result<()> {
        self.write(text)?;
        self.has_entries |= !text.is_empty();
        Ok(())
    }

    pub(super) fn end(&mut self) -> io::Result<()> {
        self.write(END)
    }

    /// Writes whole entries. If that fails, cuts off the part that was written, and ends the script.
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
        let side = match self.sent_by {
            SentBy::Client => '}',
            SentBy::Target => '{',
        };
        text.extend_from_slice(format!("'{side}{}{side}", self.at.as_millis()).as_bytes());
        match encoding {
            Encoding::Base64 => append_base64(text, &self.payload),
            Encoding::Binary => {
                for byte in &*self.payload {
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
    use std::fs::OpenOptions;
    use std::io::ErrorKind;

    use super::*;

    fn entry(sent_by: SentBy, at: u64, payload: &[u8]) -> Entry {
        Entry { sent_by, at: Duration::from_millis(at), payload: Payload::copy(payload) }
    }

    #[test]
    fn s1_entries_as_upstream_writes_them() {
        let mut text = Vec::new();
        entry(SentBy::Client, 583, b"hello'\\\x00\xff~").format(Encoding::Binary, &mut text);
        entry(SentBy::Target, 621, b"hello").format(Encoding::Base64, &mut text);
        let expected = "'}583}hello\\'\\\\\\x00\\xff~',\n'{621{aGVsbG8=',\n";
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }

    /// `/dev/full` is the kernel's full disk.
    #[test]
    fn s2_a_full_disk_is_an_error_of_the_recording() {
        let full = || OpenOptions::new().write(true).open("/dev/full").unwrap();
        let error = Script::begin(full(), Encoding::Binary).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StorageFull);
        let mut script =
            Script { file: full(), encoding: Encoding::Binary, length: 0, has_entries: false };
        let error = script.append(&[entry(SentBy::Client, 0, b"x")]).unwrap_err();
        assert_eq!((error.kind(), script.has_entries), (ErrorKind::StorageFull, false));
    }
}
