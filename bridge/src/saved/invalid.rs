//! Why the saved state of a hand-over is refused.

/// What is wrong with a state. Nothing was done with it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub String);
