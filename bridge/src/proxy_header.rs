//! The PROXY protocol (proxy-protocol.txt of HAProxy): a header before the bytes of a connection, in which a proxy
//! says whose connection it passes on. No I/O.

mod read;

pub(crate) use read::{Header, Malformed, Progress, Reader};
