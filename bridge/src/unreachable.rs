//! Reasons why a client gets no connection to its target, and what it is told: less than the log, which also says where
//! the target is. Knows the words for it; must not know how a connection is made or waited for.

use std::time::Duration;

use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tracing::warn;

use crate::tls::TargetFailure;

/// Why a client gets no connection to its target.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreachable {
    /// The target, and why it cannot be connected to.
    #[error("cannot connect to {0}: {1}")]
    Connect(String, String),
    /// The target, and why the TLS handshake with it has failed.
    #[error("cannot connect to {0}: {1}")]
    Encrypt(String, TargetFailure),
    #[error("program did not listen within {} s", .0.as_secs_f64())]
    NotListening(Duration),
    #[error("program cannot be started")]
    NotStarted,
    #[error("program has ended")]
    Gone,
    #[error("shutting down")]
    ShuttingDown,
    /// The program may run, but this process is draining. Another process takes its place and may serve the client.
    #[error("service restart")]
    Draining,
}

impl Unreachable {
    /// The code of the client's close frame. 1012 says that the client may connect again (the IANA registry of close
    /// codes).
    pub(crate) fn code(&self) -> CloseCode {
        match self {
            Self::Draining => CloseCode::Restart,
            _ => CloseCode::Error,
        }
    }

    /// Logs a failure that the administrator should look into. Returns the close reason for the client, which does not
    /// say where the target is.
    pub(crate) fn tell(&self) -> String {
        match self {
            Self::Connect(_, why) => {
                warn!("{self}");
                format!("target cannot be reached: {why}")
            }
            Self::Encrypt(_, why) => {
                warn!("{self}");
                format!("target cannot be reached: {}", why.why())
            }
            why => why.to_string(),
        }
    }
}
