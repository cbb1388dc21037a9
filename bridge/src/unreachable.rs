//! Why a client gets no connection, and what it hears of that: less than the log, which also says where the
//! target is. Knows the words for it; must not know how a connection is made or waited for.

use std::time::Duration;

use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tracing::warn;

use crate::tls::TargetFailure;

/// Why a client gets no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreachable {
    /// Where to, and why not.
    #[error("cannot connect to {0}: {1}")]
    Connect(String, String),
    /// Where to, and why there is no TLS.
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
    /// The program may be there, and another of us is.
    #[error("service restart")]
    Draining,
}

impl Unreachable {
    /// What the client is told by its close frame. 1012 says that it may come again (the IANA registry of close
    /// codes).
    pub(crate) fn code(&self) -> CloseCode {
        match self {
            Self::Draining => CloseCode::Restart,
            _ => CloseCode::Error,
        }
    }

    /// Logs what whoever runs us should look into, and gives what the client hears of it, which is not
    /// where the target is.
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
