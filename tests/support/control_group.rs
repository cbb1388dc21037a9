//! Control groups, for limits that processes have together.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use super::wait::wait_until;
use super::websockify::{WEBSOCKIFY, Websockify};
use super::{needs_root, skip_even_in_ci};

/// A control group that may use so much memory; removed when this is dropped.
pub(crate) struct MemoryLimit(PathBuf);

impl MemoryLimit {
    /// `None` where the test run may make no control group; it then reports the test as skipped.
    pub(crate) fn new(bytes: u64) -> Option<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        if !needs_root() {
            return None;
        }
        let unified = [("memory.max", bytes), ("memory.swap.max", 0)];
        let of_version_1 = [("memory.limit_in_bytes", bytes), ("memory.swappiness", 0)];
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("websockify-test-{}-{number}", std::process::id());
        let made = [("/sys/fs/cgroup", unified), ("/sys/fs/cgroup/memory", of_version_1)]
            .into_iter()
            .find_map(|(parent, [limit, swap])| Self::within(parent, &name, limit, swap));
        if made.is_none() {
            skip_even_in_ci("no control group with a limit of memory here");
        }
        made
    }

    fn within(parent: &str, name: &str, limit: (&str, u64), swap: (&str, u64)) -> Option<Self> {
        let group = Path::new(parent).join(name);
        // Only version 2 has this file: groups have no memory limit unless their parent enables it.
        let _ = change(&Path::new(parent).join("cgroup.subtree_control"), "+memory");
        fs::create_dir(&group).ok()?;
        let group = Self(group);
        // A kernel without swap has no such setting.
        let _ = change(&group.0.join(swap.0), &swap.1.to_string());
        change(&group.0.join(limit.0), &limit.1.to_string()).ok()?;
        Some(group)
    }

    /// Starts websockify in this group.
    pub(crate) fn start(&self, arguments: &str) -> Websockify {
        let script = format!("echo $$ >{}/cgroup.procs && exec \"$@\"", self.0.display());
        let mut command = Command::new("sh");
        command.args(["-c", &script, "sh", WEBSOCKIFY]).args(arguments.split_whitespace());
        Websockify::launch(&mut command)
    }
}

/// Changes a setting, if there is one: the directory may be no control group.
fn change(setting: &Path, value: &str) -> io::Result<()> {
    File::options().write(true).open(setting)?.write_all(value.as_bytes())
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        // The group is empty only a moment after its last process has been reaped.
        wait_until("an empty control group", || {
            fs::remove_dir(&self.0).is_ok() || !self.0.exists()
        });
    }
}
