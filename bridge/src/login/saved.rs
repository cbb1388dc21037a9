//! How a client has authenticated, for the new binary of a hand-over. Must not know in which form that is written.

use serde::{Deserialize, Serialize};

use super::Login;
use crate::saved::Moment;

/// What a [`Login`] has.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SavedLogin {
    pub(crate) user: Option<String>,
    pub(crate) token: Option<String>,
    pub(crate) expires: Option<Moment>,
}

impl SavedLogin {
    pub(crate) fn of(login: &Login) -> Self {
        let owned = |text: &Option<Box<str>>| text.as_deref().map(str::to_owned);
        let expires = login.expires.map(Into::into);
        Self { user: owned(&login.user), token: owned(&login.token), expires }
    }

    pub(crate) fn resume(&self) -> Login {
        let boxed = |text: &Option<String>| text.as_deref().map(Into::into);
        let expires = self.expires.map(Moment::instant);
        Login { user: boxed(&self.user), token: boxed(&self.token), expires }
    }
}
