//! As whom a client was let in, as the log may have it. Knows no secret whole.

mod saved;

use std::time::Instant;

pub(crate) use saved::SavedLogin;

/// By what a client was let in.
#[derive(Debug, Default)]
pub(crate) struct Login {
    /// The user whose password it has shown.
    pub(crate) user: Option<Box<str>>,
    /// The beginning of its token.
    pub(crate) token: Option<Box<str>>,
    /// Until when that counts, if it says so.
    pub(crate) expires: Option<Instant>,
}

impl Login {
    /// None: by neither.
    pub(crate) fn new(user: Option<String>, token: Option<String>) -> Option<Box<Self>> {
        let (user, token) = (user.map(Into::into), token.map(Into::into));
        (user.is_some() || token.is_some()).then(|| Box::new(Self { user, token, expires: None }))
    }
}
