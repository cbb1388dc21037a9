//! The HTTP side of a connection: web requests are answered until one becomes a session.
//!
//! hyper reads the heads and keeps the connection alive, once [`first`] has seen that the connection
//! does not begin with an old handshake; what is answered is in [`reply`]; the deadlines (T6) and the
//! limits (L2) are here.

mod cached;
pub(crate) mod files;
pub(crate) mod first;
mod host;
mod listing;
mod pace;
pub(crate) mod place;
pub(crate) mod reply;

use std::convert::Infallible;
use std::future::{Future, poll_fn, ready};
use std::net::IpAddr;
use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};
use std::task::Poll;

use ::http::request::Parts;
use ::http::{Method, Request};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tracing::debug;

use crate::admission::auth::{Denial, Guard};
use crate::client::DRAIN;
use crate::config::{Config, Shutdown};
use crate::order::Orders;
use crate::peer::Peer;
use crate::private::Private;
use crate::redact;
use crate::sessions::{Session, Sessions};
use crate::stream::Stream;
use crate::unadmitted::{self, NoSession};
use crate::ws::{Refusal, Upgrade};
use first::First;
use pace::{Deadline, Metered, Traffic};
use reply::Reply;

/// The longest request head, bytes (L2).
const HEAD_MAX: usize = 16 * 1024;

/// A connection that was answered with 101.
pub(crate) struct Upgraded {
    pub(crate) stream: Stream,
    pub(crate) upgrade: Upgrade,
    pub(crate) session: Session,
}

/// Answers the requests of a new connection until one is a handshake. The first head must be there
/// `head_timeout` after `began`.
pub(crate) async fn receive(
    io: Stream,
    peer: &Peer,
    config: &Config,
    sessions: &Arc<Sessions>,
    guard: &Guard<'_>,
    began: Instant,
    orders: &mut Orders,
) -> Result<Upgraded, NoSession> {
    let first = first::receive(io, peer, sessions, guard);
    let first = tokio::select! {
        biased;
        first = timeout_at(began + config.head_timeout, first) => {
            first.unwrap_or(Err(NoSession::TimedOut))
        }
        () = orders.at_least(Shutdown::NoMore) => Err(NoSession::NoMore),
    };
    let io = match first? {
        First::Upgraded(upgraded) => return Ok(upgraded),
        First::Other(io) => io,
    };
    let traffic = Traffic::default();
    let web = config.web.as_deref();
    let upgrade = OnceLock::new();
    let private = &config.access.private;
    let reception = Reception { peer, web, private, sessions, guard, upgrade, traffic: &traffic };
    let mut deadline = Deadline::new(began, config.head_timeout);
    let mut connection = http1::Builder::new()
        .max_buf_size(HEAD_MAX)
        .header_read_timeout(None)
        // A client may shut down its sending side after its request, and still reads.
        .half_close(true)
        .serve_connection(TokioIo::new(Metered::new(io, &traffic)), &reception);
    let served = {
        let mut urged = orders.clone();
        let mut no_more = pin!(orders.at_least(Shutdown::NoMore));
        let mut now = pin!(urged.at_least(Shutdown::Now));
        let mut is_last = false;
        poll_fn(|cx| {
            if let Poll::Ready(served) = connection.poll_without_shutdown(cx) {
                return Poll::Ready(served.map_err(NoSession::Http));
            }
            if deadline.poll(cx, &traffic, || traffic.under_way()).is_ready() {
                return Poll::Ready(Err(NoSession::TimedOut));
            }
            // Once there is a session its 101 goes out, whatever the orders are.
            let is_free = reception.upgrade.get().is_none();
            if is_free && !is_last && no_more.as_mut().poll(cx).is_ready() {
                is_last = true;
                // A page that is being loaded by the client of the last session may be finished.
                deadline.hurry();
                Pin::new(&mut connection).graceful_shutdown();
                cx.waker().wake_by_ref();
            }
            if is_free && is_last && (deadline.is_in_head() || now.as_mut().poll(cx).is_ready()) {
                return Poll::Ready(Err(NoSession::NoMore));
            }
            Poll::Pending
        })
        .await
    };
    let http1::Parts { io, read_buf, .. } = connection.into_parts();
    let mut stream = io.into_inner().io;
    match (reception.upgrade.into_inner(), served) {
        (Some((upgrade, session)), Ok(())) => {
            stream.unread(read_buf);
            Ok(Upgraded { stream, upgrade, session })
        }
        (_, served) => {
            let why = served.err().unwrap_or(NoSession::Closed);
            if !matches!(why, NoSession::NoMore) {
                linger(stream, orders).await;
            }
            Err(why)
        }
    }
}

/// Ends a connection so that its last answer arrives: closing a socket with unread bytes resets
/// it.
pub(crate) async fn linger(mut stream: Stream, orders: &mut Orders) {
    let drain = async {
        let _ = stream.shutdown().await;
        let mut discarded = [0; 4096];
        while let Ok(1..) = stream.read(&mut discarded).await {}
    };
    tokio::select! {
        () = orders.at_least(Shutdown::NoMore) => {}
        _ = timeout(DRAIN, drain) => {}
    }
}

/// Answers requests, and remembers the one that became a session.
struct Reception<'a> {
    peer: &'a Peer,
    web: Option<&'a Path>,
    private: &'a Arc<Private>,
    sessions: &'a Arc<Sessions>,
    guard: &'a Guard<'a>,
    upgrade: OnceLock<(Upgrade, Session)>,
    traffic: &'a Traffic,
}

/// An answer under way.
type Answer<'a> = Pin<Box<dyn Future<Output = Result<Reply, Infallible>> + Send + 'a>>;

impl<'a> Service<Request<Incoming>> for Reception<'a> {
    type Response = Reply;
    type Error = Infallible;
    type Future = Answer<'a>;

    fn call(&self, request: Request<Incoming>) -> Answer<'a> {
        self.traffic.ask();
        let (head, _body) = request.into_parts();
        let upgrade =
            if host::is_good(&head) { Upgrade::from_head(&head) } else { Err(Refusal::Host) };
        if let Err(denial) = self.admit(&head, &upgrade) {
            return self.deny(&head, &upgrade, denial);
        }
        let reply = match upgrade {
            Ok(upgrade) => self.begin(&head, upgrade),
            Err(Refusal::WebRequest) => {
                return Box::pin(web_request(self.web, self.private, head, self.peer.address.ip()));
            }
            Err(refusal) => {
                let reply = reply::refusal(refusal);
                unadmitted::refused(self.peer, &head, reply.status(), refusal);
                reply
            }
        };
        Box::pin(ready(Ok(reply)))
    }
}

impl<'a> Reception<'a> {
    fn admit(&self, head: &Parts, upgrade: &Result<Upgrade, Refusal>) -> Result<(), Denial> {
        match upgrade {
            Ok(upgrade) => self.guard.admit_session(&head.headers, upgrade.version),
            // One that is good but for this was given back by `first`, for its answer.
            Err(Refusal::Hixie) => self.guard.admit_session(&head.headers, "hixie"),
            // A page is not told why its handshake failed. So it may ask what one would be told.
            Err(Refusal::WebRequest) if head.method == Method::OPTIONS => {
                self.guard.admit_session(&head.headers, "13")
            }
            Err(Refusal::WebRequest) => self.guard.admit_web_request(&head.headers),
            Err(_) => Ok(()),
        }
    }

    fn deny(&self, head: &Parts, upgrade: &Result<Upgrade, Refusal>, denial: Denial) -> Answer<'a> {
        let is_last = *upgrade == Err(Refusal::Hixie);
        let reply = reply::denied(denial, is_last);
        let version = upgrade.as_ref().map_or("", |upgrade| upgrade.version);
        unadmitted::denied(self.peer, head, version, reply.status(), denial);
        if denial != Denial::Credentials {
            return Box::pin(ready(Ok(reply)));
        }
        let until = self.guard.penalty();
        Box::pin(async move {
            sleep_until(until).await;
            Ok(reply)
        })
    }

    /// The answer to a good handshake.
    fn begin(&self, head: &Parts, upgrade: Upgrade) -> Reply {
        let Some(session) = self.sessions.begin() else {
            let reply = reply::no_more_sessions();
            unadmitted::refused(self.peer, head, reply.status(), "no more sessions");
            return reply;
        };
        if upgrade.protocol.is_none() {
            unadmitted::unknown_protocols(self.peer, &head.headers);
        }
        let mut reply = reply::switching(&upgrade);
        // hyper would add that the connection is kept alive, did it have to bring this down to 1.0.
        *reply.version_mut() = head.version;
        // hyper calls no service again after a 101.
        let _ = self.upgrade.set((upgrade, session));
        reply
    }
}

/// Answers a request that wants no session.
async fn web_request(
    web: Option<&Path>,
    private: &Arc<Private>,
    head: Parts,
    client: IpAddr,
) -> Result<Reply, Infallible> {
    let (method, uri) = (head.method.clone(), head.uri.clone());
    let reply = match web {
        Some(root) => files::answer(root, private, head).await,
        None => reply::refusal(Refusal::WebRequest),
    };
    let (method, path) = (redact::text(method.as_str()), redact::text(uri.path()));
    let status = reply.status().as_u16();
    debug!(
        %client,
        %method,
        path = &*path,
        status,
        "web request: {client}, {method} {path:?}, {status}"
    );
    Ok(reply)
}
