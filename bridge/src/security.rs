//! Who is let in, and how: what a bridge is told of it at its start.

use std::sync::Arc;

use tokio::sync::watch;

use crate::auth::Auth;
use crate::private::Private;
use crate::tls::Tls;

/// Encryption and authentication. The default lets everybody in, unencrypted.
#[derive(Debug)]
pub struct Security {
    /// Whether TLS clients are served; may change at any time, for the clients to come.
    pub tls: watch::Receiver<Tls>,
    /// Whether the others are.
    pub plain: Plain,
    /// What a client must show before it gets a session.
    pub auth: Option<Auth>,
    /// Whether it must show that for files too.
    pub web_auth: bool,
    /// Files that no web request is answered with, wherever they lie.
    pub private: Arc<Private>,
}

/// What becomes of unencrypted clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plain {
    /// They are served.
    Served,
    /// They are told that the connection must be encrypted.
    Refused,
}

impl Default for Security {
    fn default() -> Self {
        let (_, tls) = watch::channel(Tls::Off("no certificate is given".into()));
        Self { tls, plain: Plain::Served, auth: None, web_auth: false, private: Arc::default() }
    }
}
