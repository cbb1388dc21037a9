//! One connection to a Redis server, for one request after the other. Knows the socket; must not know what a value means, nor how
//! long a look-up may take.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::protocol::{self, Reply};
use super::server::RedisServer;
use crate::destination::Endpoint;
use crate::error_text::error_text;
use crate::net::{Lookups, Socket};
use crate::unreachable::Unreachable;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("{0}")]
    Unreachable(String),
    #[error("{}", error_text(.0))]
    Io(#[from] io::Error),
    #[error("{0}")]
    Protocol(&'static str),
    #[error("it answers {0:?} to {1}")]
    Refused(String, &'static str),
}

/// A connection on which no answer is awaited.
#[derive(Debug)]
pub(super) struct Connection(Socket);

impl Connection {
    /// Connects, authenticates, and selects the database.
    pub(super) async fn open(server: &RedisServer, lookups: &Lookups) -> Result<Self, Failure> {
        let socket = Endpoint::Tcp(server.address.clone()).connect(lookups, None).await;
        let mut connection = Self(socket.map_err(|failure| match failure {
            Unreachable::Connect(_, why) => Failure::Unreachable(why),
            other => Failure::Unreachable(other.to_string()),
        })?);
        if let Some(password) = &server.password {
            connection.tell("AUTH", password).await?;
        }
        if server.database != 0 {
            connection.tell("SELECT", &server.database.to_string()).await?;
        }
        Ok(connection)
    }

    /// Whether the server has sent something that nobody asked for, or has ended the connection: the next request would take that
    /// for its answer.
    pub(super) fn has_unexpected_input(&self) -> bool {
        self.0.is_readable()
    }

    /// The value of a key.
    pub(super) async fn get(&mut self, key: &str) -> Result<Reply, Failure> {
        self.ask("GET", key).await
    }

    async fn tell(&mut self, deed: &'static str, word: &str) -> Result<(), Failure> {
        match self.ask(deed, word).await? {
            Reply::Status => Ok(()),
            Reply::Error(text) => Err(Failure::Refused(text, deed)),
            Reply::Value(_) | Reply::Nil => Err(Failure::Protocol("it answers with a value")),
        }
    }

    async fn ask(&mut self, deed: &str, word: &str) -> Result<Reply, Failure> {
        self.0.write_all(&protocol::command(&[deed.as_bytes(), word.as_bytes()])).await?;
        let mut heard = Vec::with_capacity(1024);
        loop {
            if self.0.read_buf(&mut heard).await? == 0 {
                return Err(io::Error::other("connection closed").into());
            }
            match protocol::reply(&heard).map_err(Failure::Protocol)? {
                Some((reply, length)) if length == heard.len() => return Ok(reply),
                Some(_) => return Err(Failure::Protocol("it answers what was not asked")),
                None => {}
            }
        }
    }
}
