//! File systems that are soon full.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::{needs, needs_root, skip_even_in_ci};

/// A file system of its own, of 64 KiB.
pub(crate) struct Disk(TempDir);

impl Disk {
    /// `None` where it cannot be mounted; the test is then reported as skipped.
    pub(crate) fn new() -> Option<Self> {
        if !needs(&["mount"]) || !needs_root() {
            return None;
        }
        let disk = Self(TempDir::new().unwrap());
        let options = ["-t", "tmpfs", "-o", "size=64k", "tmpfs"];
        let mounted = Command::new("mount").args(options).arg(disk.path()).status().unwrap();
        if !mounted.success() {
            skip_even_in_ci("nothing can be mounted here");
            return None;
        }
        Some(disk)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Fills the file system with one file, and gives the path of that.
    pub(crate) fn fill(&self) -> PathBuf {
        let file = self.path().join("full");
        assert!(fs::write(&file, vec![0; 65 << 10]).is_err(), "it is full now");
        file
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a websockify that is being stopped may still have a file of it open.
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}
