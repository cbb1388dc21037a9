//! The administration (`--admin`): an HTTP server of its own, on an address of its own, for the administrator and for
//! monitoring.
//!
//! - `endpoint` is where it listens, and who may connect there,
//! - `connections` are its open connections,
//! - `gate` says whose requests are answered,
//! - `routes` says what each path and method does,
//! - `requests` are what a request asks of the main loop,
//! - `exposition` writes `/metrics`, `sessions` writes `/sessions`,
//! - `standing` is the state of websockify and of the program, noted by the modules that know it.
//!
//! A request cannot disturb the sessions, whatever its sender does: there are few connections at once, and each has one
//! request, a short head, no body and ten seconds. What a request asks of the main loop is passed on when the request
//! has its answer. Knows no program, and no client of the bridge.

mod connections;
mod endpoint;
mod exposition;
#[cfg(test)]
mod fuzzing;
mod gate;
mod requests;
mod routes;
mod sessions;
mod standing;

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use bridge::{ClientId, Descriptors, Observer};
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{debug, info, warn};

use crate::authentication::Authentication;
use crate::config::{AdminSpec, Config};
use crate::machine::user::User;
use connections::{Connections, Mark};
pub(crate) use endpoint::SavedAdmin;
use endpoint::{Accepted, Endpoint};
use gate::Gate;
pub(crate) use requests::{MainLoopRequest, MainLoopRequests};
use routes::{Answer, Reply};
pub(crate) use standing::{ProgramEnd, SavedStanding, Standing};

/// How many connections are open at once.
const CONNECTIONS_MAX: usize = 16;

/// How long a connection may last.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest request head, bytes.
const HEAD_MAX: usize = 16 * 1024;

/// How many bytes that the client has still sent are read and dropped after the answer: closing a socket with unread
/// bytes resets the connection, and the client may lose the answer.
const DRAIN: u64 = 64 * 1024;

/// How long we wait after an accept(2) that has failed, as for want of file descriptors.
const REST: Duration = Duration::from_millis(100);

/// The address of the administration, which listens until this is dropped; and the password, until it
/// [begins](Admin::begin) to answer.
#[derive(Debug)]
pub(crate) struct Admin {
    endpoint: Endpoint,
    auth: Option<Authentication>,
}

/// The main loop's end of the administration. Without `--admin` nothing is ever asked of it.
#[derive(Debug, Default)]
pub(crate) struct AdminHandle {
    pub(crate) requests: MainLoopRequests,
    /// Sees the bridge, once that has begun.
    pub(crate) observer: Option<Observer>,
    pub(crate) standing: Standing,
    auth: Option<Authentication>,
}

/// What every connection needs.
pub(crate) struct AdminState {
    pub(crate) gate: Gate,
    pub(crate) observer: Observer,
    pub(crate) standing: Standing,
    /// The name of the token plugin, if tokens are used.
    pub(crate) token_source: Option<String>,
    requests: requests::Sender,
}

impl Admin {
    /// Opens the address, while an error can still be told to the person who started us. `auth` is the password.
    pub(crate) fn open(
        spec: &AdminSpec,
        auth: Option<Authentication>,
        user: Option<&User>,
    ) -> Result<Self> {
        let endpoint = Endpoint::open(&spec.place, user)?;
        Ok(Self { endpoint, auth })
    }

    /// The same in the new binary of a hand-over (O2): the old binary has opened the address.
    pub(crate) fn resume(
        spec: &AdminSpec,
        auth: Option<Authentication>,
        saved: &SavedAdmin,
        descriptors: &mut Descriptors,
    ) -> Result<Self> {
        let endpoint = Endpoint::resume(&spec.place, saved, descriptors)?;
        Ok(Self { endpoint, auth })
    }

    /// What the new binary needs of it in a hand-over (O2).
    pub(crate) fn save(&self) -> SavedAdmin {
        self.endpoint.save()
    }

    /// Makes the server, and the main loop's end. Needs a runtime. The address stays here, also if this fails: in a
    /// hand-over, the old binary may have to go on with it.
    ///
    /// # Errors
    /// The address cannot be registered with the runtime.
    pub(crate) fn begin(
        &mut self,
        config: &Config,
        standing: Standing,
    ) -> Result<(Server, AdminHandle)> {
        let Self { endpoint, auth } = self;
        let auth = auth.take();
        let observer = Observer::default();
        let (sender, requests) = requests::channel();
        let password = auth.as_ref().and_then(Authentication::of_client);
        let state = AdminState {
            gate: Gate::new(password, endpoint.is_of_this_machine()),
            observer: observer.clone(),
            standing: standing.clone(),
            token_source: config.destination.token_source(),
            requests: sender,
        };
        if !endpoint.was_open() {
            info!("administration at {endpoint}");
        }
        let server = Server { endpoint: endpoint.listen()?, state: Arc::new(state) };
        Ok((server, AdminHandle { requests, observer: Some(observer), standing, auth }))
    }
}

impl AdminHandle {
    /// Where there is no administration.
    pub(crate) fn without(standing: Standing) -> Self {
        Self { standing, ..Self::default() }
    }

    /// SIGHUP: reads the password anew.
    pub(crate) fn reload(&self) {
        if let Some(auth) = &self.auth {
            auth.reload();
        }
    }
}

/// The administration at work.
pub(crate) struct Server {
    endpoint: endpoint::Listening,
    state: Arc<AdminState>,
}

impl Server {
    /// Answers requests for ever.
    pub(crate) async fn serve(self) -> Infallible {
        let mut connections = Connections::default();
        let mut is_exhausted = false;
        loop {
            let accepted = tokio::select! {
                () = connections.ended() => continue,
                accepted = self.endpoint.accept() => accepted,
            };
            // All connections may be in the middle of an answer: waits until one of them can be closed.
            connections.room(CONNECTIONS_MAX).await;
            let state = Arc::clone(&self.state);
            match accepted {
                Ok(Accepted::Tcp(io, address)) => {
                    let client = ClientId::Address(address.ip());
                    connections.begin(CONNECTIONS_MAX, |mark| attend(io, client, state, mark));
                }
                Ok(Accepted::Unix(io, user)) => {
                    let client = ClientId::User(user);
                    connections.begin(CONNECTIONS_MAX, |mark| attend(io, client, state, mark));
                }
                Ok(Accepted::Stranger(user)) => {
                    warn!(
                        target: bridge::UNADMITTED,
                        "closed a connection to the administration: it is neither our user's nor root's, but \
                         unix:uid={user}'s"
                    );
                }
                Err(error) => {
                    if !std::mem::replace(&mut is_exhausted, true) {
                        let why = bridge::error_text(&error);
                        warn!("cannot accept connections to the administration for now: {why}");
                    }
                    sleep(REST).await;
                    continue;
                }
            }
            is_exhausted = false;
        }
    }
}

/// A connection, which has one request.
struct AdminConnection {
    state: Arc<AdminState>,
    client: ClientId,
    /// When the connection is closed.
    deadline: Instant,
    mark: Mark,
    /// What the main loop is to do when the request has its answer.
    wanted: Mutex<Option<MainLoopRequest>>,
}

/// An answer under way.
type Answering<'v> = Pin<Box<dyn Future<Output = Result<Reply, Infallible>> + Send + 'v>>;

impl<'v> Service<Request<Incoming>> for &'v AdminConnection {
    type Response = Reply;
    type Error = Infallible;
    type Future = Answering<'v>;

    fn call(&self, request: Request<Incoming>) -> Answering<'v> {
        let connection = *self;
        Box::pin(async move { Ok(connection.answer(request).await) })
    }
}

impl AdminConnection {
    async fn answer(&self, request: Request<Incoming>) -> Reply {
        let (head, body) = request.into_parts();
        let Answer { reply, request } = self.state.answer(&head, &body, self).await;
        let (client, status) = (self.client, reply.status());
        debug!("administration: {client}, {} {:?}, {status}", head.method, head.uri.path());
        *self.wanted.lock().unwrap_or_else(PoisonError::into_inner) = request;
        reply
    }

    /// The answer is sent. Only now is the request to the main loop passed on, as it may end websockify.
    fn conclude(&self) {
        self.mark.answered();
        let wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(request) = wanted {
            self.state.requests.send(request);
        }
    }
}

/// Answers the one request of a connection.
async fn attend<S>(io: S, client: ClientId, state: Arc<AdminState>, mark: Mark)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let deadline = Instant::now() + REQUEST_TIMEOUT;
    let connection = AdminConnection { state, client, deadline, mark, wanted: Mutex::default() };
    if timeout_at(deadline, serve(io, &connection)).await.is_err() {
        debug!("administration: {client} has not finished in time");
    }
}

/// Has hyper read the request and write the answer, passes on what that asks of the main loop, and closes the connection
/// in order.
async fn serve<S: AsyncRead + AsyncWrite + Unpin>(io: S, connection: &AdminConnection) {
    let mut serving = http1::Builder::new()
        .max_buf_size(HEAD_MAX)
        .header_read_timeout(None)
        .half_close(true)
        .keep_alive(false)
        .serve_connection(TokioIo::new(io), connection);
    if let Err(error) = poll_fn(|cx| serving.poll_without_shutdown(cx)).await {
        debug!("administration: {}: {error}", connection.client);
    }
    let mut io = serving.into_parts().io.into_inner();
    connection.conclude();
    let _ = io.shutdown().await;
    let _ = tokio::io::copy(&mut io.take(DRAIN), &mut tokio::io::sink()).await;
}
