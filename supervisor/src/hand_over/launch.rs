//! The launch: how websockify was started at first. All binaries of later hand-overs have the same. Must not know what
//! came of it.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::time::Instant;

use bridge::Moment;
use serde::{Deserialize, Serialize};

use super::binary;
use crate::cli::{Args, Refusal};
use crate::config::Config;
use crate::log::Stderr;
use crate::usage::UsageError;

/// How websockify was started.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Launch {
    /// The real command line, which ps does not show where there is a secret in it.
    pub(crate) args: Vec<OsString>,
    began: Moment,
    /// The path of our executable file.
    binary: OsString,
    /// Our name as ps shows it; some kernels change it in a hand-over.
    pub(crate) name: OsString,
    pub(crate) stderr: Stderr,
}

impl Launch {
    /// The launch of a process that is started now.
    pub(crate) fn new(args: Vec<OsString>, now: Instant) -> Self {
        // It may end within a letter.
        let mut name = std::fs::read("/proc/self/comm").unwrap_or_default();
        name.pop_if(|last| *last == b'\n');
        Self {
            args,
            began: now.into(),
            binary: binary::path().into(),
            name: OsString::from_vec(name),
            stderr: Stderr::Callers,
        }
    }

    /// When websockify was started.
    pub(crate) fn began(&self) -> Instant {
        self.began.instant()
    }

    pub(crate) fn binary(&self) -> &Path {
        Path::new(&self.binary)
    }

    /// What the command line means to this binary.
    pub(super) fn config(&self) -> Result<Config, String> {
        let args = Args::parse_from_os(self.args.clone());
        let config = args.and_then(|args| Config::new(args, self.began()).map_err(Refusal::Usage));
        config.map_err(|refusal| match refusal {
            Refusal::Usage(UsageError(line)) => line,
            Refusal::Answer(_) => "its command line asks a question".into(),
        })
    }
}
