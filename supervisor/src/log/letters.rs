//! The traffic letters of `-v` and `--traffic` on standard output, as the Python websockify has them there: one letter
//! for each frame, which says in which direction it went, in lines. What a stopped terminal, or a pipe that nobody
//! reads, does not take is dropped. Knows standard output and the width of a line, and not what the letters mean: the
//! bridge gives them and their legend.

use std::io::{self, Write};

use bridge::{TRAFFIC_LEGEND, Traffic};

use crate::writer::{self, Writer};

/// How long a line is.
const WIDTH: usize = 80;

/// Whether the legend, which says what the letters mean, is shown or left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Legend {
    Shown,
    Left,
}

/// Makes the [`Traffic`] that takes the letters, and the [`Writer`] that writes them while it lives.
pub(crate) fn start(legend: Legend) -> io::Result<(Traffic, Writer)> {
    let mut lines = Lines { out: io::stdout(), width: 0 };
    if legend == Legend::Shown {
        // Where standard output is closed, nobody reads the legend.
        let _ = lines.out.write_all(TRAFFIC_LEGEND.as_bytes());
    }
    let (letters, writer) = writer::start("traffic", move |letters: Vec<u8>, _| {
        let _ = lines.write(&letters);
    })?;
    Ok((Traffic::new(letters), writer))
}

/// Writes letters in lines. Dropped, it ends the last line.
struct Lines<W: Write> {
    out: W,
    /// How long the present line is already.
    width: usize,
}

impl<W: Write> Lines<W> {
    /// Writes a letter, and the dot behind it that may come with it.
    fn write(&mut self, letters: &[u8]) -> io::Result<()> {
        if self.width + letters.len() > WIDTH {
            self.width = 0;
            self.out.write_all(b"\n")?;
        }
        self.width += letters.len();
        self.out.write_all(letters)?;
        self.out.flush()
    }
}

impl<W: Write> Drop for Lines<W> {
    fn drop(&mut self) {
        if self.width > 0 {
            let _ = self.out.write_all(b"\n").and_then(|()| self.out.flush());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b9_the_letters_are_lines_of_80() {
        let mut out = Vec::new();
        let mut lines = Lines { out: &mut out, width: 0 };
        for letters in ["}", "{."].into_iter().cycle().take(108) {
            lines.write(letters.as_bytes()).expect("memory");
        }
        drop(lines);
        let text = String::from_utf8(out).expect("text");
        let widths: Vec<_> = text.lines().map(str::len).collect();
        assert_eq!(widths, [79, 80, 3]);
        assert!(text.ends_with("{.\n") && !text.contains("\n."));
    }
}
