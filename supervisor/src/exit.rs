//! How websockify ends: its exit status, the line that explains a failure, and how it reads the
//! program's status.

use std::process::ExitCode;

use serde::{Deserialize, Serialize};

/// How a process has ended (wait(2)). A signal is a number here: real-time signals have no names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Exited(i32),
    Killed(i32),
}

/// An exit status as a shell shows it, 0–255.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitStatus(u8);

impl ExitStatus {
    /// All went well, or somebody asked us to stop.
    pub(crate) const SUCCESS: Self = Self(0);
    /// Something failed at run time; one line on standard error says what.
    pub(crate) const FAILURE: Self = Self(1);
    /// The command line is wrong.
    pub(crate) const USAGE: Self = Self(2);
    /// The program exists but cannot be executed (sh(1)).
    pub(crate) const NOT_EXECUTABLE: Self = Self(126);
    /// There is no such program (sh(1)).
    pub(crate) const NOT_FOUND: Self = Self(127);

    /// The program's status: its own, or 128+n if signal n ended it.
    pub(crate) fn of_program(end: End) -> Self {
        let code = match end {
            End::Exited(code) => code & 0xff,
            End::Killed(signal) => 128 + signal,
        };
        Self(u8::try_from(code).unwrap_or(u8::MAX))
    }

    /// Whether SIGINT or SIGQUIT, as the terminal sends them, ended the program.
    pub(crate) fn is_interrupt(self) -> bool {
        self == Self(130) || self == Self(131)
    }

    /// As a number, to hand it on.
    pub(crate) fn code(self) -> u8 {
        self.0
    }

    pub(crate) fn is_success(self) -> bool {
        self == Self::SUCCESS
    }
}

/// Why websockify cannot do what it was asked to, and what it ends with. The reason is one line,
/// `deed and object: reason`.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: ExitStatus,
    pub(crate) reason: String,
}

impl From<anyhow::Error> for Failure {
    fn from(failure: anyhow::Error) -> Self {
        let causes: Vec<_> = failure
            .chain()
            .map(|cause| cause.downcast_ref().map_or_else(|| cause.to_string(), bridge::error_text))
            .collect();
        Self { status: ExitStatus::FAILURE, reason: causes.join(": ") }
    }
}

impl std::fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl From<u8> for ExitStatus {
    fn from(code: u8) -> Self {
        Self(code)
    }
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        status.0.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn w8_a_program_ends_with_its_code_or_128_and_its_signal() {
        for (end, status) in [
            (End::Exited(0), 0),
            (End::Exited(255), 255),
            (End::Killed(9), 137),
            // A real-time signal.
            (End::Killed(64), 192),
        ] {
            assert_eq!(ExitStatus::of_program(end), ExitStatus(status));
        }
    }
}
