//! The proxies before us: which of them are trusted to name the client of a connection or a request, and how they name
//! it. Any other peer that names a client is not believed.

use std::io;
use std::net::SocketAddr;

use ::http::HeaderMap;
use tokio::io::AsyncReadExt;

use crate::error_text::error_text;
use crate::forwarded::{self, Doubt};
use crate::net::{PEEK_MAX, Socket};
use crate::network::Networks;
use crate::peer::PeerAddress;
use crate::proxy_header::{Header, Malformed, Progress, Reader};

/// How many bytes of a PROXY header are peeked at in one call: most headers are shorter.
const PIECE: usize = 256;

/// The proxies that are trusted.
#[derive(Debug, Clone, Default)]
pub struct Proxies {
    /// Where they connect from.
    pub trusted: Networks,
    /// How they name the client.
    pub word: ClientNaming,
}

/// How a proxy names the client of a connection or a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientNaming {
    /// In each request, by `Forwarded` or `X-Forwarded-For`. A request that names no client counts as the proxy's own,
    /// but gets no rights by the proxy's address.
    #[default]
    Headers,
    /// At the beginning of each connection, by a PROXY header; headers of requests mean nothing.
    ProxyHeader,
}

/// Why a proxy has not named the client of a connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProxyHeaderError {
    #[error("closed before its PROXY header")]
    Closed,
    #[error("{0}")]
    Malformed(#[from] Malformed),
    #[error("{}", error_text(.0))]
    Io(#[from] io::Error),
}

impl Proxies {
    /// Whether a connection from this address is a trusted proxy's.
    pub(crate) fn trust(&self, address: PeerAddress) -> bool {
        self.trusted.have(address)
    }

    /// The client of a request from a trusted proxy, if the headers name one in a way that only the proxy can have
    /// written.
    pub(crate) fn named(&self, headers: &HeaderMap) -> Result<Option<SocketAddr>, Doubt> {
        forwarded::client(headers, |address| self.trusted.have_address(address))
    }
}

/// Reads the PROXY header of a connection, and not a byte more. Where the kernel's buffer has room for the whole
/// header, nothing is read until it is whole: after a hand-over the new binary may have to read it from its beginning
/// (O2).
pub(crate) async fn read_header(io: &mut Socket) -> Result<Header, ProxyHeaderError> {
    if !io.has_little_room() {
        let whole = io.peek_until(|seen, is_last| match Reader::default().read(seen) {
            Ok(Progress::More) if !is_last && seen.len() < PEEK_MAX => None,
            _ => Some(()),
        });
        whole.await?;
    }
    let (mut reader, mut piece) = (Reader::default(), [0; PIECE]);
    loop {
        let length = io.peek(&mut piece).await?;
        if length == 0 {
            return Err(ProxyHeaderError::Closed);
        }
        let progress = reader.read(&piece[..length])?;
        let taken = match progress {
            Progress::More => length,
            Progress::Done(taken, _) => taken,
        };
        // These bytes were peeked at, so this does not wait.
        io.read_exact(&mut piece[..taken]).await?;
        if let Progress::Done(_, header) = progress {
            return Ok(header);
        }
    }
}
