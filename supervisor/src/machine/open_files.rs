//! The limit on open files, which is raised for us and given back to the program.

use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};
use serde::{Deserialize, Serialize};

/// The limit that we were started with.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct OpenFiles {
    soft: rlim_t,
    /// The hard limit, which is our soft limit too once that is raised.
    pub(crate) hard: rlim_t,
}

impl OpenFiles {
    /// Raises our limit as far as we may: a session needs two descriptors.
    pub(crate) fn raise() -> nix::Result<Self> {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        Ok(Self { soft, hard })
    }

    /// Sets the limit back to what it was, for the program (W1). Async-signal-safe.
    pub(crate) fn restore(self) -> nix::Result<()> {
        setrlimit(Resource::RLIMIT_NOFILE, self.soft, self.hard)
    }
}
