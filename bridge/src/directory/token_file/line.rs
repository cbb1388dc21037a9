//! One line of a token file: `token: target`, a comment, or nothing. Knows bytes only (L3).

use super::super::target;
use crate::destination::Endpoint;

/// Why a line is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unreadable {
    #[error("it is not text in UTF-8")]
    NotText,
    #[error("it is not 'token: target', with one colon that space follows")]
    NotAPair,
    #[error("{0}")]
    Target(&'static str),
}

/// The token and the target of a line; none if it is empty or a comment.
pub(crate) fn read(line: &[u8]) -> Result<Option<(&str, Endpoint)>, Unreadable> {
    let line = std::str::from_utf8(line).map_err(|_| Unreadable::NotText)?.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    // Colons without space behind them belong to the token, or to the target.
    let parts =
        line.match_indices(':').filter(|(at, _)| line[at + 1..].starts_with(char::is_whitespace));
    let mut parts = parts.map(|(at, _)| (&line[..at], line[at + 1..].trim_start()));
    match (parts.next(), parts.next()) {
        (Some((token, target)), None) if !token.is_empty() => {
            let endpoint = target::endpoint(target).map_err(Unreadable::Target)?;
            Ok(Some((token, endpoint)))
        }
        _ => Err(Unreadable::NotAPair),
    }
}
