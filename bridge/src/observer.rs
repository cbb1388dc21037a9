//! A bridge as somebody sees it who is no client of it: what it has counted, which sessions it has, and how one of them is
//! ended. Goes through the session book, and holds up no session: what takes time is done when the book is free again.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::book::{Book, Call, Entry};
use crate::metrics::{Counts, Metrics};
use crate::peer::TlsVersion;

/// An observer of one bridge, which is made before that begins, and may be asked by then and when it has ended. Copies
/// see the same.
#[derive(Debug, Clone, Default)]
pub struct Observer(Arc<OnceLock<Arc<Book>>>);

/// An open session. What the log has no right to is not in it either.
#[derive(Debug, Clone)]
pub struct SessionView {
    /// Its number, from 1.
    pub id: u64,
    /// Its address, or its user where it came through a Unix socket.
    pub client: String,
    /// Of that address.
    pub port: Option<u16>,
    /// The trusted proxy that it came through.
    pub via: Option<String>,
    /// The user whose password it has shown.
    pub user: Option<String>,
    /// The beginning of its token.
    pub token: Option<String>,
    /// The name in its certificate.
    pub certificate: Option<String>,
    /// The version of TLS.
    pub tls: Option<&'static str>,
    /// The version of the protocol; none while the handshake is being answered.
    pub version: Option<String>,
    /// What was asked for, without its secrets; the same.
    pub path: Option<String>,
    /// Where it goes.
    pub target: String,
    /// For how long it has been there.
    pub age: Duration,
    /// Payload bytes from the client.
    pub received: u64,
    /// Payload bytes for it.
    pub sent: u64,
}

impl Observer {
    /// The bridge begins.
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

    /// Has a session end (1008, as its client is told). False: there is none of this number.
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
