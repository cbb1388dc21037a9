//! The two log records of a session, one at its start and one at its end (B10, A5): the client, its proxy, its user or token,
//! and the target. If the target has a host name, the first record waits until the target is connected, so that it can say the
//! address, or until it is known that it cannot be connected. Knows what the records say; must not know when they are due.

use std::fmt;
use std::net::SocketAddr;

use tracing::info;

use crate::book::{Entry, HandshakeRequest};
use crate::peer::TlsVersion;

/// What a session's log records say besides what its [`Entry`] in the session book has.
#[derive(Debug, Default)]
pub(crate) struct SessionLog {
    /// The address at which the target was first connected, if the destination is not shown as that address anyway.
    reached: Option<Box<SocketAddr>>,
}

/// The values that both records have.
macro_rules! record {
    ($account:expr, $entry:expr, $($rest:tt)*) => {{
        let (SessionLog { reached }, Entry { id, peer, destination, login, .. }) = ($account, $entry);
        let HandshakeRequest { version, path } = asked($entry);
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

impl SessionLog {
    /// Notes the target's address, unless one is known already.
    pub(crate) fn reach(&mut self, address: impl FnOnce() -> Option<SocketAddr>) {
        if self.reached.is_none() {
            self.reached = address().map(Box::new);
        }
    }

    /// What the records say of a session that goes on after a hand-over.
    pub(crate) fn resume(reached: Option<SocketAddr>) -> Self {
        Self { reached: reached.map(Box::new) }
    }

    /// The address at which the target was first connected, if the destination is not shown as that address anyway.
    pub(crate) fn reached(&self) -> Option<SocketAddr> {
        self.reached.as_deref().copied()
    }

    /// Logs that the session starts.
    pub(crate) fn started(&self, entry: &Entry) {
        let HandshakeRequest { version, path } = asked(entry);
        record!(
            self,
            entry,
            "session started: {}, version {version}, path {path:?}{}",
            Ends(self, entry),
            ClientInfo(entry)
        );
    }

    /// Logs that the session has ended, with this close code and reason.
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
            ClientInfo(entry)
        );
    }
}

/// The protocol version and the path that the session's handshake has asked for.
fn asked(entry: &Entry) -> HandshakeRequest<'_> {
    entry.asked().expect("a session has records when its handshake is answered")
}

/// The session's number, its client and its target.
struct Ends<'a>(&'a SessionLog, &'a Entry);

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

/// The version of TLS, and what the client has shown to be let in: certificate name, user, token.
struct ClientInfo<'a>(&'a Entry);

impl fmt::Display for ClientInfo<'_> {
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

/// The close reason in quotes, as it follows the close code; nothing if it is empty.
fn in_quotes(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(" {reason:?}") }
}
