//! Why a request means no destination: through its own fault, or because a source gives no answer. Knows what the log says of it;
//! must not know what clients are answered.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::destination::Endpoint;
use crate::error_text::error_text;

/// How long it may take to find out where a client's token leads (K1).
pub(super) const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);

/// What the log says of a source, or a name server, that has not answered in that time.
pub(super) const LATE: &str = "no answer within 10 s";

/// Why a request means no destination.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoDestination {
    #[error("it has no token")]
    NoToken,
    #[error("its token is unknown")]
    UnknownToken,
    #[error("its token is not valid: {0}")]
    InvalidToken(&'static str),
    #[error("its token leads to {0}, which is not allowed")]
    NotAllowed(Endpoint),
    #[error("{0}")]
    Source(#[from] SourceError),
    #[error("cannot look up {0}: {1}")]
    Unresolved(Endpoint, String),
    #[error("cannot look its token up in {0}: {LATE}")]
    Late(String),
}

impl NoDestination {
    /// Whether the client is at fault, and the administrator need not look into it: anybody can send such a request.
    pub(crate) fn is_of_client(&self) -> bool {
        matches!(self, Self::NoToken | Self::UnknownToken | Self::InvalidToken(_))
    }
}

/// Why a source does not say where a token leads, or whether there is such a token.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A file or directory of the source cannot be read.
    #[error("cannot read tokens from {}: {}", .0.display(), error_text(.1))]
    Read(PathBuf, io::Error),
    /// A file of the source is not what it should be.
    #[error("cannot read tokens from {}: {}", .0.display(), .1)]
    Unusable(PathBuf, &'static str),
    /// The key that tokens are made with cannot be read.
    #[error("cannot read the key of tokens {}: {}", .0.display(), .1)]
    Key(PathBuf, String),
    /// The server that is the source does not answer, or not as it should.
    #[error("cannot look a token up at {0}: {1}")]
    Server(String, String),
    /// The helper does not say where the token leads.
    #[error("cannot look its token up: {0}")]
    Answer(String),
    /// The look-up has failed in a way that is our fault.
    #[error("cannot read tokens: the look-up has failed")]
    Failed,
}

impl SourceError {
    /// A copy, for another client with the same failure.
    pub(super) fn again(&self) -> Self {
        let copy = |error: &io::Error| match error.raw_os_error() {
            Some(number) => io::Error::from_raw_os_error(number),
            None => io::Error::new(error.kind(), error.to_string()),
        };
        match self {
            Self::Read(path, error) => Self::Read(path.clone(), copy(error)),
            Self::Unusable(path, why) => Self::Unusable(path.clone(), why),
            Self::Key(path, why) => Self::Key(path.clone(), why.clone()),
            Self::Server(server, why) => Self::Server(server.clone(), why.clone()),
            Self::Answer(why) => Self::Answer(why.clone()),
            Self::Failed => Self::Failed,
        }
    }
}
