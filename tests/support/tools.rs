//! A PATH of our own: scripts that stand in for programs, and note how they were called.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

use super::{root, write_script};

/// A directory for PATH, and in it a file of calls.
pub(crate) struct Tools(TempDir);

impl Tools {
    /// With these of the system's programs, and nothing else yet.
    pub(crate) fn of_system(names: &[&str]) -> Self {
        let tools = Self(TempDir::new().unwrap());
        for name in names {
            let found = ["/usr/bin", "/bin"].map(|directory| Path::new(directory).join(name));
            let found = found.into_iter().find(|path| path.exists()).unwrap();
            symlink(found, tools.0.path().join(name)).unwrap();
        }
        tools
    }

    /// Stands in for a program: the call is noted, then the script runs.
    pub(crate) fn put(&self, name: &str, script: &str) {
        let calls = self.0.path().join("calls");
        let note = format!("#!/bin/sh\necho \"{name} $*\" >>{}\n{script}\n", calls.display());
        write_script(self.0.path().join(name), &note);
    }

    /// Runs a script of the project with this PATH, and `further` behind it.
    pub(crate) fn run(&self, script: &str, arguments: &[&str], further: &str) -> Output {
        let mut command = Command::new(root().join(script));
        command.args(arguments).env("PATH", format!("{}{further}", self.0.path().display()));
        command.env("CARGO_TARGET_DIR", self.0.path()).env_remove("SUDO_USER").env_remove("CI");
        command.output().unwrap()
    }

    /// The calls of stand-ins up to now, a line each.
    pub(crate) fn calls(&self) -> String {
        std::fs::read_to_string(self.0.path().join("calls")).unwrap_or_default()
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}
