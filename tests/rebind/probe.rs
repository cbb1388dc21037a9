//! The C program `probe.c`, what stands in for the supervisor around it, and the
//! compilers that build it.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;
use std::{env, fs, process};

use nix::unistd::Uid;
use socket2::{Domain, Socket, Type};

use super::names;
use crate::support::{DEADLINE, skip, uninterrupted};

pub(super) const REBIND: &str = concat!(env!("OUT_DIR"), "/rebind.so");
pub(super) const TOKEN: &str = "0123456789abcdef";
const PROBE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/rebind/probe.c");

/// The ports as a supervisor holds them: the public one so that nobody can take
/// it, the relocated one so that only a socket of the same user with `SO_REUSEPORT` can.
pub(super) struct HeldPorts {
    pub(super) old: u16,
    pub(super) new: u16,
    held: Vec<Socket>,
}

impl HeldPorts {
    /// The same, but the relocated port is for the user that the probe's `daemon` becomes, if the tests run as root.
    pub(super) fn of_nobody() -> HeldPorts {
        let ports = HeldPorts::new();
        if nix::unistd::geteuid().is_root() {
            for socket in &ports.held {
                nix::unistd::fchown(socket, Some(Uid::from_raw(65534)), None).unwrap();
            }
        }
        ports
    }

    pub(super) fn new() -> HeldPorts {
        let (new, mut held) = hold();
        for socket in &held {
            socket.set_reuse_port(true).unwrap();
        }
        let (old, public) = hold();
        held.extend(public);
        HeldPorts { old, new, held }
    }
}

/// Binds every address of one port, without listening.
fn hold() -> (u16, Vec<Socket>) {
    let bound = |address: SocketAddr| -> std::io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.bind(&address.into())?;
        Ok(socket)
    };
    // A port that is free in IPv4 may be taken in IPv6.
    for _ in 0..100 {
        let first = bound((Ipv4Addr::UNSPECIFIED, 0).into()).expect("a free port");
        let port = first.local_addr().unwrap().as_socket().unwrap().port();
        match bound((Ipv6Addr::UNSPECIFIED, port).into()) {
            Ok(second) => return (port, vec![first, second]),
            Err(error) if error.kind() == ErrorKind::AddrInUse => {}
            // Where there is no IPv6, the port of IPv4 alone, as in the supervisor.
            Err(_) => return (port, vec![first]),
        }
    }
    panic!("no port is free in both families");
}

/// The socket that receives the notices of `rebind.so`, as the supervisor's does.
pub(super) struct Supervisor {
    pub(super) name: String,
    pub(super) address: std::os::unix::net::SocketAddr,
    socket: UnixDatagram,
}

impl Supervisor {
    pub(super) fn new(test: &str) -> Supervisor {
        let name = format!("websockify-test-{}-{test}", process::id());
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        Supervisor { name, address, socket }
    }

    pub(super) fn told_by(&self, command: &mut Command) {
        command.env(names::NOTIFY, &self.name).env(names::TOKEN, TOKEN);
    }

    /// The next notice, if one has arrived.
    pub(super) fn notice(&self) -> Option<String> {
        self.socket.set_nonblocking(true).unwrap();
        match self.receive() {
            Ok(notice) => Some(notice),
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// Waits for the next notice.
    pub(super) fn wait_for_notice(&self) -> String {
        self.socket.set_nonblocking(false).unwrap();
        self.socket.set_read_timeout(Some(DEADLINE)).unwrap();
        uninterrupted(|| self.receive()).expect("a notice in time")
    }

    fn receive(&self) -> std::io::Result<String> {
        let mut buffer = [0; 256];
        let length = self.socket.recv(&mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
    }
}

/// One run of the probe.
pub(super) struct Probe(pub(super) Command);

impl Probe {
    pub(super) fn new(program: &Path) -> Probe {
        let mut command = Command::new(program);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Probe(command)
    }

    pub(super) fn arguments(mut self, script: &str) -> Probe {
        self.0.args(script.split_whitespace());
        self
    }

    /// Runs the probe, and returns its process id and its output. It ends itself
    /// after 20 s.
    #[expect(clippy::disallowed_methods, reason = "tests have no reaper")]
    pub(super) fn finish(mut self) -> (u32, Output) {
        let child = self.0.spawn().unwrap();
        (child.id(), child.wait_with_output().unwrap())
    }

    /// What it prints; it must succeed, and write nothing to standard error.
    pub(super) fn script(self, script: &str) -> String {
        let (_, output) = self.arguments(script).finish();
        let complaints = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && complaints.is_empty(), "{script}: {complaints}");
        String::from_utf8(output.stdout).unwrap()
    }
}

pub(super) fn preloaded(program: &Path, ports: &HeldPorts) -> Probe {
    let mut probe = Probe::new(program);
    probe
        .0
        .env("LD_PRELOAD", REBIND)
        .env(names::OLD_PORT, ports.old.to_string())
        .env(names::NEW_PORT, ports.new.to_string());
    probe
}

/// The probe, built by each compiler that is installed.
pub(super) fn probes() -> &'static [PathBuf] {
    static PROBES: LazyLock<Vec<PathBuf>> = LazyLock::new(|| {
        let build = |cc| {
            let name = format!("probe-{cc}");
            Some(compile(compiler(cc)?, &name, &["-pthread".as_ref(), PROBE.as_ref()]))
        };
        ["gcc", "musl-gcc"].into_iter().filter_map(build).collect()
    });
    &PROBES
}

/// The compiler, unless it is not installed; in CI it must be.
pub(super) fn compiler(name: &'static str) -> Option<&'static str> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).any(|directory| directory.join(name).is_file());
    if !found {
        skip(&format!("not installed: {name}"));
    }
    found.then_some(name)
}

#[expect(clippy::disallowed_methods, reason = "tests have no reaper")]
pub(super) fn compile(compiler: &str, name: &str, arguments: &[&OsStr]) -> PathBuf {
    // Renamed into its place when it is complete: another test run may build it at the same time.
    let unfinished = scratch(&format!("{name}-{}", process::id()));
    let mut command = Command::new(compiler);
    let status = command.arg("-Wall").args(arguments).arg("-o").arg(&unfinished).status().unwrap();
    assert!(status.success(), "{command:?}");
    let program = scratch(name);
    fs::rename(unfinished, &program).unwrap();
    program
}

/// The path of a file of these tests, the same in each test run.
pub(super) fn scratch(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("rebind");
    fs::create_dir_all(&directory).unwrap();
    directory.join(name)
}
