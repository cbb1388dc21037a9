//! How much memory there is for us: the machine's, or less where a control group has a limit.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::sys::sysinfo::sysinfo;

/// Where control groups are, of the second version and of the first.
const UNIFIED: &str = "/sys/fs/cgroup";
const OF_MEMORY: &str = "/sys/fs/cgroup/memory";

/// The part of the memory that clients may have us keep, as a divisor: the kernel keeps about as much again, and we
/// need some ourselves.
const PART: u64 = 4;

/// What clients may have us keep at least, bytes: some of them can be served whatever the limit is.
const LEAST: u64 = 4 << 20;

/// How much memory is assumed, bytes, if the kernel does not say (sysinfo(2)).
const USUAL: u64 = 1 << 30;

/// How much memory clients may have us keep, in bytes, without `--max-memory`.
pub(crate) fn for_clients() -> usize {
    // /proc/meminfo is hidden from a service that sees only processes there.
    let machine = sysinfo().map_or(USUAL, |machine| machine.ram_total());
    let groups = fs::read("/proc/self/cgroup").unwrap_or_default();
    let limits = settings(&groups).into_iter().filter_map(|path| limit(&path));
    let all = limits.fold(machine, u64::min);
    usize::try_from((all / PART).max(LEAST)).unwrap_or(usize::MAX)
}

/// The files that may have a limit, of our group and of those above it.
fn settings(groups: &[u8]) -> Vec<PathBuf> {
    let of_line = |line: &[u8]| {
        // A number, controllers, and a path of any bytes (cgroups(7)).
        let mut fields = line.splitn(3, |byte| *byte == b':').skip(1);
        let (controllers, group) = (fields.next()?, fields.next()?);
        let is_of_memory = controllers.split(|byte| *byte == b',').any(|name| name == b"memory");
        let (root, file) = match controllers {
            b"" => (UNIFIED, "memory.max"),
            _ if is_of_memory => (OF_MEMORY, "memory.limit_in_bytes"),
            _ => return None,
        };
        let group = Path::new(OsStr::from_bytes(group));
        let group = group.strip_prefix("/").unwrap_or(group);
        // Within a container our group may be the root of what is mounted.
        let above = group.ancestors().map(|group| Path::new(root).join(group).join(file));
        Some(above.collect::<Vec<_>>())
    };
    groups.split(|byte| *byte == b'\n').filter_map(of_line).flatten().collect()
}

/// The limit in this file. None: there is no such file, or it says `max`.
fn limit(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l5_the_limit_is_looked_for_in_our_control_group_and_all_above() {
        let groups = b"9:name=systemd:/x\n4:cpu,memory:/a/b\n1:cpu:/\n0::/c:\xff\n";
        let found = settings(groups);
        let expected: [&[u8]; 5] = [
            b"/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes",
            b"/sys/fs/cgroup/memory/a/memory.limit_in_bytes",
            b"/sys/fs/cgroup/memory/memory.limit_in_bytes",
            b"/sys/fs/cgroup/c:\xff/memory.max",
            b"/sys/fs/cgroup/memory.max",
        ];
        assert_eq!(found, expected.map(|path| Path::new(OsStr::from_bytes(path))));
        assert!(settings(b"").is_empty() && settings(b"garbage\n:\n::").len() == 1);
    }

    #[test]
    fn l5_a_limit_is_a_number_and_there_is_always_something() {
        let directory = tempfile::TempDir::new().unwrap();
        let file = directory.path().join("memory.max");
        for (text, said) in [("67108864\n", Some(67_108_864)), ("max\n", None), ("", None)] {
            fs::write(&file, text).unwrap();
            assert_eq!(limit(&file), said);
        }
        assert_eq!(limit(&directory.path().join("none")), None);
        let most = (sysinfo().unwrap().ram_total() / PART).max(LEAST);
        assert!((LEAST..=most).contains(&(for_clients() as u64)));
    }
}
