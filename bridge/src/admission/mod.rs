//! Who gets a session: decided here alone, whichever way a handshake was read.
//!
//! - `door` knows which clients may ask for anything at all,
//! - `auth` knows what a client must show, `judge` asks a helper whether the client is let in,
//! - `penalty` says how late wrong passwords are answered,
//! - `guard` checks passwords for another server, such as the admin address,
//! - `refusal` is what all other requests are answered, and what the log says of them.
//!
//! Knows request heads and who sent them. Must not know how a head is read, nor how an answer is written.

pub(crate) mod auth;
mod door;
pub(crate) mod guard;
mod judge;
mod penalty;
mod refusal;

use std::sync::Arc;

use ::http::Method;
use ::http::request::Parts;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::book::{Book, Session};
use crate::config::Config;
use crate::destination::Destination;
use crate::directory::{Directory, Meant, NoDestination};
use crate::lobby::Guest;
use crate::login::Login;
use crate::net::Lookups;
use crate::peer::Peer;
use crate::questions::QuestionSender;
use crate::redact;
use auth::{Auth, Denial};
pub(crate) use door::Door;
use penalty::Penalties;
pub(crate) use penalty::SavedPenalty;
pub(crate) use refusal::Refusal;

/// Admits the clients of one bridge.
pub(crate) struct Admission {
    /// The check of a client's address, before the client asks for something.
    pub(crate) door: Door,
    /// What a client must show; may change at any time, for the clients to come.
    auth: Option<watch::Receiver<Auth>>,
    /// The helper that is asked, too, whether a client is let in.
    judge: Option<QuestionSender>,
    /// Whether web requests must be authenticated, too.
    web_auth: bool,
    penalties: Penalties,
    directory: Directory,
    lookups: Lookups,
    book: Arc<Book>,
}

/// What a session starts from: its place in the session book, with its destination. Only [`Admission::admit`] makes one.
pub(crate) struct Ticket(Session);

impl Admission {
    /// With what `config` demands of clients, and where it takes them.
    pub(crate) fn new(config: &Config, lookups: Lookups, book: Arc<Book>) -> Self {
        Self {
            door: Door::new(config),
            auth: config.access.auth.clone(),
            judge: config.access.judge.clone(),
            web_auth: config.access.web_auth,
            penalties: Penalties::default(),
            directory: config.directory.clone(),
            lookups,
            book,
        }
    }

    /// Decides on a handshake that is well-formed. A client that may not ask for anything is refused first. What a client
    /// must show comes next, so that nobody else learns which destinations there are; then the destination; then the helper,
    /// which is told the destination; the limits come last, so that no session is counted for a client that is refused.
    pub(crate) async fn admit(
        &self,
        head: &Parts,
        peer: &Arc<Peer>,
        guest: &Guest,
    ) -> Result<Ticket, Refusal> {
        self.door.welcome(peer)?;
        if self.book.is_closed() {
            return Err(Refusal::draining());
        }
        if !guest.has_memory() {
            return Err(Refusal::no_memory());
        }
        self.authenticate(head, peer)?;
        let meant = self.look_up(head).await?;
        self.judge(head, peer, Some(&meant.destination)).await?;
        let login = Login::new(self.user(head), meant.token);
        let session = self.book.begin(Arc::clone(peer), meant.destination, login, meant.expires);
        let Some(session) = session else {
            // The book may have been closed during the steps before.
            return Err(if self.book.is_closed() {
                Refusal::draining()
            } else if self.book.is_exhausted() {
                Refusal::no_more_sessions()
            } else {
                Refusal::full()
            });
        };
        guest.admit();
        Ok(Ticket(session))
    }

    /// Which destination a request means.
    async fn look_up(&self, head: &Parts) -> Result<Meant, NoDestination> {
        let began = Instant::now();
        let meant = self.directory.destination(head, &self.lookups).await;
        if self.directory.only().is_none() {
            self.book.metrics.looked_up(&meant, began.elapsed());
        }
        meant
    }

    /// The penalties for wrong passwords, for the new binary in a hand-over.
    pub(crate) fn saved_penalties(&self) -> Vec<SavedPenalty> {
        self.penalties.saved()
    }

    /// Takes over the penalties that the old binary has saved.
    pub(crate) fn resume_penalties(&self, saved: &[SavedPenalty]) {
        self.penalties.resume(saved);
    }

    /// Counts a request that is refused.
    pub(crate) fn count(&self, refusal: &Refusal) {
        self.book.metrics.refused(refusal.counted());
    }

    /// Decides whether a web request is answered.
    pub(crate) async fn admit_web_request(&self, head: &Parts, peer: &Peer) -> Result<(), Refusal> {
        self.door.welcome(peer)?;
        // A browser does not tell a page why its handshake failed. So the page may send OPTIONS, which is authenticated
        // as a handshake is.
        if head.method == Method::OPTIONS || self.web_auth {
            self.authenticate(head, peer)?;
            self.judge(head, peer, self.directory.only()).await?;
        }
        Ok(())
    }

    /// Whether the helper, if there is one, lets a client in. Boxed, so that a request's task needs no room for this
    /// where there is no helper.
    async fn judge(
        &self,
        head: &Parts,
        peer: &Peer,
        destination: Option<&Destination>,
    ) -> Result<(), Refusal> {
        match &self.judge {
            None => Ok(()),
            Some(judge) => Box::pin(judge::check(judge, head, peer, destination)).await,
        }
    }

    /// The user whose password we have checked. What a client shows to a helper does not count: the helper may have let
    /// the client in by a cookie, whatever user the request names.
    fn user(&self, head: &Parts) -> Option<String> {
        let has_shown = |auth: &watch::Receiver<Auth>| matches!(*auth.borrow(), Auth::Basic(_));
        let is_checked = self.auth.as_ref().is_some_and(has_shown);
        let user = is_checked.then(|| auth::user(&head.headers)).flatten()?;
        Some(redact::text(&user).into_owned())
    }

    /// Whether a client has shown what it must, whatever it asks for. A wrong password is counted, and answered late.
    pub(crate) fn authenticate(&self, head: &Parts, peer: &Peer) -> Result<(), Refusal> {
        let Some(auth) = &self.auth else { return Ok(()) };
        let (client, now) = (peer.address.client(), Instant::now());
        let closed_for = || self.penalties.closed_for(client, now);
        let checked = auth.borrow().check(&head.headers, peer, closed_for);
        checked.map_err(|denial| {
            let due = (denial == Denial::Credentials).then(|| self.penalties.add(client, now));
            Refusal::denied(denial, due)
        })
    }
}

impl Ticket {
    /// The session that begins.
    pub(crate) fn session(self) -> Session {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use ::http::{Request, StatusCode};

    use super::auth::Credentials;
    use super::*;
    use crate::config::Access;
    use crate::destination::Address;

    /// An admission that asks for the credentials `a:b`, and allows one session.
    fn admission(web_auth: bool) -> Admission {
        let auth = Some(watch::channel(Auth::Basic(Credentials::new("a:b"))).1);
        let config = Config {
            directory: Address { host: String::new(), port: 0 }.into(),
            max_connections: 1,
            memory: 1 << 30,
            head_timeout: std::time::Duration::ZERO,
            web: None,
            lists_directories: true,
            subprotocols: vec![],
            run_once: true,
            timeout: None,
            idle_timeout: None,
            is_busy_elsewhere: watch::channel(false).1,
            open_sessions: watch::Sender::default(),
            upkeep: crate::config::Upkeep::default(),
            access: Access { auth, web_auth, ..Access::default() },
            record: None,
            target_tls: None,
            client_address: crate::client_address::ClientAddress::default(),
            traffic: None,
            observer: None,
        };
        Admission::new(&config, Lookups::new(), Book::new(1, false))
    }

    fn peer() -> Arc<Peer> {
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], 1)).into();
        Arc::new(Peer::new(address))
    }

    fn guest() -> Guest {
        crate::lobby::Lobby::new(crate::budget::Budget::new(1)).enter(None)
    }

    fn head(method: Method, credentials: &str) -> Parts {
        let request = Request::builder().method(method).header("Authorization", credentials);
        request.body(()).unwrap().into_parts().0
    }

    #[tokio::test]
    async fn b8_t4_only_who_has_shown_what_is_asked_for_takes_a_session() {
        let (admission, peer) = (admission(false), peer());
        let admit = async |credentials| {
            let admitted = admission.admit(&head(Method::GET, credentials), &peer, &guest()).await;
            admitted.map(|ticket| ticket.session().entry.id).map_err(|refusal| refusal.status)
        };
        assert_eq!(admit("Basic YTpj").await, Err(StatusCode::UNAUTHORIZED));
        assert_eq!(admit("Basic YTpi").await, Ok(1));
        assert_eq!(admit("Basic YTpi").await, Err(StatusCode::SERVICE_UNAVAILABLE));
        assert_eq!(admit("Basic YTpj").await, Err(StatusCode::UNAUTHORIZED), "asked first");
    }

    #[tokio::test]
    async fn t4_web_requests_are_asked_if_that_is_wanted() {
        let (get, options) = (Method::GET, Method::OPTIONS);
        for (web_auth, method, is_asked) in
            [(false, &get, false), (true, &get, true), (false, &options, true)]
        {
            let mut head = head(method.clone(), "");
            head.headers.clear();
            let admitted = admission(web_auth).admit_web_request(&head, &peer()).await;
            let status = admitted.err().map(|refusal| refusal.status);
            assert_eq!(status, is_asked.then_some(StatusCode::UNAUTHORIZED), "{method}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn f11_a_wrong_password_is_answered_late_and_once_for_its_connection() {
        let (admission, peer) = (admission(false), peer());
        let began = Instant::now();
        for seconds in [1, 3] {
            let refusal = admission.admit(&head(Method::GET, "Basic YTpj"), &peer, &guest()).await;
            let refusal = refusal.err().unwrap();
            assert_eq!(refusal.due.map(|due| (due - began).as_secs()), Some(seconds));
            let close = |(name, value): &(_, _)| name == "connection" && value == "close";
            assert!(refusal.headers.iter().any(close));
        }
    }
}
