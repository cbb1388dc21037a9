//! The kinds of I/O errors in the state of a hand-over, by their names.

use std::io::ErrorKind;

use serde::{Deserialize, Deserializer, Serializer};

/// The kinds that mean something to clients, to the log, or to us.
const KINDS: [ErrorKind; 10] = [
    ErrorKind::ConnectionReset,
    ErrorKind::ConnectionAborted,
    ErrorKind::BrokenPipe,
    ErrorKind::TimedOut,
    ErrorKind::UnexpectedEof,
    ErrorKind::HostUnreachable,
    ErrorKind::NetworkUnreachable,
    ErrorKind::NotConnected,
    ErrorKind::WriteZero,
    ErrorKind::InvalidData,
];

/// By its name.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
pub(crate) fn serialize<S: Serializer>(kind: &ErrorKind, out: S) -> Result<S::Ok, S::Error> {
    out.collect_str(&format_args!("{kind:?}"))
}

/// `Other`, if its name is none of these.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<ErrorKind, D::Error> {
    let name = String::deserialize(from)?;
    let known = KINDS.into_iter().find(|kind| format!("{kind:?}") == name);
    Ok(known.unwrap_or(ErrorKind::Other))
}
