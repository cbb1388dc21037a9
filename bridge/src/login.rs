//! How a client has authenticated, as the log may have it. Must not know a secret whole.

mod saved;

use std::time::Instant;

pub(crate) use saved::SavedLogin;

/// What the client has shown to be let in: a password, a token, or both.
#[derive(Debug, Default)]
pub(crate) struct Login {
    /// The user whose password the client has shown.
    pub(crate) user: Option<Box<str>>,
    /// The beginning of the client's token.
    pub(crate) token: Option<Box<str>>,
    /// When the token expires, if it says so.
    pub(crate) expires: Option<Instant>,
}

impl Login {
    /// None: the client has shown neither.
    pub(crate) fn new(user: Option<String>, token: Option<String>) -> Option<Box<Self>> {
        let (user, token) = (user.map(Into::into), token.map(Into::into));
        (user.is_some() || token.is_some()).then(|| Box::new(Self { user, token, expires: None }))
    }
}
