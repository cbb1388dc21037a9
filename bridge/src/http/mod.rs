//! The HTTP side of a connection: web requests are answered until one becomes a session.
//!
//! hyper reads the heads and keeps the connection alive, once [`first`] has seen that the connection does not begin with an old
//! handshake; what is answered is in [`reply`], the time that a connection may take (T6) in [`deadline`], the limits on heads
//! (L2) in [`first`].

mod cached;
mod counted;
mod deadline;
pub(crate) mod files;
pub(crate) mod first;
mod host;
mod idle;
mod listing;
mod metered;
mod range;
pub(crate) mod reply;
mod unread;
mod upgraded;
pub(crate) mod url_path;

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::Poll;

use ::http::request::Parts;
use ::http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::debug;
use tracing::field::display;

use crate::admission::{Admission, Refusal, Ticket};
use crate::arrival::Arrival;
use crate::client::DRAIN;
use crate::config::Config;
use crate::peer::Peer;
use crate::private::Private;
use crate::redact;
use crate::shutdown::{Shutdown, ShutdownWatch};
use crate::stream::Stream;
use crate::unadmitted::{self, NoSession};
use crate::ws::{NoUpgrade, Upgrade};
use counted::Counted;
use deadline::Deadline;
use first::{First, HEAD_MAX};
pub(crate) use idle::IDLE;
use metered::{Activity, Metered};
use reply::Reply;
pub(crate) use unread::{refuse_encrypted, turn_away};
pub(crate) use upgraded::Upgraded;

/// Answers the requests of a new connection until one is a handshake. The first head must be there
/// `head_timeout` after `began`.
pub(crate) async fn receive(
    io: Stream,
    peer: &Arc<Peer>,
    config: &Config,
    admission: &Admission,
    began: Instant,
    arrival: &Arc<Arrival>,
    shutdown: &mut ShutdownWatch,
) -> Result<Upgraded, NoSession> {
    let first = first::receive(io, peer, admission, began + config.head_timeout, arrival);
    let first = tokio::select! {
        biased;
        first = first => first,
        () = shutdown.turned_away() => Err(NoSession::NoMore),
    };
    let (io, refused) = match first? {
        First::Upgraded(upgraded) => return Ok(upgraded),
        First::Other(io, refused) => (io, refused),
        First::None(io, why) => return Err(Box::pin(turn_away(io, why, shutdown)).await),
    };
    // Boxed only now: a client that is slow with its first head needs no room for what comes next.
    Box::pin(answer(io, refused, peer, config, admission, began, arrival, shutdown)).await
}

/// Answers requests. The head of the first has been received; `refused` is its answer if it is refused already.
#[expect(clippy::too_many_arguments, reason = "it is the second half of one function")]
async fn answer(
    io: Stream,
    refused: Option<Refusal>,
    peer: &Arc<Peer>,
    config: &Config,
    admission: &Admission,
    began: Instant,
    arrival: &Arc<Arrival>,
    shutdown: &mut ShutdownWatch,
) -> Result<Upgraded, NoSession> {
    let activity = Activity::default();
    let reception = Reception {
        peer,
        admission,
        web: config
            .web
            .as_deref()
            .map(|path| files::Root { path, is_listed: config.lists_directories }),
        private: &config.access.private,
        subprotocols: &config.subprotocols,
        refused: Mutex::new(refused),
        admitted: OnceLock::new(),
        activity: &activity,
        arrival,
    };
    let mut connection = http1::Builder::new()
        .max_buf_size(HEAD_MAX)
        .header_read_timeout(None)
        // A client may shut down its sending side after its request, and still reads.
        .half_close(true)
        .serve_connection(TokioIo::new(Metered::new(io, &activity, &arrival.guest)), &reception);
    let deadline = Deadline::new(began, config.head_timeout);
    let served = serve(&mut connection, &reception, deadline, shutdown).await;
    let http1::Parts { io, read_buf, .. } = connection.into_parts();
    let mut stream = io.into_inner().into_stream();
    match (reception.admitted.into_inner(), served) {
        (Some((upgrade, ticket)), Ok(())) => {
            stream.put_back(read_buf);
            Ok(Upgraded { stream, upgrade, ticket })
        }
        (_, served) => {
            let why = served.err().unwrap_or(NoSession::Left);
            if activity.lacks_memory.load(Ordering::Relaxed) {
                return Err(turn_away(stream, NoSession::NoMemory, shutdown).await);
            }
            let [is_stuck, is_untaken] = [&activity.is_stuck, &activity.is_untaken];
            match why {
                NoSession::NoMore => {}
                // The client has taken nothing for long, or has many such connections: after an ordinary close the kernel would
                // keep the unsent bytes.
                NoSession::GaveWay
                    if is_stuck.load(Ordering::Relaxed) || is_untaken.load(Ordering::Relaxed) =>
                {
                    stream.reset_on_close();
                }
                // The kernel sends the little that is left.
                NoSession::GaveWay => {}
                _ => linger(stream, &[], shutdown).await,
            }
            Err(why)
        }
    }
}

/// Has hyper answer requests until one has become a session, or the connection ends, or has to end.
async fn serve<'r>(
    connection: &mut http1::Connection<TokioIo<Metered<'_>>, &'r Reception<'r>>,
    reception: &Reception<'_>,
    mut deadline: Deadline,
    shutdown: &mut ShutdownWatch,
) -> Result<(), NoSession> {
    let activity = reception.activity;
    let (mut told, mut urged, heard) = (shutdown.clone(), shutdown.clone(), shutdown.clone());
    let mut no_more = pin!(told.at_least(Shutdown::NoMore));
    let mut now = pin!(urged.at_least(Shutdown::Now));
    let mut turned_away = pin!(shutdown.turned_away());
    let (mut is_last, mut is_graceful) = (false, false);
    poll_fn(|cx| {
        // hyper is ready as soon as it has the end of the last answer, or the 101, in its buffer. It sends what is there at each
        // further poll; without the rest the connection would end in the middle of the answer.
        if let Poll::Ready(served) = connection.poll_without_shutdown(cx)
            && (served.is_err() || !activity.is_stuck.load(Ordering::Relaxed))
        {
            return Poll::Ready(served.map_err(NoSession::Http));
        }
        if reception.arrival.guest.is_to_give_way() {
            return Poll::Ready(Err(NoSession::GaveWay));
        }
        reception.note_progress();
        if deadline.poll(cx, activity, || activity.under_way()).is_ready() {
            return Poll::Ready(Err(NoSession::TimedOut));
        }
        // Once there is a session its 101 goes out, however the bridge is told to end.
        let is_free = reception.admitted.get().is_none();
        if is_free && !is_last && no_more.as_mut().poll(cx).is_ready() {
            is_last = true;
            // A page that the client of the last session is loading may be finished. A drain has a deadline of its own.
            if !heard.is_draining() {
                deadline.hurry();
            }
        }
        if !is_free || !is_last {
            return Poll::Pending;
        }
        let is_in_head = deadline.is_in_head();
        let is_over = is_in_head && turned_away.as_mut().poll(cx).is_ready();
        if is_over || now.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(NoSession::NoMore));
        }
        // `graceful_shutdown` would close a connection whose first request is not answered or refused yet; and one whose answer
        // is not written yet, without that answer.
        let is_stuck = activity.is_stuck.load(Ordering::Relaxed);
        if !is_in_head && !is_stuck && !std::mem::replace(&mut is_graceful, true) {
            Pin::new(&mut *connection).graceful_shutdown();
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    })
    .await
}

/// Sends `last`, and ends the connection so that all that was sent arrives: closing a socket with unread bytes resets it.
pub(crate) async fn linger(mut stream: Stream, last: &[u8], shutdown: &mut ShutdownWatch) {
    let drain = async {
        // Whether the client takes them is not our concern.
        let _ = stream.write_all(last).await;
        let _ = stream.shutdown().await;
        // Allocated only here: the task of a connection that may come to this has no room for it.
        let mut discarded = vec![0; 4096];
        while let Ok(1..) = stream.read(&mut discarded).await {}
    };
    tokio::select! {
        // First, so that `last` is sent however the bridge is told to end.
        biased;
        _ = timeout(DRAIN, drain) => {}
        () = shutdown.turned_away() => {}
    }
}

/// Answers requests, and remembers the one that became a session.
struct Reception<'a> {
    peer: &'a Arc<Peer>,
    admission: &'a Admission,
    web: Option<files::Root<'a>>,
    private: &'a Arc<Private>,
    subprotocols: &'a [&'static str],
    /// The refusal of the first request, if `first` has decided that already.
    refused: Mutex<Option<Refusal>>,
    admitted: OnceLock<(Upgrade, Ticket)>,
    activity: &'a Activity,
    arrival: &'a Arc<Arrival>,
}

/// An answer under way.
type Answer<'a> = Pin<Box<dyn Future<Output = Result<Response<Counted>, Infallible>> + Send + 'a>>;

impl<'r> Service<Request<Incoming>> for &'r Reception<'_> {
    type Response = Response<Counted>;
    type Error = Infallible;
    type Future = Answer<'r>;

    fn call(&self, request: Request<Incoming>) -> Answer<'r> {
        let reception = *self;
        reception.activity.count_request();
        reception.arrival.guest.is_answered(reception.activity.sent.load(Ordering::Relaxed));
        let (head, _body) = request.into_parts();
        let asker = reception.admission.door.asker(reception.peer, &head.headers);
        let upgrade =
            if host::is_good(&head) { Upgrade::from_head(&head) } else { Err(NoUpgrade::Host) };
        match upgrade {
            Err(NoUpgrade::WebRequest) => {
                let answer = reception.web_request(head, Arc::clone(&asker));
                Box::pin(counted(answer, asker, Arc::clone(reception.arrival), reception.activity))
            }
            upgrade => {
                let answer = reception.handshake(head, upgrade, Arc::clone(&asker));
                Box::pin(counted(answer, asker, Arc::clone(reception.arrival), reception.activity))
            }
        }
    }
}

impl Reception<'_> {
    /// Notes how far the connection is, for a hand-over, and for the lobby, which chooses the connection to close first.
    fn note_progress(&self) {
        let of = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let Activity { requests, read, read_at_request, sent, is_stuck, .. } = self.activity;
        let (read, behind) = (of(read), of(read).saturating_sub(of(read_at_request)));
        let (is_flushed, sent) = (!is_stuck.load(Ordering::Relaxed), of(sent));
        let is_untaken = self.activity.is_untaken.load(Ordering::Relaxed);
        let is_answering = self.arrival.look(of(requests), read, behind, sent, is_flushed);
        if is_answering || is_untaken {
            let waiting = if is_flushed && !is_untaken { 0 } else { self.activity.under_way() };
            self.arrival.guest.is_answered(sent.saturating_sub(waiting));
        } else {
            self.arrival.guest.waits();
        }
    }

    async fn handshake(
        &self,
        head: Parts,
        upgrade: Result<Upgrade, NoUpgrade>,
        asker: Arc<Peer>,
    ) -> Reply {
        match self.admit(&head, upgrade, &asker).await {
            Ok(reply) => reply,
            Err(refusal) => self.refuse(&head, refusal, &asker).await,
        }
    }

    /// The 101 for a handshake that is good and admitted.
    async fn admit(
        &self,
        head: &Parts,
        upgrade: Result<Upgrade, NoUpgrade>,
        asker: &Arc<Peer>,
    ) -> Result<Reply, Refusal> {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(refusal) = refused {
            return Err(refusal);
        }
        if upgrade == Err(NoUpgrade::Hixie) {
            self.admission.authenticate(head, asker).map_err(Refusal::closing)?;
        }
        let mut upgrade = upgrade?;
        upgrade.prefer(self.subprotocols, &head.headers);
        let ticket = self.admission.admit(head, asker, &self.arrival.guest).await?;
        if upgrade.protocol.is_none() {
            unadmitted::unknown_protocols(asker, &head.headers);
        }
        let mut reply = reply::switching(&upgrade);
        // hyper would add `Connection: keep-alive` if it had to lower this version to HTTP/1.0.
        *reply.version_mut() = head.version;
        // hyper does not call the service again after a 101.
        let _ = self.admitted.set((upgrade, ticket));
        Ok(reply)
    }

    /// Answers a request that wants no session.
    async fn web_request(&self, head: Parts, asker: Arc<Peer>) -> Reply {
        if let Err(refusal) = self.admission.admit_web_request(&head, &asker).await {
            return self.refuse(&head, refusal, &asker).await;
        }
        let (method, uri) = (head.method.clone(), head.uri.clone());
        let (client, via) = (asker.address.client(), asker.via.as_deref().map(display));
        if self.web.is_some() && !self.arrival.guest.has_memory() {
            return self.refuse(&head, Refusal::no_memory(), &asker).await;
        }
        let reply = match self.web {
            Some(root) => files::answer(root, self.private, head).await,
            None => reply::refusal(NoUpgrade::WebRequest.into()),
        };
        let (method, path) = (redact::text(method.as_str()), redact::text(uri.path()));
        let status = reply.status().as_u16();
        debug!(
            %client,
            via,
            %method,
            path = &*path,
            status,
            "web request: {client}, {method} {path:?}, {status}"
        );
        reply
    }

    /// Counts and logs a refusal at once. The answer may have to wait until the refusal is `due`, and the client may leave
    /// before.
    async fn refuse(&self, head: &Parts, refusal: Refusal, asker: &Peer) -> Reply {
        self.admission.count(&refusal);
        refusal.log(head, asker);
        if let Some(due) = refusal.due {
            sleep_until(due).await;
        }
        reply::refusal(refusal)
    }
}

/// The answer, as hyper gets it.
async fn counted(
    reply: impl Future<Output = Reply>,
    asker: Arc<Peer>,
    arrival: Arc<Arrival>,
    activity: &Activity,
) -> Result<Response<Counted>, Infallible> {
    let reply = reply.await;
    activity.at_hand.store(reply::at_hand(reply.body()), Ordering::Relaxed);
    Ok(reply.map(|body| Counted::new(body, asker, arrival)))
}
