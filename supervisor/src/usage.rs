//! A usage error: the one line that says what is wrong with a command line. Knows how such lines read, and no option.

/// One line that says what is wrong with the command line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UsageError(pub(crate) String);

/// A value that an option, or an argument, does not take.
pub(crate) fn invalid(option: &str, value: &str, expected: &str) -> UsageError {
    UsageError(format!("invalid value '{value}' for '{option}': expected {expected}"))
}

/// An option that means nothing without another.
pub(crate) fn needs(option: &str, other: &str) -> UsageError {
    UsageError(format!("option '{option}' needs '{other}'"))
}
