//! Two machines and a cable between them: network namespaces, for what loopback cannot show.

use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::panic::resume_unwind;
use std::process::Command;
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};

use super::{needs, needs_root, skip_even_in_ci, text_of};

/// The two machines. The kernel removes a network namespace when no process, socket or file descriptor uses it.
pub(crate) struct Lan {
    pub(crate) here: Machine,
    pub(crate) there: Machine,
}

/// A network stack.
pub(crate) struct Machine(File);

impl Lan {
    pub(crate) const HERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    pub(crate) const THERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

    /// `None` where it cannot be made; the test is then reported as skipped. This is no failure in continuous integration
    /// if the kernel or a container forbids it.
    pub(crate) fn new() -> Option<Self> {
        if !needs_root() || !needs(&["ip"]) {
            return None;
        }
        let built = Self::build();
        if let Err(reason) = &built {
            skip_even_in_ci(&format!("no network of our own here: {reason}"));
        }
        built.ok()
    }

    fn build() -> Result<Self, String> {
        let machine = || Machine::new().map_err(|error| error.to_string());
        let (here, there) = (machine()?, machine()?);
        let other = format!("/proc/{}/fd/{}", std::process::id(), there.0.as_raw_fd());
        here.ip(&format!(
            "link add cable address 02:00:00:00:00:01 type veth \
             peer name cable address 02:00:00:00:00:02 netns {other}"
        ))?;
        for (machine, address) in [(&here, Self::HERE), (&there, Self::THERE)] {
            machine.ip("link set lo up")?;
            machine.ip(&format!("address add {address}/24 dev cable"))?;
            machine.ip("link set cable up")?;
        }
        // With a permanent entry no ARP request is sent. An unanswered one would make the kernel report an error (EHOSTUNREACH).
        let known = format!("neighbour replace {} lladdr 02:00:00:00:00:02", Self::THERE);
        here.ip(&format!("{known} dev cable nud permanent"))?;
        Ok(Self { here, there })
    }

    /// From now on, packets to that machine are lost, and no error comes back.
    pub(crate) fn swallow(&self) {
        self.there.ip("address flush dev cable").unwrap();
    }
}

impl Machine {
    fn new() -> io::Result<Self> {
        let made = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            File::open("/proc/thread-self/ns/net")
        });
        made.join().unwrap_or_else(|panic| resume_unwind(panic)).map(Self)
    }

    /// Does something on this machine. What it starts and opens stays there.
    pub(crate) fn run<T: Send>(&self, deed: impl FnOnce() -> T + Send) -> T {
        let enter_and_do = || {
            setns(&self.0, CloneFlags::CLONE_NEWNET).unwrap();
            deed()
        };
        let done = thread::scope(|scope| scope.spawn(enter_and_do).join());
        done.unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Changes a setting, as sysctl(8) does.
    pub(crate) fn set(&self, name: &str, value: u32) {
        let path = format!("/proc/sys/{name}");
        self.run(|| fs::write(path, value.to_string())).unwrap();
    }

    /// From now on, every reset (RST) of a TCP connection over IPv4 is lost on this machine's loopback, as from a full packet
    /// queue. Where that cannot be done, it is `false`, and the test is reported as skipped.
    pub(crate) fn lose_resets(&self) -> bool {
        // Drops a packet (TC_ACT_SHOT) if it is IPv4 (halfword 12), TCP (byte 23) and RST (byte 47).
        const PROGRAM: &str =
            "8,40 0 0 12,21 0 5 2048,48 0 0 23,21 0 3 6,48 0 0 47,69 0 1 4,6 0 0 2,6 0 0 0";
        let tc = |arguments: &[&str]| {
            let output = self.run(|| Command::new("tc").args(arguments).output());
            output.is_ok_and(|output| output.status.success())
        };
        let filter = ["filter", "add", "dev", "lo", "egress", "bpf", "da", "bytecode", PROGRAM];
        let done = tc(&["qdisc", "add", "dev", "lo", "clsact"]) && tc(&filter);
        if !done {
            skip_even_in_ci("tc(8) cannot have resets lost here");
        }
        done
    }

    /// Runs ip(8); gives what it says if that fails.
    fn ip(&self, arguments: &str) -> Result<(), String> {
        let mut ip = Command::new("ip");
        let output = self.run(|| ip.args(arguments.split_whitespace()).output()).unwrap();
        let failed = || format!("ip {arguments}: {}", text_of(&output.stderr));
        output.status.success().then_some(()).ok_or_else(failed)
    }
}
