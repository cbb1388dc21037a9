//! Sessions that cannot go along, as their keys are in our memory: what becomes of them.

use bridge::Frozen;

/// Parts from them.
///
/// # Errors
///
/// Why they cannot be parted from; nothing was done.
pub(crate) fn part(frozen: Frozen) -> Result<Frozen, String> {
    match frozen.rest.sessions() {
        0 => Ok(frozen),
        1 => Err("1 encrypted session cannot be handed over yet".into()),
        sessions => Err(format!("{sessions} encrypted sessions cannot be handed over yet")),
    }
}
