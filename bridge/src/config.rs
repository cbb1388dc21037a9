//! What a bridge is told once, at its start: plain values, nothing left to interpret.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use crate::admission::auth::Auth;
use crate::client_address::ClientAddress;
use crate::directory::Directory;
use crate::network::Networks;
use crate::observer::Observer;
use crate::private::Private;
use crate::proxies::Proxies;
use crate::questions::QuestionSender;
use crate::tap::Traffic;
use crate::tls::{Connector, Tls};

/// Everything [`serve`](crate::serve) needs to know besides its listeners.
#[derive(Debug)]
pub struct Config {
    /// Where sessions go.
    pub directory: Directory,
    /// How many client connections may be open at once, sessions and handshakes together.
    pub max_connections: usize,
    /// How much memory clients may make us keep, in bytes: heads, downloads, recordings, and sessions whose peer takes
    /// nothing.
    pub memory: usize,
    /// How long a client may take from its accept to the end of its first request head, and from
    /// the first byte of each later one to its end.
    pub head_timeout: Duration,
    /// The directory whose files web requests are answered with; none: they get 405.
    pub web: Option<PathBuf>,
    /// Whether a directory without a page of its own is listed; else it is not found.
    pub lists_directories: bool,
    /// Sub-protocols that are confirmed to clients who offer them, before `binary`.
    pub subprotocols: Vec<&'static str>,
    /// End after one session; see [`Outcome::RunOnce`](crate::Outcome::RunOnce).
    pub run_once: bool,
    /// When to stop accepting, and to end with the last session.
    pub timeout: Option<Instant>,
    /// End when there was no session for this long.
    pub idle_timeout: Option<Duration>,
    /// Whether sessions of ours go on in another process, after a hand-over (O2): then the bridge is not idle.
    pub is_busy_elsewhere: watch::Receiver<bool>,
    /// Told how many sessions there are, whenever that changes.
    pub open_sessions: watch::Sender<usize>,
    /// What is done with each session from time to time.
    pub upkeep: Upkeep,
    /// Who gets in, and to what.
    pub access: Access,
    /// The TLS client for connections to targets, if these are encrypted; may change at any time, for the sessions to come.
    pub target_tls: Option<watch::Receiver<Connector>>,
    /// What targets see of clients.
    pub client_address: ClientAddress,
    /// Record sessions, each to a new file: this name, a dot and a number.
    pub record: Option<PathBuf>,
    /// Takes the traffic letters, which say which way the bytes of sessions go.
    pub traffic: Option<Traffic>,
    /// The observer, which sees the bridge's counters and sessions, and may end a session.
    pub observer: Option<Observer>,
}

/// What is done with each session from time to time; by default, nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Upkeep {
    /// How often each client is sent a ping (RFC 6455, section 5.5.2), whatever its session does. A client that sends
    /// nothing for three times as long, and for at least 60 s, is given up.
    pub heartbeat: Option<Duration>,
    /// How long a session lasts at most.
    pub timeout: Option<Duration>,
    /// How long a session lasts in which no payload moves.
    pub idle_timeout: Option<Duration>,
    /// Whether a session ends when its token does.
    pub expires: bool,
}

/// Who gets in, how, and to what. The default lets everybody in, unencrypted.
#[derive(Debug)]
pub struct Access {
    /// The proxies before us that are trusted to say whose a connection is.
    pub proxies: Proxies,
    /// Where clients may come from; none: from anywhere.
    pub allowed: Option<Networks>,
    /// How many connections a client may have open, where that is limited; of IPv6, a network of 64 bits is one.
    pub connections_per_client: Option<usize>,
    /// Whether TLS clients are served; may change at any time, for the clients to come.
    pub tls: watch::Receiver<Tls>,
    /// Notified when a client begins a TLS handshake: the owner of `tls` may then look whether it is still the newest.
    pub asked: Arc<Notify>,
    /// What becomes of unencrypted clients.
    pub plain: Plain,
    /// What a client must show before it gets a session; may change at any time, for the clients to come.
    pub auth: Option<watch::Receiver<Auth>>,
    /// The helper that is asked, too, whether a client gets a session, when it is known where that goes.
    pub judge: Option<QuestionSender>,
    /// Whether a client must show what `auth` demands, and be let in by `judge`, for files too.
    pub web_auth: bool,
    /// Files that no web request is answered with, wherever they lie.
    pub private: Arc<Private>,
}

/// What becomes of unencrypted clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plain {
    /// They are served.
    Served,
    /// They are told that the connection must be encrypted.
    Refused,
}

impl Default for Access {
    fn default() -> Self {
        let (_, tls) = watch::channel(Tls::Off("no certificate is given".into()));
        Self {
            proxies: Proxies::default(),
            allowed: None,
            connections_per_client: None,
            tls,
            asked: Arc::default(),
            plain: Plain::Served,
            auth: None,
            judge: None,
            web_auth: false,
            private: Arc::default(),
        }
    }
}
