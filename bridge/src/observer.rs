//! A bridge as its administrator sees it: its counters, its open sessions, and a way to end one of them. Goes through
//! the session book, and delays no session: the slow work is done after the lock of the book is released.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::book::{Book, Call, Entry};
use crate::metrics::{Counts, Metrics};
use crate::peer::TlsVersion;

/// An observer of one bridge. It is made before the bridge begins, and can be asked before that and after the bridge
/// has ended. Copies observe the same bridge.
#[derive(Debug, Clone, Default)]
pub struct Observer(Arc<OnceLock<Arc<Book>>>);

/// An open session. What the log may not show, secrets for one, is not in it either.
#[derive(Debug, Clone)]
pub struct SessionView {
    /// Its number, from 1.
    pub id: u64,
    /// The client's address, or its user if it came through a Unix socket.
    pub client: String,
    /// The port of that address.
    pub port: Option<u16>,
    /// The trusted proxy that the client came through.
    pub via: Option<String>,
    /// The user whose password the client has shown.
    pub user: Option<String>,
    /// The beginning of the client's token.
    pub token: Option<String>,
    /// The name in the client's certificate.
    pub certificate: Option<String>,
    /// The version of TLS.
    pub tls: Option<&'static str>,
    /// The version of the WebSocket protocol; none while the handshake is being answered.
    pub version: Option<String>,
    /// What the request asked for, without secrets; none while the handshake is being answered.
    pub path: Option<String>,
    /// The target.
    pub target: String,
    /// How long ago the session began.
    pub age: Duration,
    /// Payload bytes from the client.
    pub received: u64,
    /// Payload bytes for the client.
    pub sent: u64,
}

impl Observer {
    /// Attaches the observer to a bridge that begins.
    pub(crate) fn observe(&self, book: &Arc<Book>) {
        // A second bridge has the same configuration in tests only.
        let _ = self.0.set(Arc::clone(book));
    }

    /// What the bridge has counted; before it has begun, nothing.
    pub fn counts(&self) -> Counts {
        self.0.get().map_or_else(|| Metrics::default().counts(), |book| book.counts())
    }

    /// The sessions that are open, in the order in which they have begun.
    pub fn sessions(&self) -> Vec<SessionView> {
        let mut entries = self.0.get().map(|book| book.entries()).unwrap_or_default();
        entries.sort_unstable_by_key(|entry| entry.id);
        entries.iter().map(|entry| SessionView::of(entry)).collect()
    }

    /// Ends the session with this number; its client gets close code 1008. False: there is no such session.
    pub fn end_session(&self, id: u64) -> bool {
        let entry = self.0.get().and_then(|book| book.entry(id));
        entry.is_some_and(|entry| {
            entry.call(Call::Dismissed);
            true
        })
    }
}

impl SessionView {
    fn of(entry: &Entry) -> Self {
        let Entry { id, peer, destination, login, began, .. } = entry;
        let (login, asked) = (login.as_deref(), entry.asked());
        let owned = |text: &str| text.to_owned();
        Self {
            id: *id,
            client: peer.address.client().to_string(),
            port: peer.address.port(),
            via: peer.via.as_ref().map(ToString::to_string),
            user: login.and_then(|login| login.user.as_deref()).map(owned),
            token: login.and_then(|login| login.token.as_deref()).map(owned),
            certificate: peer.certificate.as_deref().map(owned),
            tls: peer.tls.map(TlsVersion::number),
            version: asked.map(|asked| owned(asked.version)),
            path: asked.map(|asked| owned(asked.path)),
            target: destination.to_string(),
            age: began.elapsed(),
            received: entry.received(),
            sent: entry.sent(),
        }
    }
}
