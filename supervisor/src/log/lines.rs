//! A writer of lines that says how many are missing: lines that were dropped before they came here, because the file
//! was slow, and lines that are lost here, because it took none (a full disk, which may have room later). Knows no
//! file.

use std::io::{self, Write};

use bridge::error_text;

/// Writes lines.
#[derive(Debug)]
pub(super) struct Lines {
    /// What they are written to.
    name: &'static str,
    /// How many lines were dropped and not reported yet.
    dropped: u64,
    lost: u64,
    /// Why the last of the lost lines was lost.
    error: Option<io::Error>,
}

impl Lines {
    pub(super) fn of(name: &'static str) -> Self {
        Self { name, dropped: 0, lost: 0, error: None }
    }

    /// Writes a line, before which `dropped` lines were dropped. Before it, writes how many are missing, if that was
    /// not reported yet.
    pub(super) fn write(&mut self, mut out: impl Write, line: &[u8], dropped: u64) {
        self.dropped += dropped;
        match self.tell(&mut out).and_then(|()| out.write_all(line)) {
            Ok(()) => {}
            Err(error) => {
                self.lost += 1;
                self.error = Some(error);
            }
        }
    }

    fn tell(&mut self, out: &mut impl Write) -> io::Result<()> {
        if let Some(error) = &self.error {
            let (lost, name) = (self.lost, self.name);
            // The last lost line may have been written in part.
            let told =
                format!("\n{lost} lines lost: cannot write to {name}: {}\n", error_text(error));
            out.write_all(told.as_bytes())?;
            (self.lost, self.error) = (0, None);
        }
        if self.dropped > 0 {
            let told = format!("{} lines dropped: {} is slow\n", self.dropped, self.name);
            out.write_all(told.as_bytes())?;
            self.dropped = 0;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn w11_lines_that_cannot_be_written_are_counted() {
        let mut lines = Lines::of("the log file");
        let mut full = [0; 4];
        let mut written = Vec::new();
        lines.write(&mut written, b"one\n", 0);
        lines.write(full.as_mut_slice(), b"line two\n", 0);
        lines.write(full.as_mut_slice(), b"line three\n", 5);
        lines.write(&mut written, b"four\n", 0);
        lines.write(&mut written, b"five\n", 0);
        let text = String::from_utf8(written).expect("text");
        assert_eq!(
            text,
            "one\n\n2 lines lost: cannot write to the log file: failed to write whole buffer\n\
             5 lines dropped: the log file is slow\nfour\nfive\n"
        );
    }
}
