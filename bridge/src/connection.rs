//! One connection from its accept to its end: TLS or not, requests, the 101, the session, its records in the log.
//!
//! The order of things is here; how each is done is in the modules it calls.

use std::borrow::Cow;
use std::sync::Arc;

use tokio::time::timeout_at;
use tracing::info;

use crate::admission::Admission;
use crate::book::{Book, Entry};
use crate::client::Client;
use crate::config::Config;
use crate::http::{self, Upgraded};
use crate::net::Socket;
use crate::peer::{Peer, PeerAddress, TlsVersion};
use crate::record::Recordings;
use crate::redact;
use crate::session::{self, Outbound};
use crate::shutdown::{Shutdown, ShutdownWatch};
use crate::stream::Stream;
use crate::tap::Tap;
use crate::tls::{self, Failure};
use crate::turns::Turns;
use crate::unadmitted::{self, NoSession};
use crate::ws::{Encoding, Upgrade};

/// What all connections of a bridge share.
pub(crate) struct Shared {
    pub(crate) config: Arc<Config>,
    pub(crate) admission: Admission,
    pub(crate) book: Arc<Book>,
    pub(crate) outbound: Outbound,
    pub(crate) turns: Turns,
    pub(crate) recordings: Option<Arc<Recordings>>,
}

impl Shared {
    /// What watches a session, if anything does.
    fn tap(&self, session: u64, encoding: Encoding) -> Option<Box<Tap>> {
        let recorder = self.recordings.as_ref().map(|all| all.begin(session, encoding));
        Tap::new(self.config.traffic.clone(), recorder)
    }
}

/// Attends to a connection until it ends, and records its session if it becomes one (B10).
pub(crate) async fn attend(
    io: Socket,
    address: PeerAddress,
    shared: Arc<Shared>,
    mut shutdown: ShutdownWatch,
) {
    // A session lives long and its handshake does not: what that needs is freed here.
    let received = Box::pin(receive(io, address, Arc::clone(&shared), shutdown.clone())).await;
    let (ticket, stream, codec, version, path) = match received {
        Ok(Upgraded { ticket, stream, upgrade }) => {
            (ticket, stream, upgrade.codec(), upgrade.version, shown_path(upgrade))
        }
        Err(why) => return unadmitted::ended(address, &why),
    };
    let session = ticket.session();
    let tap = shared.tap(session.entry.id, codec.encoding());
    let mut client = Client::new(stream, codec, tap, session);
    let session = Arc::clone(&client.session.entry);
    let Entry { id, peer, destination, began, .. } = &*session;
    info!(
        session = id,
        client = %peer.address.client(),
        port = peer.address.port(),
        version,
        path = &*path,
        target = %destination,
        tls = peer.tls.map(TlsVersion::number),
        name = peer.certificate,
        "session started: {}, {} to {}, version {}, path {:?}{}",
        id,
        peer.address,
        destination,
        version,
        path,
        encryption(peer)
    );
    session::bridge(&mut client, destination, &shared.outbound, &shared.turns, &mut shutdown).await;
    let (code, reason) = client.ending();
    let duration = began.elapsed();
    info!(
        session = id,
        client = %peer.address.client(),
        port = peer.address.port(),
        version,
        path = &*path,
        target = %destination,
        tls = peer.tls.map(TlsVersion::number),
        name = peer.certificate,
        sent = session.sent(),
        received = session.received(),
        duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
        code,
        reason,
        "session ended: {}, {} after {:.1} s, {} bytes sent, {} received, code {code}{}",
        id,
        peer.address,
        duration.as_secs_f64(),
        session.sent(),
        session.received(),
        in_quotes(reason)
    );
    if let Some(tap) = client.tap.take() {
        Box::pin(tap.finish()).await;
    }
}

/// The path as the log has it; the handshake is done with.
fn shown_path(upgrade: Upgrade) -> Box<str> {
    let shown = match redact::path(&upgrade.path) {
        Cow::Owned(shown) => shown,
        Cow::Borrowed(_) => upgrade.path,
    };
    shown.into()
}

fn encryption(peer: &Peer) -> String {
    let Some(version) = peer.tls.map(TlsVersion::number) else { return String::new() };
    match &peer.certificate {
        Some(name) => format!(", tls {version}, name {name:?}"),
        None => format!(", tls {version}"),
    }
}

/// A close reason behind its code.
fn in_quotes(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(" {reason:?}") }
}

async fn receive(
    io: Socket,
    address: PeerAddress,
    shared: Arc<Shared>,
    mut shutdown: ShutdownWatch,
) -> Result<Upgraded, NoSession> {
    let began = tokio::time::Instant::now();
    let Config { head_timeout, access, .. } = &*shared.config;
    let accepted = tokio::select! {
        () = shutdown.at_least(Shutdown::NoMore) => return Err(NoSession::NoMore),
        accepted = timeout_at(
            began + *head_timeout,
            tls::accept(io, address, access),
        ) => accepted.map_err(|_| NoSession::TimedOut)?,
    };
    let (stream, peer) = match accepted {
        Ok(accepted) => accepted,
        Err((why, io)) => {
            if let Some(io) = io {
                http::linger(Stream::new(io), &mut shutdown).await;
            }
            return Err(why.into());
        }
    };
    let peer = Arc::new(peer);
    let Shared { config, admission, .. } = &*shared;
    match http::receive(stream, &peer, config, admission, began, &mut shutdown).await {
        Err(NoSession::Io(error)) => {
            Err(Failure::from_read(&error).map_or(NoSession::Io(error), NoSession::NotAccepted))
        }
        received => received,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::destination::Address;
    use crate::net::Lookups;
    use std::time::Duration;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::watch;

    #[tokio::test]
    async fn p6_a_connections_task_is_small() {
        let config = Arc::new(Config {
            directory: Address { host: String::new(), port: 0 }.into(),
            max_connections: 1,
            head_timeout: Duration::ZERO,
            web: None,
            lists_directories: true,
            subprotocols: vec![],
            run_once: false,
            timeout: None,
            idle_timeout: None,
            upkeep: crate::config::Upkeep::default(),
            access: crate::config::Access::default(),
            record: None,
            target_tls: None,
            client_address: crate::client_address::ClientAddress::default(),
            traffic: None,
        });
        let (book, lookups) = (Book::new(1, false), Lookups::new());
        let shared = Arc::new(Shared {
            admission: Admission::new(&config, lookups.clone(), Arc::clone(&book)),
            book,
            outbound: Outbound {
                lookups,
                tls: None,
                approach: crate::client_address::Approach::new(config.client_address.clone()),
            },
            turns: Turns::new(),
            recordings: None,
            config,
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = listener.local_addr().unwrap();
        let io = TcpStream::connect(peer).await.unwrap();
        let (_sender, shutdown) = watch::channel(Shutdown::Run);
        let size = size_of_val(&attend(io.into(), peer.into(), shared, ShutdownWatch(shutdown)));
        assert!(size <= 1600, "{size} bytes");
    }
}
