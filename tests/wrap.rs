//! The life of a wrapped program; the program is `support/actor.c`.

mod begin;
mod calls;
mod daemon;
mod drained_on_demand;
mod end;
mod engine;
mod hold;
mod library;
mod many;
mod neighbour;
mod on_demand;
mod port;
mod respawn;
mod session;
mod stop;
mod terminal;
mod warn;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::TempDir;

use crate::support::wait_until;

/// A directory for a program's notes, open to every user as /tmp is.
pub(crate) struct Notes(TempDir);

impl Notes {
    pub(crate) fn new() -> Self {
        let directory = TempDir::new().unwrap();
        fs::set_permissions(&directory, Permissions::from_mode(0o1777)).unwrap();
        Self(directory)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// The path of a note, for a command line.
    pub(crate) fn note(&self, name: &str) -> String {
        self.path().join(name).to_str().unwrap().to_owned()
    }

    /// The lines of a note; none if it was not written.
    fn lines(&self, name: &str) -> Vec<String> {
        let text = fs::read_to_string(self.path().join(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Waits until a note is written.
    fn wait_for(&self, name: &str) {
        wait_until(&format!("the note {name}"), || !self.lines(name).is_empty());
    }

    /// Lets a program go on that awaits this file.
    pub(crate) fn give(&self, name: &str) {
        fs::write(self.path().join(name), "").unwrap();
    }
}
