//! What a bridge is told once, at its start: plain values, nothing left to interpret.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::destination::Destination;
use crate::security::Security;
use crate::tap::Traffic;

/// Everything [`serve`](crate::serve) needs to know besides its listeners.
#[derive(Debug)]
pub struct Config {
    /// Where sessions go.
    pub destination: Arc<Destination>,
    /// How many client connections may be open at once, sessions and handshakes together.
    pub max_connections: usize,
    /// How long a client may take from its accept to the end of its first request head, and from
    /// the first byte of each later one to its end.
    pub head_timeout: Duration,
    /// The directory whose files web requests are answered with; none: they get 405.
    pub web: Option<PathBuf>,
    /// End after one session; see [`Outcome::RunOnce`](crate::Outcome::RunOnce).
    pub run_once: bool,
    /// Stop accepting this long after the start and end with the last session.
    pub timeout: Option<Duration>,
    /// End when there was no session for this long.
    pub idle_timeout: Option<Duration>,
    /// Who is let in, and how.
    pub security: Security,
    /// Record sessions, each to a new file: this name, a dot and a number.
    pub record: Option<PathBuf>,
    /// Says which way the bytes of sessions go.
    pub traffic: Option<Traffic>,
}
