//! The routes of the administration: what each path does, by which methods. Knows requests and replies; what `/metrics`
//! and `/sessions` say is written elsewhere.

use bridge::ClientId;
use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use tokio::time::Duration;
use tracing::info;

use super::gate::Refused;
use super::standing::Leaving;
use super::{AdminConnection, AdminState, MainLoopRequest, exposition, sessions};

pub(super) type Reply = Response<Full<Bytes>>;

/// The reply to a request, and what the main loop is to do then.
pub(super) struct Answer {
    pub(super) reply: Reply,
    pub(super) request: Option<MainLoopRequest>,
}

/// What a path stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route {
    Live,
    Ready,
    Metrics,
    Sessions,
    /// The session with this number.
    Session(u64),
    Drain,
}

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// How much of a connection's time is kept for the answer when the answer to a wrong password is delayed.
const FOR_ANSWER: Duration = Duration::from_secs(1);

impl Route {
    fn of(path: &str) -> Option<Self> {
        Some(match path {
            "/livez" => Self::Live,
            "/readyz" => Self::Ready,
            "/metrics" => Self::Metrics,
            "/sessions" => Self::Sessions,
            "/drain" => Self::Drain,
            path => {
                let number = path.strip_prefix("/sessions/")?;
                let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
                Self::Session(number.parse().ok().filter(|_| is_number)?)
            }
        })
    }

    /// The methods that it has.
    fn methods(self) -> &'static [Method] {
        match self {
            Self::Live | Self::Ready | Self::Metrics | Self::Sessions => {
                &[Method::GET, Method::HEAD]
            }
            Self::Session(_) => &[Method::DELETE],
            Self::Drain => &[Method::POST],
        }
    }

    /// Whether it needs no password: it tells no more than that we run or are ready, and a health check need not know
    /// the password.
    fn is_open(self) -> bool {
        matches!(self, Self::Live | Self::Ready)
    }
}

impl AdminState {
    /// Answers a request, at the deadline at the latest.
    pub(super) async fn answer(
        &self,
        head: &Parts,
        body: &Incoming,
        connection: &AdminConnection,
    ) -> Answer {
        let route = Route::of(head.uri.path());
        if let Err(refused) = self.lets_through(route, head, connection).await {
            return refusal(&refused).into();
        }
        connection.mark.let_through();
        let Some(route) = route else {
            return text(StatusCode::NOT_FOUND, "not found").into();
        };
        if !route.methods().contains(&head.method) {
            return wrong_method(route.methods()).into();
        }
        if !body.is_end_stream() {
            return text(StatusCode::PAYLOAD_TOO_LARGE, "no body is read here").into();
        }
        if let Route::Ready | Route::Metrics = route {
            self.standing.look(|| self.requests.send(MainLoopRequest::Look)).await;
        }
        self.act(route, connection.client)
    }

    async fn lets_through(
        &self,
        route: Option<Route>,
        head: &Parts,
        connection: &AdminConnection,
    ) -> Result<(), Refused> {
        self.gate.is_meant(head)?;
        if route.is_some_and(Route::is_open) {
            return Ok(());
        }
        self.gate.lets_in(&head.headers, connection.client, connection.deadline - FOR_ANSWER).await
    }

    fn act(&self, route: Route, client: ClientId) -> Answer {
        match route {
            Route::Live => text(StatusCode::OK, "alive").into(),
            Route::Ready => match self.standing.ready() {
                Ok(()) => text(StatusCode::OK, "ready").into(),
                Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, &why.to_string()).into(),
            },
            Route::Metrics => of_type(exposition::CONTENT_TYPE, exposition::page(self)).into(),
            Route::Sessions => of_type(JSON, sessions::list(&self.observer)).into(),
            Route::Session(id) => {
                match self.standing.while_here(|| self.observer.end_session(id)) {
                    Ok(true) => {
                        info!(session = id, "session {id} is ended by the administrator, {client}");
                        text(StatusCode::ACCEPTED, "the session is being ended").into()
                    }
                    Ok(false) => text(StatusCode::NOT_FOUND, "no such session").into(),
                    Err(Leaving) => taken_over().into(),
                }
            }
            Route::Drain => match self.standing.begin_drain() {
                Ok(()) => {
                    info!("the administrator, {client}, has us drain and end");
                    let reply = text(StatusCode::ACCEPTED, "draining");
                    Answer { reply, request: Some(MainLoopRequest::Drain) }
                }
                Err(Leaving) => taken_over().into(),
            },
        }
    }
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Self {
        Self { reply, request: None }
    }
}

/// One line of text.
fn text(status: StatusCode, line: &str) -> Reply {
    let mut reply = of_type(TEXT, format!("{line}\n"));
    *reply.status_mut() = status;
    reply
}

/// A reply that must not be cached: it is true only now.
fn of_type(media_type: &'static str, body: String) -> Reply {
    let mut reply = Response::new(Full::from(body));
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply
}

fn wrong_method(methods: &[Method]) -> Reply {
    let mut reply = text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed");
    let methods: Vec<_> = methods.iter().map(Method::as_str).collect();
    let allowed = methods.join(", ").parse().expect("names of methods are a header value");
    reply.headers_mut().insert(ALLOW, allowed);
    reply
}

/// The reply to what would be lost in a hand-over, which lasts a moment.
fn taken_over() -> Reply {
    let mut reply = text(StatusCode::SERVICE_UNAVAILABLE, "a new binary is taking over");
    reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    reply
}

fn refusal(refused: &Refused) -> Reply {
    let mut reply = text(refused.status, refused.text);
    let headers = reply.headers_mut();
    if refused.challenges {
        let challenge = "Basic realm=\"websockify administration\", charset=\"UTF-8\"";
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    }
    if let Some(seconds) = refused.retry {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn o3_a_path_is_one_of_ours_as_it_is_written() {
        for (path, route) in [
            ("/livez", Some(Route::Live)),
            ("/sessions", Some(Route::Sessions)),
            ("/sessions/7", Some(Route::Session(7))),
            ("/sessions/18446744073709551615", Some(Route::Session(u64::MAX))),
            ("/sessions/18446744073709551616", None),
            ("/sessions/", None),
            ("/sessions/+7", None),
            ("/sessions/7/", None),
            ("/sessions/x", None),
            ("/livez/", None),
            ("/LIVEZ", None),
            ("//livez", None),
            ("/", None),
            ("*", None),
        ] {
            assert_eq!(Route::of(path), route, "{path}");
        }
    }
}
