//! How long a client may do nothing at a connection without a session. Knows no connection.

use std::time::Duration;

/// How long a kept-alive connection may be idle between two requests (T6), and how long its client may
/// take nothing of an answer.
pub(crate) const IDLE: Duration = Duration::from_secs(60);
