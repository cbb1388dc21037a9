//! The letters of `-v` on standard output, as upstream has them there: one a frame, which says which way
//! it went. What a stopped terminal, or a pipe that nobody reads, does not take is dropped.

use std::io::{self, Write};

use bridge::{TRAFFIC_LEGEND, Traffic};

use crate::writer::{self, Writer};

/// Writes the legend, and makes what takes the letters. They are written while the writer lives.
pub(crate) fn start() -> io::Result<(Traffic, Writer)> {
    let (mut letters, writer) = writer::start("traffic", |letters: Vec<u8>, _| {
        let mut out = io::stdout();
        // Nobody is there to read them, then.
        let _ = out.write_all(&letters).and_then(|()| out.flush());
    })?;
    letters.write_all(TRAFFIC_LEGEND.as_bytes())?;
    Ok((Traffic::new(letters), writer))
}
