//! Which destination a request means: the only one that there is, or the one for which its token stands (K1).
//!
//! - `token` finds the token in a request,
//! - `source` is asked what a token stands for; each kind of source is a file of its own: `token_file` reads files with many
//!   tokens in each, `below` takes the token for a name in a directory, `token_api` asks a web server, `redis` a Redis server,
//!   `jwt` reads tokens that contain their target, `asked` asks a helper,
//! - `target` reads a target as sources have it written, `json` as JSON has it,
//! - `allowed` says where tokens may lead,
//! - `failure` is why there is no destination.
//!
//! Knows request heads and endpoints. Must not know who sends a request, how that client has authenticated, or what becomes of
//! the destination.

mod allowed;
mod asked;
pub(crate) mod below;
mod failure;
mod json;
pub(crate) mod jwt;
pub(crate) mod redis;
mod saved;
mod source;
mod target;
pub(crate) mod token;
pub(crate) mod token_api;
pub(crate) mod token_file;

use std::sync::Arc;

use ::http::request::Parts;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::destination::{Destination, Endpoint};
use crate::net::Lookups;
use crate::redact;
pub use allowed::{Allowed, Ports, Rule};
pub(crate) use failure::NoDestination;
pub use failure::SourceError;
use failure::{LATE, LOOKUP_TIMEOUT};
pub use redis::RedisServer;
pub(crate) use saved::SavedDestination;
pub use source::{Kind, Source};
pub use token::TokenPlace;
pub use token_api::Pattern;

/// Which destination a request means.
#[derive(Debug, Clone)]
pub enum Directory {
    /// All requests mean the same destination.
    One(Arc<Destination>),
    /// Each request says it by its token.
    Tokens(Tokens),
}

/// How a token becomes a destination.
#[derive(Debug, Clone)]
pub struct Tokens {
    /// Where a request has its token.
    pub place: TokenPlace,
    /// The source that knows the tokens. It may change at any time, for the clients to come.
    pub source: watch::Receiver<Arc<Source>>,
    /// Where tokens may lead; none: anywhere.
    pub allowed: Option<Allowed>,
}

/// Where a token leads.
#[derive(Debug)]
struct Found {
    endpoint: Endpoint,
    /// When the token expires, if it says so.
    expires: Option<std::time::Instant>,
}

/// The destination that a request means.
#[derive(Debug)]
pub(crate) struct Meant {
    pub(crate) destination: Arc<Destination>,
    /// The beginning of the request's token, if there is one.
    pub(crate) token: Option<String>,
    /// When the token expires, if it says so.
    pub(crate) expires: Option<std::time::Instant>,
}

impl Directory {
    /// The destination that all requests mean, if all mean the same.
    pub(crate) fn only(&self) -> Option<&Destination> {
        match self {
            Self::One(destination) => Some(destination),
            Self::Tokens(_) => None,
        }
    }

    /// The same, as a shared pointer.
    pub(crate) fn shared(&self) -> Option<Arc<Destination>> {
        match self {
            Self::One(destination) => Some(Arc::clone(destination)),
            Self::Tokens(_) => None,
        }
    }

    /// The destination that a request means.
    pub(crate) async fn destination(
        &self,
        head: &Parts,
        lookups: &Lookups,
    ) -> Result<Meant, NoDestination> {
        match self {
            Self::One(destination) => {
                Ok(Meant { destination: Arc::clone(destination), token: None, expires: None })
            }
            // Boxed: requests that need no look-up keep no room for it.
            Self::Tokens(tokens) => {
                let (found, token) = Box::pin(tokens.find(head, lookups)).await?;
                let destination = Arc::new(Destination::Service(found.endpoint));
                Ok(Meant { destination, token: Some(token), expires: found.expires })
            }
        }
    }
}

impl<D: Into<Destination>> From<D> for Directory {
    fn from(destination: D) -> Self {
        Self::One(Arc::new(destination.into()))
    }
}

impl Tokens {
    /// Where a request's token leads, and the beginning of the token for the log.
    async fn find(
        &self,
        head: &Parts,
        lookups: &Lookups,
    ) -> Result<(Found, String), NoDestination> {
        let token = self.place.token(head).ok_or(NoDestination::NoToken)?;
        let source = Arc::clone(&self.source.borrow());
        let deadline = Instant::now() + LOOKUP_TIMEOUT;
        let late = |_| NoDestination::Late(source.name().to_owned());
        let found = timeout_at(deadline, source.look_up(&token)).await.map_err(late)??;
        let mut found = found.ok_or(NoDestination::UnknownToken)?;
        if let Some(allowed) = &self.allowed {
            // Here a name server is late, or the file system, and not the source.
            let late = || NoDestination::Unresolved(found.endpoint.clone(), LATE.into());
            let checked = allowed.check(found.endpoint.clone(), lookups);
            found.endpoint = timeout_at(deadline, checked).await.unwrap_or_else(|_| Err(late()))?;
        }
        Ok((found, redact::token(&token)))
    }
}
