//! Which processor does what, over what network.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, CpuSet, sched_getaffinity, sched_setaffinity, unshare};
use nix::unistd::Pid;

/// An arrangement of proxy and load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub(crate) enum Placement {
    /// The proxy on one core, the load on another.
    TwoCores,
    /// Both on the same core.
    OneCore,
    /// As [`TwoCores`](Self::TwoCores), with packets as large as Ethernet's.
    Mtu1500,
}

impl Placement {
    pub(crate) const ALL: [Self; 3] = [Self::TwoCores, Self::OneCore, Self::Mtu1500];

    /// Its name in the tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::TwoCores => "proxy and load on a core each",
            Self::OneCore => "proxy and load on one core",
            Self::Mtu1500 => "a core each, loopback MTU 1500",
        }
    }

    /// Puts this thread, and all threads that it will start, where the load belongs, and returns
    /// the proxy's core.
    pub(crate) fn take(self, cores: &Cores) -> Result<usize> {
        let load = if self == Self::OneCore { cores.proxy } else { cores.load };
        let mut set = CpuSet::new();
        set.set(load)?;
        sched_setaffinity(Pid::from_raw(0), &set).context("cannot choose a core")?;
        if self == Self::Mtu1500 {
            ip(&["link", "set", "lo", "mtu", "1500"])?;
        }
        Ok(cores.proxy)
    }
}

/// Gives this process, and all that it will start, a loopback network of its own, with more ports
/// than usual: with ten thousand sessions open, connect(2) takes long to find one of the usual.
pub(crate) fn own_network() -> Result<()> {
    // Without ip(8) the new network could not be used, and there would be no way back.
    ip(&["-V"])?;
    unshare(CloneFlags::CLONE_NEWNET).context("cannot make a network namespace")?;
    ip(&["link", "set", "lo", "up"])?;
    fs::write("/proc/sys/net/ipv4/ip_local_port_range", "2000 65000")
        .context("cannot widen the range of ports")
}

fn ip(args: &[&str]) -> Result<()> {
    let status = Command::new("ip").args(args).status().context("cannot run ip(8)")?;
    ensure!(status.success(), "ip(8) has failed");
    Ok(())
}

/// The cores that are used.
#[derive(Debug)]
pub(crate) struct Cores {
    proxy: usize,
    load: usize,
    /// How many cores this process may use.
    pub(crate) count: usize,
}

impl Cores {
    /// The cores that this process may use; to be asked before any thread is placed.
    pub(crate) fn find() -> Result<Self> {
        let set = sched_getaffinity(Pid::from_raw(0)).context("cannot ask for our cores")?;
        let cores = (0..CpuSet::count()).filter(|core| set.is_set(*core).unwrap_or(false));
        let cores: Vec<_> = cores.collect();
        let proxy = *cores.first().context("no core for us")?;
        Ok(Self { proxy, load: *cores.get(1).unwrap_or(&proxy), count: cores.len() })
    }
}
