//! What knows where tokens lead. The kinds are upstream's plugins; each is asked in the same way, and is a
//! file of its own.

use std::path::PathBuf;

use super::below::{Below, What};
use super::failure::SourceError;
use super::token::TokenPlace;
use super::token_file::{Rereads, TokenFile};
use crate::destination::Endpoint;

/// A source of tokens at work.
#[derive(Debug)]
pub struct Source(Of);

#[derive(Debug)]
enum Of {
    Lines(TokenFile),
    Names(Below),
}

/// What a source is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A file of lines, or a directory of such files, as they are at each moment.
    TokenFile(PathBuf),
    /// The same, read once.
    ReadOnlyTokenFile(PathBuf),
    /// A directory of files: each is called like a token and has its target in it.
    TokenFileName(PathBuf),
    /// A directory of Unix sockets: each is called like a token.
    UnixDomainSocketDirectory(PathBuf),
}

impl Source {
    /// Looks at nothing yet. Requests have their tokens in `place`.
    pub fn new(kind: Kind, place: TokenPlace) -> Self {
        Self(match kind {
            Kind::TokenFile(path) => Of::Lines(TokenFile::new(path, place, Rereads::WhenChanged)),
            Kind::ReadOnlyTokenFile(path) => Of::Lines(TokenFile::new(path, place, Rereads::Never)),
            Kind::TokenFileName(path) => Of::Names(Below::new(path, What::File)),
            Kind::UnixDomainSocketDirectory(path) => Of::Names(Below::new(path, What::Socket)),
        })
    }

    /// Reads what it keeps of its tokens, so that the first look-up need not, and says what is wrong.
    ///
    /// # Errors
    ///
    /// It cannot be used as things are.
    pub async fn prepare(&self) -> Result<(), SourceError> {
        match &self.0 {
            Of::Lines(files) => files.prepare().await,
            Of::Names(directory) => directory.prepare().await,
        }
    }

    /// Where this token leads, if it is known.
    pub(super) async fn look_up(&self, token: &str) -> Result<Option<Endpoint>, SourceError> {
        match &self.0 {
            Of::Lines(files) => files.look_up(token).await,
            Of::Names(directory) => directory.look_up(token).await,
        }
    }
}
