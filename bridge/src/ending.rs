//! How a bridge ends, or why it cannot go on.

use std::io;

use crate::error_text::error_text;

/// Why a bridge ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was told to; no session is left.
    Shutdown,
    /// Its one session has ended.
    RunOnce,
    /// `timeout` has run out and the last session has ended.
    Timeout,
    /// `idle_timeout` has run out.
    IdleTimeout,
    /// The one connection that there was has ended.
    Served,
}

/// Why a bridge cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A listening socket cannot be used.
    #[error("cannot use listening socket: {}", error_text(.0))]
    Listen(#[source] io::Error),
    /// The connection cannot be used.
    #[error("cannot use connection: {}", error_text(.0))]
    Connection(#[source] io::Error),
    /// There are no threads for recordings.
    #[error("cannot record sessions: {}", error_text(.0))]
    Record(#[source] io::Error),
    /// A listening socket does not accept any more, for a reason that time will not mend.
    #[error("cannot accept connections: {}", error_text(.0))]
    Accept(#[source] io::Error),
}
