//! What a process tree costs: CPU time, ended children included, and memory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Where a control group may be made; cpu.stat is there in every one of version 2, with or without
/// its cpu controller.
const HIERARCHIES: [(&str, &str); 3] = [
    ("/sys/fs/cgroup", "cpu.stat"),
    ("/sys/fs/cgroup/unified", "cpu.stat"),
    ("/sys/fs/cgroup/cpuacct", "cpuacct.usage"),
];

/// How long a process may take to end on SIGTERM.
const GRACE: Duration = Duration::from_secs(5);

/// A process tree that is measured, and ends with its owner.
pub(crate) struct Tree {
    leader: Child,
    /// `None` where no control group can be made. CPU time is then as exact as the clock of proc(5): 10 ms.
    group: Option<Group>,
}

struct Group {
    directory: PathBuf,
    usage: PathBuf,
}

impl Tree {
    /// Starts `command` on this CPU and in a control group of its own.
    pub(crate) fn start(command: &Command, cpu: usize) -> Result<Self> {
        let group = Group::create();
        let mut wrapped = Command::new("sh");
        let script = match &group {
            Some(_) => r#"echo $$ >"$1" && shift && exec "$@""#,
            None => r#"shift && exec "$@""#,
        };
        let procs = group.as_ref().map(|group| group.directory.join("cgroup.procs"));
        wrapped.args(["-c", script, "sh"]).arg(procs.unwrap_or_default());
        wrapped.args(["taskset", "-c", &cpu.to_string()]);
        wrapped.arg(command.get_program()).args(command.get_args());
        let output = fs::File::create("/dev/null")?;
        let leader = wrapped.stdout(output.try_clone()?).stderr(output).spawn();
        let leader = leader.with_context(|| format!("cannot start {command:?}"))?;
        Ok(Self { leader, group })
    }

    /// Whether the first process has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.leader.try_wait(), Ok(None))
    }

    /// CPU time so far, user and system.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        match &self.group {
            Some(group) => group.cpu(),
            None => self.pids().into_iter().map(cpu_of_process).sum(),
        }
    }

    /// Proportional set size, bytes.
    pub(crate) fn memory(&self) -> Result<u64> {
        let mut total = 0;
        for pid in self.pids() {
            let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
            let pss = text.lines().find_map(|line| line.strip_prefix("Pss:"));
            let kilobytes = pss.and_then(|pss| pss.split_whitespace().next());
            total += 1024 * kilobytes.context("no Pss in smaps_rollup")?.parse::<u64>()?;
        }
        Ok(total)
    }

    /// All processes of the tree.
    fn pids(&self) -> Vec<u32> {
        match &self.group {
            Some(group) => group.pids(),
            None => descendants(self.leader.id()),
        }
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let began = Instant::now();
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            // Its process id may be another process's by now.
            if self.group.is_none() && self.has_ended() {
                break;
            }
            for pid in self.pids() {
                let _ = kill(Pid::from_raw(i32::try_from(pid).unwrap_or(i32::MAX)), signal);
            }
            while began.elapsed() < GRACE {
                let leader_ended = self.has_ended();
                if leader_ended && (self.group.is_none() || self.pids().is_empty()) {
                    break;
                }
                sleep(Duration::from_millis(5));
            }
        }
        let _ = self.leader.wait();
        if let Some(group) = &self.group {
            let _ = fs::remove_dir(&group.directory);
        }
    }
}

impl Group {
    fn create() -> Option<Self> {
        static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("websockify-bench-{}-{number}", std::process::id());
        HIERARCHIES.iter().find_map(|(root, usage)| {
            let directory = Path::new(root).join(&name);
            fs::create_dir(&directory).ok()?;
            let usage = directory.join(usage);
            if usage.exists() {
                return Some(Self { directory, usage });
            }
            let _ = fs::remove_dir(&directory);
            None
        })
    }

    fn cpu(&self) -> Result<Duration> {
        let text = fs::read_to_string(&self.usage)?;
        let microseconds = text.lines().find_map(|line| line.strip_prefix("usage_usec "));
        Ok(match microseconds {
            Some(microseconds) => Duration::from_micros(microseconds.parse()?),
            None => Duration::from_nanos(text.trim().parse()?),
        })
    }

    fn pids(&self) -> Vec<u32> {
        let text = fs::read_to_string(self.directory.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|pid| pid.parse().ok()).collect()
    }
}

/// A process and all its descendants.
fn descendants(pid: u32) -> Vec<u32> {
    let mut all = vec![pid];
    let mut next = 0;
    while let Some(pid) = all.get(next).copied() {
        next += 1;
        let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { continue };
        for thread in threads.flatten() {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            all.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
    }
    all
}

/// User and system time of a process and of its children that it has waited for: fields 14 to 17
/// of /proc/PID/stat, in hundredths of a second (proc(5)).
fn cpu_of_process(pid: u32) -> Result<Duration> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let Some((_, fields)) = text.rsplit_once(") ") else { bail!("no fields in /proc/{pid}/stat") };
    let ticks: u64 = fields.split(' ').skip(11).take(4).flat_map(str::parse::<u64>).sum();
    Ok(Duration::from_millis(10 * ticks))
}
