//! The PROXY protocol (haproxy.org, proxy-protocol.txt): a header ahead of a connection's first byte that says
//! who is at its other end. Both versions. Knows bytes and addresses, and no socket.

mod write;

pub(crate) use write::header;

/// A version of the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyVersion {
    /// One line of text.
    V1,
    /// Binary.
    V2,
}
