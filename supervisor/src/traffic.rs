//! The traffic letters of `-v` on standard output, as upstream has them there.
//!
//! They are written by a thread of their own: a terminal that was stopped, or a pipe that nobody
//! reads, must not hold up a session. What it does not take is dropped.

use std::io::{self, Write};

use bridge::{TRAFFIC_LEGEND, Traffic};
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};

/// How many letters wait for standard output.
const PENDING: usize = 10_000;

/// Writes the legend, and makes what takes the letters. They are written while the guard lives.
pub(crate) fn letters() -> (Traffic, WorkerGuard) {
    let (mut letters, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(PENDING)
        .thread_name("traffic")
        .finish(io::stdout());
    // It takes everything.
    let _ = letters.write_all(TRAFFIC_LEGEND.as_bytes());
    (Traffic::new(letters), guard)
}
