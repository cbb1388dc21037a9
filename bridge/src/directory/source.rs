//! A source of tokens, which knows where they lead. The kinds are upstream's plugins; each is asked in the same way, and is a
//! file of its own. Knows which kinds there are, and what of them the log may have; must not know how a kind looks a token up,
//! nor which client has sent it.

use std::fmt;
use std::path::{Path, PathBuf};

use super::Found;
use super::asked;
use super::below::{Below, Entry};
use super::failure::{NoDestination, SourceError};
use super::jwt::Jwt;
use super::redis::{Redis, RedisServer};
use super::token::TokenPlace;
use super::token_api::{Answers, Pattern, TokenApi};
use super::token_file::{Rereads, TokenFile};
use crate::questions::QuestionSender;

/// A source of tokens at work.
#[derive(Debug)]
pub struct Source {
    /// For the log.
    name: String,
    /// The file or directory of the source, if it is one.
    path: Option<PathBuf>,
    backend: Backend,
}

/// What looks a token up.
#[derive(Debug)]
enum Backend {
    Lines(TokenFile),
    Names(Below),
    Server(Box<TokenApi>),
    Key(Jwt),
    Redis(Box<Redis>),
    Helper(QuestionSender),
}

/// The kinds of sources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A file of lines, or a directory of such files, read again when they change.
    TokenFile(PathBuf),
    /// The same, read once.
    ReadOnlyTokenFile(PathBuf),
    /// A directory of files: each has a token for its name and a target in it.
    TokenFileName(PathBuf),
    /// A directory of Unix sockets: each has a token for its name.
    UnixDomainSocketDirectory(PathBuf),
    /// A web server that is asked for each token, and answers `host:port`.
    BaseTokenApi(Pattern),
    /// The same, and it answers in JSON.
    JsonTokenApi(Pattern),
    /// The file of a key for tokens that contain their target (JSON Web Tokens).
    JwtTokenApi(PathBuf),
    /// A Redis server: each token is a key, with its target for a value.
    TokenRedis(RedisServer),
}

impl Kind {
    /// The file or directory of the source, if it is one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::TokenFile(path)
            | Self::ReadOnlyTokenFile(path)
            | Self::TokenFileName(path)
            | Self::UnixDomainSocketDirectory(path)
            | Self::JwtTokenApi(path) => Some(path),
            Self::BaseTokenApi(_) | Self::JsonTokenApi(_) | Self::TokenRedis(_) => None,
        }
    }
}

/// For the log: without what may be a secret.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TokenFile(path)
            | Self::ReadOnlyTokenFile(path)
            | Self::TokenFileName(path)
            | Self::UnixDomainSocketDirectory(path)
            | Self::JwtTokenApi(path) => path.display().fmt(f),
            Self::BaseTokenApi(pattern) | Self::JsonTokenApi(pattern) => pattern.fmt(f),
            Self::TokenRedis(server) => server.fmt(f),
        }
    }
}

impl Source {
    /// Opens nothing yet. Requests have their tokens in `place`.
    pub fn new(kind: Kind, place: TokenPlace) -> Self {
        let (name, path) = (kind.to_string(), kind.path().map(Path::to_owned));
        let backend = match kind {
            Kind::TokenFile(path) => {
                Backend::Lines(TokenFile::new(path, place, Rereads::WhenChanged))
            }
            Kind::ReadOnlyTokenFile(path) => {
                Backend::Lines(TokenFile::new(path, place, Rereads::Never))
            }
            Kind::TokenFileName(path) => Backend::Names(Below::new(path, Entry::File)),
            Kind::UnixDomainSocketDirectory(path) => {
                Backend::Names(Below::new(path, Entry::Socket))
            }
            Kind::BaseTokenApi(pattern) => {
                Backend::Server(TokenApi::new(pattern, Answers::Text).into())
            }
            Kind::JsonTokenApi(pattern) => {
                Backend::Server(TokenApi::new(pattern, Answers::Json).into())
            }
            Kind::JwtTokenApi(path) => Backend::Key(Jwt::new(path)),
            Kind::TokenRedis(server) => Backend::Redis(Redis::new(server).into()),
        };
        Self { name, path, backend }
    }

    /// A helper that knows the tokens; `name` is what the log calls it.
    pub fn asked(name: String, asked: QuestionSender) -> Self {
        Self { name, path: None, backend: Backend::Helper(asked) }
    }

    /// Reads the tokens or the key that the source keeps in memory, so that the first look-up need not, and says what is wrong.
    ///
    /// # Errors
    ///
    /// The source cannot be used as things are.
    pub async fn prepare(&self) -> Result<(), SourceError> {
        match &self.backend {
            Backend::Lines(files) => files.prepare().await,
            Backend::Names(directory) => directory.prepare().await,
            Backend::Key(jwt) => jwt.prepare().await,
            // The server or helper may start later, and is asked when a client has a token.
            Backend::Server(_) | Backend::Redis(_) | Backend::Helper(_) => Ok(()),
        }
    }

    /// Where this token leads, if it is known.
    pub(super) async fn look_up(&self, token: &str) -> Result<Option<Found>, NoDestination> {
        let found = match &self.backend {
            Backend::Lines(files) => files.look_up(token).await,
            Backend::Names(directory) => directory.look_up(token).await,
            Backend::Server(server) => server.look_up(token).await,
            Backend::Redis(server) => server.look_up(token).await,
            Backend::Helper(helper) => asked::look_up(helper, token).await,
            Backend::Key(jwt) => return jwt.look_up(token).await.map(Some),
        };
        Ok(found?.map(|endpoint| Found { endpoint, expires: None }))
    }

    /// The file or directory of the source, if it is one.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The name of the source, for the log.
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}
