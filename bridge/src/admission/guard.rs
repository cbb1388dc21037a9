//! The password check of another server than the bridge, such as the admin address. Passwords are compared, and wrong
//! ones are answered late, as for the bridge's own clients. Knows no replies.

use std::time::Duration;

use ::http::HeaderMap;
use tokio::sync::watch;
use tokio::time::Instant;

use super::auth::{Auth, Denial};
use super::penalty::Penalties;
use crate::clients::ClientId;
use crate::peer::{Peer, PeerAddress};

/// Checks the passwords of requests, and says when a wrong one is to be answered.
#[derive(Debug)]
pub struct PasswordCheck {
    auth: watch::Receiver<Auth>,
    penalties: Penalties,
}

/// Why a request is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unproven {
    /// Nothing that is asked for was shown.
    #[error("it has shown no password")]
    Nothing,
    /// What was shown is wrong; when the request is to be answered.
    #[error("wrong credentials")]
    Wrong(Instant),
    /// What was shown was not looked at, after too many wrong passwords; for how much longer none is.
    #[error("too many wrong credentials, these were not looked at")]
    Closed(Duration),
}

impl PasswordCheck {
    /// Asks for what `auth` has at the time of each request.
    pub fn new(auth: watch::Receiver<Auth>) -> Self {
        Self { auth, penalties: Penalties::default() }
    }

    /// Whether a request of this client shows what it must.
    pub fn check(&self, headers: &HeaderMap, client: ClientId) -> Result<(), Unproven> {
        let now = Instant::now();
        let peer = Peer::new(match client {
            ClientId::Address(address) => PeerAddress::Internet((address, 0).into()),
            ClientId::User(user) => PeerAddress::Unix { user, process: None },
        });
        let closed_for = || self.penalties.closed_for(client, now);
        let checked = self.auth.borrow().check(headers, &peer, closed_for);
        checked.map_err(|denial| match denial {
            Denial::Credentials => Unproven::Wrong(self.penalties.add(client, now)),
            Denial::Closed { time } => Unproven::Closed(time),
            Denial::NoCredentials | Denial::Origin | Denial::Name => Unproven::Nothing,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::auth::Credentials;

    #[tokio::test(start_paused = true)]
    async fn o3_f11_who_guesses_the_administrators_password_waits() {
        let (sender, auth) = watch::channel(Auth::Basic(Credentials::new("a:b")));
        let (guard, began) = (PasswordCheck::new(auth), Instant::now());
        let client = ClientId::Address(std::net::Ipv4Addr::LOCALHOST.into());
        let check = |credentials: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("authorization", credentials.parse().unwrap());
            guard.check(&headers, client)
        };
        assert_eq!(guard.check(&HeaderMap::new(), client), Err(Unproven::Nothing));
        assert_eq!(check("Basic YTpi"), Ok(()));
        for seconds in [1, 3, 7, 15, 25] {
            let due = began + Duration::from_secs(seconds);
            assert_eq!(check("Basic YTpj"), Err(Unproven::Wrong(due)));
        }
        assert_eq!(check("Basic YTpi"), Err(Unproven::Closed(Duration::from_secs(5))));
        tokio::time::advance(Duration::from_secs(5)).await;
        sender.send_replace(Auth::Basic(Credentials::new("a:c")));
        assert_eq!(check("Basic YTpj"), Ok(()), "read anew");
    }
}
