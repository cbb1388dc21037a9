//! A machine with the package installed and a systemd of its own as process 1 (`machine.sh`), on this
//! kernel and this network. What is written there stays in memory; nothing of it outlives the test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use procfs::process::MountInfo;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{
    Actor, DEADLINE, Heard, needs, needs_root, skip, skip_even_in_ci, text_of, wait_for,
    wait_for_within, wait_until,
};

const SYSTEMD: &str = "/lib/systemd/systemd";
const SETUP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/packaging/machine.sh");
/// Error messages where the kernel, or a container that the tests run in, forbids such a machine.
const FORBIDDEN: &[&str] =
    &["Operation not permitted", "ermission denied", "Read-only file system", "unknown filesystem"];

pub(super) struct Machine {
    /// The process of unshare(1). When it dies, process 1 dies, and with that all processes of the machine.
    holder: Child,
    /// The PID of process 1 outside of the machine.
    init: String,
    groups: PathBuf,
    _directory: TempDir,
}

impl Machine {
    /// `None` where it cannot be made; the test is then reported as skipped. This is no failure in continuous integration
    /// if the kernel forbids it.
    pub(super) fn boot(package: &Path) -> Option<Self> {
        let programs = ["unshare", "nsenter", "mount", "pivot_root", "dpkg", "systemctl"];
        if !needs_root() || !needs(&programs) {
            return None;
        }
        if !Path::new(SYSTEMD).exists() {
            skip("not installed: systemd");
            return None;
        }
        let groups = match control_groups() {
            Ok(groups) => groups,
            Err(reason) => return forbidden(&reason),
        };
        let directory = TempDir::new().unwrap();
        let mut shell = Command::new("sh");
        let namespaces = "--cgroup --ipc --mount --pid --uts --fork --kill-child";
        let enter = format!("echo $$ >\"$0\" && exec unshare {namespaces} sh \"$@\"");
        shell.args(["-c", &enter]).arg(groups.join("cgroup.procs")).arg(SETUP);
        shell.arg(directory.path()).arg(package).arg(Actor.as_ref());
        shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut holder = shell.spawn().unwrap();
        let said = Heard::of(holder.stderr.take().unwrap());
        let mut machine = Self { holder, init: String::new(), groups, _directory: directory };
        // The machine installs the package before systemd starts, which takes longer.
        let booted = wait_for_within(3 * DEADLINE, "a machine", || {
            match machine.holder.try_wait().unwrap() {
                Some(_) if said.ended() => Some(false),
                _ => machine.is_up().then_some(true),
            }
        });
        if booted {
            return Some(machine);
        }
        let said = said.text();
        assert!(FORBIDDEN.iter().any(|reason| said.contains(reason)), "no machine: {said}");
        forbidden(&said)
    }

    /// Whether systemd answers.
    fn is_up(&mut self) -> bool {
        let id = self.holder.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
        children.unwrap_or_default().trim().clone_into(&mut self.init);
        let command = fs::read_to_string(format!("/proc/{}/comm", self.init));
        command.is_ok_and(|command| command == "systemd\n")
            && self.run(&["systemctl", "is-system-running"]).1 == "running\n"
    }

    /// Runs a command in the machine; gives whether it succeeded, and its output.
    pub(super) fn run(&self, command: &[&str]) -> (bool, String) {
        let mut nsenter = Command::new("nsenter");
        nsenter.args(["--cgroup", "--ipc", "--mount", "--pid", "--uts", "--target", &self.init]);
        let output = nsenter.args(command).stdin(Stdio::null()).output().unwrap();
        let said = text_of(&output.stdout) + &text_of(&output.stderr);
        (output.status.success(), said)
    }

    /// Runs `systemctl`, which must succeed.
    pub(super) fn control(&self, arguments: &[&str]) -> String {
        let (is_well, said) = self.run(&[&["systemctl"], arguments].concat());
        assert!(is_well, "systemctl {arguments:?}: {said}{}", self.journal());
        said
    }

    /// A property of a unit, as `systemctl show` gives it.
    pub(super) fn property(&self, unit: &str, name: &str) -> String {
        let said = self.control(&["show", "--value", "--property", name, unit]);
        said.trim_end().to_owned()
    }

    /// A file of the machine, by its path outside.
    pub(super) fn file(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.init))
    }

    /// Writes a file in the machine.
    pub(super) fn write(&self, path: &str, text: &str) {
        let file = self.file(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    /// What stands in `/proc/PID/status` of a unit's main process.
    pub(super) fn status_of(&self, unit: &str) -> String {
        let pid = self.property(unit, "MainPID");
        fs::read_to_string(self.file(&format!("/proc/{pid}/status"))).unwrap()
    }

    /// The journal's records that match, waited for: there is at least one.
    pub(super) fn records(&self, matches: &[&str]) -> Vec<Value> {
        wait_for(&format!("{matches:?} in the journal"), || {
            let (_, said) =
                self.run(&[&["journalctl", "--quiet", "--output=json"], matches].concat());
            let records: Vec<_> =
                said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            (!records.is_empty()).then_some(records)
        })
    }

    fn journal(&self) -> String {
        self.run(&["journalctl", "--no-pager", "--lines=50"]).1
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the machine's journal:\n{}", self.journal());
        }
        let _ = self.holder.kill();
        let _ = self.holder.wait();
        let groups = self.groups.clone();
        // The groups are not empty at once when the last process is gone.
        wait_until("the end of the machine's control groups", || {
            remove(&groups);
            !groups.exists()
        });
    }
}

/// Makes a control group for the machine, which sees it as the root of all control groups.
fn control_groups() -> Result<PathBuf, String> {
    static MACHINES: AtomicU32 = AtomicU32::new(0);
    let number = MACHINES.fetch_add(1, Ordering::Relaxed);
    let mounts = procfs::process::Process::myself().and_then(|us| us.mountinfo()).unwrap();
    let unified = mounts.into_iter().find(|mount: &MountInfo| mount.fs_type == "cgroup2");
    let unified = unified.ok_or("no control groups of version 2")?.mount_point;
    let groups = unified.join(format!("websockify-test-{}-{number}", std::process::id()));
    fs::create_dir(&groups).map_err(|error| format!("{}: {error}", groups.display()))?;
    Ok(groups)
}

/// Removes a control group and those in it, as far as they have no processes.
fn remove(groups: &Path) {
    let entries = fs::read_dir(groups).into_iter().flatten().flatten();
    let directories = entries.map(|entry| entry.path()).filter(|path| path.is_dir());
    directories.for_each(|directory| remove(&directory));
    let _ = fs::remove_dir(groups);
}

fn forbidden(reason: &str) -> Option<Machine> {
    skip_even_in_ci(&format!("the kernel lets us have no systemd of our own: {reason}"));
    None
}
