//! The PROXY protocol (proxy-protocol.txt of HAProxy): a header before the bytes of a connection, which says whose
//! connection it is. Read where a proxy sends it to us, written where a target wants it. Knows bytes and addresses, and no
//! socket.

mod read;
mod write;

pub(crate) use read::{Header, Malformed, Progress, Reader};
pub(crate) use write::header;

/// A version of the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyVersion {
    /// One line of text.
    V1,
    /// Binary.
    V2,
}
