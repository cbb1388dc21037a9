//! The proxies before us: who of them is trusted to say whose a connection or a request is, and how they say it. Whoever
//! else says it is not heard.

use std::io;
use std::net::SocketAddr;

use ::http::HeaderMap;
use tokio::io::AsyncReadExt;

use crate::error_text::error_text;
use crate::forwarded::{self, Doubt};
use crate::net::{SEEN_MAX, Socket};
use crate::network::Networks;
use crate::peer::PeerAddress;
use crate::proxy_header::{Header, Malformed, Progress, Reader};

/// How much of a PROXY header is looked at at once: most are shorter.
const PIECE: usize = 256;

/// The proxies that are trusted.
#[derive(Debug, Clone, Default)]
pub struct Proxies {
    /// Where they connect from.
    pub trusted: Networks,
    /// How they say whose a connection is.
    pub word: Word,
}

/// How a proxy says whose a connection or a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Word {
    /// In each request, by `Forwarded` or `X-Forwarded-For`; one that does not is taken for the
    /// proxy's own, where that gives it no rights.
    #[default]
    Headers,
    /// Before each connection, by a PROXY header; headers of requests mean nothing.
    ProxyHeader,
}

/// Why a proxy has not said whose a connection is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Silence {
    #[error("closed before its PROXY header")]
    Closed,
    #[error("{0}")]
    Malformed(#[from] Malformed),
    #[error("{}", error_text(.0))]
    Io(#[from] io::Error),
}

impl Proxies {
    /// Whether a connection from there is a trusted proxy's.
    pub(crate) fn trust(&self, address: PeerAddress) -> bool {
        self.trusted.have(address)
    }

    /// Whose a request is that came from a trusted proxy, if it says so in a way that can only be the proxy's.
    pub(crate) fn named(&self, headers: &HeaderMap) -> Result<Option<SocketAddr>, Doubt> {
        forwarded::client(headers, |address| self.trusted.have_address(address))
    }
}

/// Reads the PROXY header of a connection, and not a byte more. Until it is whole nothing is read, where the kernel has
/// room for it: another image of this program may have to begin with it (O2).
pub(crate) async fn read_header(io: &mut Socket) -> Result<Header, Silence> {
    if !io.has_little_room() {
        let whole = io.peek_until(|seen, is_last| match Reader::default().read(seen) {
            Ok(Progress::More) if !is_last && seen.len() < SEEN_MAX => None,
            _ => Some(()),
        });
        whole.await?;
    }
    let (mut reader, mut piece) = (Reader::default(), [0; PIECE]);
    loop {
        let length = io.peek(&mut piece).await?;
        if length == 0 {
            return Err(Silence::Closed);
        }
        let progress = reader.read(&piece[..length])?;
        let taken = match progress {
            Progress::More => length,
            Progress::Done(taken, _) => taken,
        };
        // They are there.
        io.read_exact(&mut piece[..taken]).await?;
        if let Progress::Done(_, header) = progress {
            return Ok(header);
        }
    }
}
