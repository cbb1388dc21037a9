//! The HTTP side of a connection: web requests are answered until one becomes a session.
//!
//! hyper reads the heads and keeps the connection alive; what is answered is in [`reply`]; the
//! deadlines (T6) and the limits (L2) are here.

mod reply;

use std::convert::Infallible;
use std::future::{Future, Ready, poll_fn, ready};
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use ::http::{Request, Response};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use crate::auth::Guard;
use crate::client::DRAIN;
use crate::order::{Order, Orders};
use crate::sessions::{Session, Sessions};
use crate::stream::Stream;
use crate::tls::Refused;
use crate::ws::{Refusal, Upgrade};

/// The longest request head, bytes (L2).
const HEAD_MAX: usize = 16 * 1024;

/// How long a kept-alive connection may be idle between two requests (T6).
const IDLE: Duration = Duration::from_secs(60);

/// A connection that was answered with 101.
pub(crate) struct Upgraded {
    pub(crate) stream: Stream,
    pub(crate) upgrade: Upgrade,
    pub(crate) session: Session,
}

/// Why a connection became no session.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoSession {
    #[error("closed by the client")]
    Closed,
    #[error("the bridge takes no more sessions")]
    NoMore,
    #[error("no request in time")]
    TimedOut,
    #[error("{0}")]
    Http(#[from] hyper::Error),
    #[error("{0}")]
    Refused(#[from] Refused),
}

/// Answers the requests of a new connection until one is a handshake. The first head must be there
/// `head_timeout` after `began`.
pub(crate) async fn receive(
    io: Stream,
    sessions: &Arc<Sessions>,
    guard: &Guard<'_>,
    began: Instant,
    head_timeout: Duration,
    orders: &mut Orders,
) -> Result<Upgraded, NoSession> {
    let heard = AtomicU64::new(0);
    let (upgrade, answered) = (OnceLock::new(), AtomicU64::new(0));
    let reception = Reception { sessions, guard, upgrade, answered };
    let mut deadline = Deadline::new(began, head_timeout);
    let mut connection = http1::Builder::new()
        .max_buf_size(HEAD_MAX)
        .header_read_timeout(None)
        // A client may shut down its sending side after its request, and still reads.
        .half_close(true)
        .serve_connection(TokioIo::new(Metered { io, heard: &heard }), &reception);
    let served = {
        let mut no_more = pin!(orders.at_least(Order::NoMore));
        poll_fn(|cx| {
            if let Poll::Ready(served) = connection.poll_without_shutdown(cx) {
                return Poll::Ready(served.map_err(NoSession::Http));
            }
            // Once there is a session its 101 goes out, whatever the orders are.
            if reception.upgrade.get().is_none() && no_more.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(NoSession::NoMore));
            }
            let answered = reception.answered.load(Ordering::Relaxed);
            deadline.poll(cx, answered, heard.load(Ordering::Relaxed)).map(Err)
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
        () = orders.at_least(Order::NoMore) => {}
        _ = timeout(DRAIN, drain) => {}
    }
}

/// Answers requests, and remembers the one that became a session.
struct Reception<'a> {
    sessions: &'a Arc<Sessions>,
    guard: &'a Guard<'a>,
    upgrade: OnceLock<(Upgrade, Session)>,
    answered: AtomicU64,
}

impl Service<Request<Incoming>> for Reception<'_> {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.answered.fetch_add(1, Ordering::Relaxed);
        let (head, _body) = request.into_parts();
        let upgrade = Upgrade::from_head(&head);
        let admitted = match &upgrade {
            Ok(upgrade) => self.guard.admit_session(&head.headers, upgrade.version),
            Err(Refusal::WebRequest) => self.guard.admit_web_request(&head.headers),
            Err(_) => Ok(()),
        };
        if let Err(denial) = admitted {
            return ready(Ok(reply::denied(denial)));
        }
        ready(Ok(match upgrade {
            Ok(upgrade) => match self.sessions.begin() {
                Some(session) => {
                    let response = reply::switching(&upgrade);
                    // hyper calls no service again after a 101.
                    let _ = self.upgrade.set((upgrade, session));
                    response
                }
                None => reply::no_more_sessions(),
            },
            Err(refusal) => reply::refusal(refusal),
        }))
    }
}

/// When a connection must have sent its next request head.
struct Deadline {
    head_timeout: Duration,
    sleep: Pin<Box<Sleep>>,
    /// Requests answered so far.
    answered: u64,
    /// Bytes heard when the last of them was answered; `None`: a head is under way.
    idle_since: Option<u64>,
}

impl Deadline {
    fn new(began: Instant, head_timeout: Duration) -> Self {
        let sleep = Box::pin(sleep_until(began + head_timeout));
        Self { head_timeout, sleep, answered: 0, idle_since: None }
    }

    fn poll(&mut self, cx: &mut Context<'_>, answered: u64, heard: u64) -> Poll<NoSession> {
        if answered != self.answered {
            self.answered = answered;
            self.idle_since = Some(heard);
            self.sleep.as_mut().reset(Instant::now() + IDLE);
        } else if self.idle_since.is_some_and(|silence| silence != heard) {
            self.idle_since = None;
            self.sleep.as_mut().reset(Instant::now() + self.head_timeout);
        }
        self.sleep.as_mut().poll(cx).map(|()| NoSession::TimedOut)
    }
}

/// Counts the bytes that are read.
struct Metered<'a> {
    io: Stream,
    heard: &'a AtomicU64,
}

impl AsyncRead for Metered<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = room.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, room);
        self.heard.fetch_add((room.filled().len() - before) as u64, Ordering::Relaxed);
        read
    }
}

impl AsyncWrite for Metered<'_> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: Duration = Duration::from_secs(10);

    /// How many seconds it takes until the deadline has passed, with so much answered and heard.
    async fn passes(deadline: &mut Deadline, answered: u64, heard: u64) -> u64 {
        let began = Instant::now();
        poll_fn(|cx| deadline.poll(cx, answered, heard)).await;
        began.elapsed().as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn t6_ten_seconds_a_head_and_sixty_between_requests() {
        let mut deadline = Deadline::new(Instant::now(), HEAD);
        assert_eq!(passes(&mut deadline, 0, 0).await, 10, "before the first byte");
        let mut deadline = Deadline::new(Instant::now(), HEAD);
        assert_eq!(passes(&mut deadline, 0, 5).await, 10, "bytes buy no time");
        let mut deadline = Deadline::new(Instant::now(), HEAD);
        assert_eq!(passes(&mut deadline, 1, 100).await, 60, "after an answer");
        assert_eq!(passes(&mut deadline, 1, 101).await, 10, "the next head has begun");
        assert_eq!(passes(&mut deadline, 2, 200).await, 60, "after the next answer");
    }
}
