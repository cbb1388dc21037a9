//! What the log says of a session, when it starts and when it ends (B10, A5): who, through whom, as whom, where to. A
//! target that has a name is reached first, so that its address can be said; whoever cannot be reached by it has
//! his first record then. Knows what is said, and not when.

use std::fmt;
use std::net::SocketAddr;

use tracing::info;

use crate::book::{Asked, Entry};
use crate::peer::TlsVersion;

/// What a session's records say besides what the book has of it.
#[derive(Debug, Default)]
pub(crate) struct Account {
    /// Where its target was reached first, if that is called something else.
    reached: Option<Box<SocketAddr>>,
}

/// The values that both records have.
macro_rules! record {
    ($account:expr, $entry:expr, $($rest:tt)*) => {{
        let (Account { reached }, Entry { id, peer, destination, login, .. }) = ($account, $entry);
        let Asked { version, path } = asked($entry);
        info!(
            session = id,
            client = %peer.address.client(),
            port = peer.address.port(),
            via = peer.via.as_deref().map(display),
            version,
            path,
            target = %destination,
            target_address = reached.as_deref().map(display),
            tls = peer.tls.map(TlsVersion::number),
            name = peer.certificate,
            user = login.as_ref().and_then(|login| login.user.as_deref()),
            token = login.as_ref().and_then(|login| login.token.as_deref()),
            $($rest)*
        )
    }};
}

impl Account {
    /// Notes where the target is reached, unless that is known.
    pub(crate) fn reach(&mut self, address: impl FnOnce() -> Option<SocketAddr>) {
        if self.reached.is_none() {
            self.reached = address().map(Box::new);
        }
    }

    /// As another image of this program goes on with it.
    pub(crate) fn resume(reached: Option<SocketAddr>) -> Self {
        Self { reached: reached.map(Box::new) }
    }

    /// Where its target was reached first, if that is called something else.
    pub(crate) fn reached(&self) -> Option<SocketAddr> {
        self.reached.as_deref().copied()
    }

    /// The session starts.
    pub(crate) fn started(&self, entry: &Entry) {
        let Asked { version, path } = asked(entry);
        record!(
            self,
            entry,
            "session started: {}, version {version}, path {path:?}{}",
            Ends(self, entry),
            Shown(entry)
        );
    }

    /// It has ended, with this close code and reason.
    pub(crate) fn ended(&self, entry: &Entry, code: u16, reason: &str) {
        let duration = entry.began.elapsed();
        record!(
            self,
            entry,
            sent = entry.sent(),
            received = entry.received(),
            duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
            code,
            reason,
            "session ended: {} after {:.1} s, {} bytes sent, {} received, code {code}{}{}",
            Ends(self, entry),
            duration.as_secs_f64(),
            entry.sent(),
            entry.received(),
            in_quotes(reason),
            Shown(entry)
        );
    }
}

/// What its handshake has asked for.
fn asked(entry: &Entry) -> Asked<'_> {
    entry.asked().expect("a session has records when its handshake is answered")
}

/// Which session it is, between whom.
struct Ends<'a>(&'a Account, &'a Entry);

impl fmt::Display for Ends<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Entry { id, peer, destination, .. } = self.1;
        write!(out, "{id}, {} to {destination}", peer.whence())?;
        match &self.0.reached {
            Some(address) => write!(out, " ({address})"),
            None => Ok(()),
        }
    }
}

/// What the client has shown to be let in, and in what it is wrapped.
struct Shown<'a>(&'a Entry);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Entry { peer, login, .. } = self.0;
        if let Some(version) = peer.tls.map(TlsVersion::number) {
            write!(out, ", tls {version}")?;
        }
        if let Some(name) = &peer.certificate {
            write!(out, ", name {name:?}")?;
        }
        let Some(login) = login else { return Ok(()) };
        if let Some(user) = &login.user {
            write!(out, ", user {user:?}")?;
        }
        match &login.token {
            Some(token) => write!(out, ", token {token:?}"),
            None => Ok(()),
        }
    }
}

/// A close reason behind its code.
fn in_quotes(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(" {reason:?}") }
}
