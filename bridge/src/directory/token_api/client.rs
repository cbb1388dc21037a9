//! An HTTP client: it keeps connections, sends few requests at a time, and reads short answers only. Its caller limits the time.
//! Knows no token.

use std::error::Error;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::vec;

use ::http::header::{ACCEPT, AUTHORIZATION, HeaderValue, LOCATION, USER_AGENT};
use ::http::{Request, Response, StatusCode, Uri};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::client::legacy::{self, Builder};
use hyper_util::rt::TokioExecutor;
use tokio::sync::Semaphore;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::{ClientConfig, DEFAULT_VERSIONS, RootCertStore};
use tower_service::Service;

use super::redirect;
use crate::error_text::error_text;
use crate::net::Lookups;

/// How many requests are under way at a time (K4).
const AT_ONCE: usize = 64;

/// How many idle connections are kept.
const KEPT: usize = 8;

/// The longest head of an answer and the longest body, bytes.
const LONGEST: usize = 64 * 1024;

/// How many redirects are followed.
const REDIRECTS: usize = 5;

/// How often a request is repeated if the server ends the connection without an answer.
const AGAIN: usize = 2;

/// The errors of a socket that mean that the server has ended the connection.
const ENDS: [ErrorKind; 4] = [
    ErrorKind::ConnectionReset,
    ErrorKind::ConnectionAborted,
    ErrorKind::BrokenPipe,
    ErrorKind::UnexpectedEof,
];

/// A pool of connections to web servers.
#[derive(Debug)]
pub(super) struct Client {
    pool: legacy::Client<HttpsConnector<HttpConnector<Resolver>>, Empty<Bytes>>,
    permits: Semaphore,
}

/// What a server has answered.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
}

impl Client {
    /// Trusts the system's authorities, or those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name. Does not connect yet.
    pub(super) fn new() -> Self {
        let mut http = HttpConnector::new_with_resolver(Resolver(Lookups::new()));
        http.enforce_http(false);
        http.set_nodelay(true);
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls()).https_or_http();
        let connector = connector.enable_http1().wrap_connector(http);
        let mut builder = Builder::new(TokioExecutor::new());
        // Without a timer nothing wakes us for idle connections: those that are too old are dropped when one is needed.
        builder.pool_max_idle_per_host(KEPT).http1_max_buf_size(LONGEST);
        Self { pool: builder.build(connector), permits: Semaphore::new(AT_ONCE) }
    }

    /// The answer for a URL, after all redirects.
    pub(super) async fn get(
        &self,
        uri: Uri,
        credentials: Option<&HeaderValue>,
    ) -> Result<Answer, String> {
        let _permit = self.permits.acquire().await.map_err(|closed| closed.to_string())?;
        let mut at = uri.clone();
        for _ in 0..=REDIRECTS {
            let credentials = credentials.filter(|_| redirect::is_same_server(&uri, &at));
            match self.ask(&at, credentials).await? {
                Said::Answer(answer) => return Ok(answer),
                Said::GoTo(location) => {
                    let next =
                        redirect::target(&at, &location).ok_or("it redirects to what is no URL")?;
                    if !redirect::is_followed(&at, &next) {
                        return Err("it redirects to another host, or out of encryption".into());
                    }
                    at = next;
                }
            }
        }
        Err(format!("it redirects more than {REDIRECTS} times"))
    }

    /// Sends a request, and repeats it if the connection ends without an answer: the server may have closed an idle connection
    /// just when we used it (RFC 9112, section 9.3.1).
    async fn head(
        &self,
        uri: &Uri,
        credentials: Option<&HeaderValue>,
    ) -> Result<Response<Incoming>, String> {
        let mut left = AGAIN;
        loop {
            let request = request(uri, credentials).map_err(|error| error.to_string())?;
            match self.pool.request(request).await {
                Ok(response) => return Ok(response),
                Err(error) if left > 0 && has_ended(&error) => left -= 1,
                Err(error) => return Err(why(&error)),
            }
        }
    }

    async fn ask(&self, uri: &Uri, credentials: Option<&HeaderValue>) -> Result<Said, String> {
        let (head, body) = self.head(uri, credentials).await?.into_parts();
        // The body of a redirect is read to its end, too: the connection can be used again.
        let body =
            Limited::new(body, LONGEST).collect().await.map_err(|error| body_failure(&*error))?;
        match head.headers.get(LOCATION) {
            Some(location) if head.status.is_redirection() => {
                let location = location.to_str().map_err(|_| "it redirects to what is no URL")?;
                Ok(Said::GoTo(location.to_owned()))
            }
            _ => Ok(Said::Answer(Answer { status: head.status, body: body.to_bytes() })),
        }
    }
}

/// Whether a connection was there, and has ended without an answer.
fn has_ended(error: &legacy::Error) -> bool {
    if error.is_connect() {
        return false;
    }
    let mut under: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = under {
        let of_http = error.downcast_ref::<hyper::Error>();
        let of_socket = error.downcast_ref::<io::Error>().map(io::Error::kind);
        if of_http.is_some_and(|error| error.is_incomplete_message() || error.is_canceled())
            || of_socket.is_some_and(|kind| ENDS.contains(&kind))
        {
            return true;
        }
        under = error.source();
    }
    false
}

/// The result of one request.
enum Said {
    Answer(Answer),
    GoTo(String),
}

fn request(
    uri: &Uri,
    credentials: Option<&HeaderValue>,
) -> Result<Request<Empty<Bytes>>, ::http::Error> {
    let mut request = Request::get(uri.clone())
        .header(ACCEPT, "*/*")
        .header(USER_AGENT, concat!("websockify/", env!("CARGO_PKG_VERSION")));
    if let Some(credentials) = credentials {
        request = request.header(AUTHORIZATION, credentials);
    }
    request.body(Empty::new())
}

fn tls() -> ClientConfig {
    let mut roots = RootCertStore::empty();
    // Certificates of the system that cannot be read are not ours to mend, nor to report.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(DEFAULT_VERSIONS)
        .expect("the provider has cipher suites for every version")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

fn body_failure(error: &(dyn Error + 'static)) -> String {
    if error.is::<LengthLimitError>() {
        return format!("its answer is longer than {} KiB", LONGEST / 1024);
    }
    why(error)
}

/// The innermost error, below all in which the HTTP libraries wrap it.
fn why(error: &(dyn Error + 'static)) -> String {
    let mut root = error;
    while let Some(source) = root.source() {
        root = source;
    }
    match root.downcast_ref::<io::Error>() {
        Some(error) => error_text(error),
        None => root.to_string(),
    }
}

/// Looks names up as for sessions: few at a time, and each once for all who wait for it.
#[derive(Debug, Clone)]
struct Resolver(Lookups);

impl Service<Name> for Resolver {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let lookups = self.0.clone();
        Box::pin(async move {
            let found = lookups.resolve(name.as_str(), 0).await;
            found.map(IntoIterator::into_iter).map_err(io::Error::other)
        })
    }
}
