//! One connection from its accept to its end: head, 101, target, pump, record.
//!
//! The order of things is here; how each is done is in the modules it calls.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use tokio::net::TcpStream;
use tokio::time::timeout_at;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tracing::info;

use crate::admission::Admission;
use crate::client::Client;
use crate::config::{Config, Shutdown};
use crate::http::{self, Upgraded};
use crate::order::Orders;
use crate::peer::{Peer, TlsVersion};
use crate::pump::{End, Pump, SHUTTING_DOWN};
use crate::record::Recordings;
use crate::redact;
use crate::sessions::Sessions;
use crate::stream::Stream;
use crate::tap::Tap;
use crate::target::{Reached, Target};
use crate::tls::{self, Failure};
use crate::turns::Turns;
use crate::unadmitted::{self, NoSession};
use crate::ws::{Encoding, Upgrade};

/// What all connections of a bridge share.
pub(crate) struct Shared {
    pub(crate) config: Arc<Config>,
    pub(crate) admission: Admission,
    pub(crate) sessions: Arc<Sessions>,
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
    io: TcpStream,
    address: SocketAddr,
    shared: Arc<Shared>,
    mut orders: Orders,
) {
    let address = SocketAddr::new(address.ip().to_canonical(), address.port());
    // A session lives long and its handshake does not: what that needs is freed here.
    let received = Box::pin(receive(io, address, Arc::clone(&shared), orders.clone())).await;
    let (peer, ticket, stream, codec, version, path) = match received {
        Ok((peer, Upgraded { ticket, stream, upgrade })) => {
            (peer, ticket, stream, upgrade.codec(), upgrade.version, shown_path(upgrade))
        }
        Err(why) => return unadmitted::ended(address, &why),
    };
    let tap = shared.tap(ticket.number(), codec.encoding());
    let mut client = Client::new(stream, codec, tap);
    let began = Instant::now();
    info!(
        session = ticket.number(),
        client = %peer.address.ip(),
        port = peer.address.port(),
        version,
        path = &*path,
        target = %shared.config.target,
        tls = peer.tls.map(TlsVersion::number),
        name = peer.certificate,
        "session started: {}, {} to {}, version {}, path {:?}{}",
        ticket.number(),
        peer.address,
        shared.config.target,
        version,
        path,
        encryption(&peer)
    );
    bridge(&mut client, ticket.target(), &shared.turns, &mut orders).await;
    let (code, reason) = client.ending();
    let duration = began.elapsed();
    info!(
        session = ticket.number(),
        client = %peer.address.ip(),
        port = peer.address.port(),
        version,
        path = &*path,
        target = %shared.config.target,
        tls = peer.tls.map(TlsVersion::number),
        name = peer.certificate,
        sent = client.sent,
        received = client.received,
        duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
        code,
        reason,
        "session ended: {}, {} after {:.1} s, {} bytes sent, {} received, code {code}{}",
        ticket.number(),
        peer.address,
        duration.as_secs_f64(),
        client.sent,
        client.received,
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
    io: TcpStream,
    address: SocketAddr,
    shared: Arc<Shared>,
    mut orders: Orders,
) -> Result<(Peer, Upgraded), NoSession> {
    let began = tokio::time::Instant::now();
    let Config { head_timeout, access, .. } = &*shared.config;
    let accepted = tokio::select! {
        () = orders.at_least(Shutdown::NoMore) => return Err(NoSession::NoMore),
        accepted = timeout_at(
            began + *head_timeout,
            tls::accept(io, address, &access.tls, access.plain),
        ) => accepted.map_err(|_| NoSession::TimedOut)?,
    };
    let (stream, peer) = match accepted {
        Ok(accepted) => accepted,
        Err((why, io)) => {
            if let Some(io) = io {
                http::linger(Stream::new(io), &mut orders).await;
            }
            return Err(why.into());
        }
    };
    let Shared { config, admission, .. } = &*shared;
    match http::receive(stream, &peer, config, admission, began, &mut orders).await {
        Ok(upgraded) => Ok((peer, upgraded)),
        Err(NoSession::Io(error)) => {
            Err(Failure::from_read(&error).map_or(NoSession::Io(error), NoSession::NotAccepted))
        }
        Err(why) => Err(why),
    }
}

/// Finds the client a target and pumps, again if the target was lost before anything happened.
async fn bridge(client: &mut Client, target: &Target, turns: &Turns, orders: &mut Orders) {
    let mut hold = target.hold();
    loop {
        match Box::pin(target.reach(client, orders, &mut hold)).await {
            Reached::Target(connection) => {
                let mut pump = Pump::new(client, connection, orders.clone());
                match run(&mut pump, turns, orders).await {
                    End::Finished => return,
                    End::Lost => target.doubt(&mut hold),
                }
            }
            Reached::Nothing(why) if !orders.given(Shutdown::Now) => {
                client.close(CloseCode::Error, &why.tell());
            }
            // Stopped along with us, it cannot be reached: we are what ends the session.
            Reached::Nothing(_) | Reached::Shutdown => {
                client.close(CloseCode::Away, SHUTTING_DOWN);
            }
            Reached::ClientEnded => {}
        }
        if client.is_over() {
            return Box::pin(client.farewell()).await;
        }
    }
}

async fn run(pump: &mut Pump<'_>, turns: &Turns, orders: &mut Orders) -> End {
    let mut is_told = false;
    loop {
        tokio::select! {
            // The order comes first: a target that is stopped along with us must not make a 1011 of it.
            biased;
            () = orders.at_least(Shutdown::Now), if !is_told => {
                is_told = true;
                pump.shut_down();
            }
            // Dropped, it loses its place in the queue and nothing else.
            end = turns.carry(pump) => return end,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Address, Target as Place};
    use std::time::Duration;
    use tokio::net::TcpListener;
    use tokio::sync::watch;

    #[tokio::test]
    async fn p6_a_connections_task_is_small() {
        let config = Arc::new(Config {
            target: Place::Address(Address { host: String::new(), port: 0 }),
            max_connections: 1,
            head_timeout: Duration::ZERO,
            web: None,
            run_once: false,
            timeout: None,
            idle_timeout: None,
            access: crate::config::Access::default(),
            record: None,
            traffic: None,
        });
        let sessions = Sessions::new(1);
        let shared = Arc::new(Shared {
            admission: Admission::new(
                &config.access,
                Arc::new(Target::new(Arc::clone(&config))),
                Arc::clone(&sessions),
            ),
            sessions,
            turns: Turns::new(),
            recordings: None,
            config,
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = listener.local_addr().unwrap();
        let io = TcpStream::connect(peer).await.unwrap();
        let (_giver, orders) = watch::channel(Shutdown::Run);
        let size = size_of_val(&attend(io, peer, shared, Orders(orders)));
        assert!(size <= 1600, "{size} bytes");
    }
}
