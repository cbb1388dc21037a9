//! What is held: opened once, and kept for our whole life over all hand-overs.

use std::os::fd::RawFd;

use serde::{Deserialize, Serialize};

use crate::admin::SavedAdmin;
use crate::launcher::LauncherState;
use crate::machine::open_files::OpenFiles;

/// All of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Held {
    pub(crate) open_files: OpenFiles,
    pub(crate) pid_file: Option<RawFd>,
    pub(crate) admin: Option<SavedAdmin>,
    /// The launcher, which starts the program where it is another user than we.
    #[serde(default)]
    pub(crate) launcher: Option<LauncherState>,
}

impl Held {
    /// The descriptors that it names.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        let admin = self.admin.iter().flat_map(SavedAdmin::descriptors);
        let launcher = self.launcher.iter().map(LauncherState::descriptor);
        self.pid_file.into_iter().chain(admin).chain(launcher)
    }
}
