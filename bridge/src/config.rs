//! What a bridge is told once, at its start: plain values, nothing left to interpret.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use crate::security::Security;
use crate::tap::Traffic;

/// Everything [`serve`](crate::serve) needs to know besides its listeners.
#[derive(Debug)]
pub struct Config {
    /// Where sessions go.
    pub target: Target,
    /// How many client connections may be open at once, sessions and handshakes together.
    pub max_connections: usize,
    /// How long a client may take from its accept to the end of its first request head, and from
    /// the first byte of each later one to its end.
    pub head_timeout: Duration,
    /// The directory whose files web requests are answered with; none: they get 405.
    pub web: Option<PathBuf>,
    /// End after one session; see [`Outcome::RunOnce`](crate::Outcome::RunOnce).
    pub run_once: bool,
    /// When to stop accepting, and to end with the last session.
    pub timeout: Option<Instant>,
    /// End when there was no session for this long.
    pub idle_timeout: Option<Duration>,
    /// Who is let in, and how.
    pub security: Security,
    /// Record sessions, each to a new file: this name, a dot and a number.
    pub record: Option<PathBuf>,
    /// Says which way the bytes of sessions go.
    pub traffic: Option<Traffic>,
}

/// Where the bytes of a session go.
#[derive(Debug)]
pub enum Target {
    /// A TCP service that somebody else runs.
    Address(Address),
    /// The wrapped program, which comes and goes.
    Program(Program),
}

/// A host, by name or number, and a port. Names are resolved anew for each session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// A DNS name or an IP address, IPv6 without brackets.
    pub host: String,
    /// The TCP port.
    pub port: u16,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Program(_) => f.write_str("program"),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// The wrapped program as its sessions see it.
#[derive(Debug)]
pub struct Program {
    /// Whether it can be connected to now. The sender's end means [`Readiness::Gone`].
    pub readiness: watch::Receiver<Readiness>,
    /// How long a client is held while the program cannot be connected to.
    pub hold: Duration,
    /// Whether another instance will follow this one (respawn): then clients that find the
    /// program busy or gone are held, one goes at a time, and a connection that the program never
    /// accepted is tried again.
    pub respawns: bool,
    /// Rung when a connection was refused, or reset before it carried a byte: the program's
    /// listener may be gone.
    pub doubt: Arc<Notify>,
    /// Sessions that the program accepted, since the start.
    pub served: Arc<AtomicU64>,
}

/// Whether the wrapped program can be connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// Not now; later. Clients are held.
    Waiting,
    /// It listens here.
    Ready(SocketAddr),
    /// It has ended and will not come back. Clients get 1011 at once.
    Gone,
}

/// How a bridge is told to end. Each order includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shutdown {
    /// Not yet.
    Run,
    /// Stop accepting: no connection becomes a session any more. A limit of the configuration that has
    /// run out orders the same.
    NoMore,
    /// Close the held clients too (1011), and let the sessions come to their end.
    Drain,
    /// Close every session (1001).
    Now,
}
