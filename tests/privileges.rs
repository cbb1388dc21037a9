//! A websockify that root starts and that runs as another user (W16): which rights its threads and its program still
//! have, and what still works. All of this needs root; where the tests do not run as root, each says that it is
//! skipped.

mod apart;
mod files;
mod groups;
mod hand_over;
mod hidden;
mod kept;
mod ours;
mod program;
mod refused;

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

use tempfile::TempDir;

use crate::support::{Actor, Client, Process, Websockify, copy_program, engine, wait_until};

/// The users of the tests: each Debian has them, with groups of the same number.
const NOBODY: u32 = 65534;
const WWW_DATA: u32 = 33;

/// What proc(5) says of the rights of a thread.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rights(BTreeMap<String, String>);

impl Rights {
    fn of(status: &Path) -> Self {
        Self::in_text(&fs::read_to_string(status).unwrap())
    }

    fn in_text(text: &str) -> Self {
        let words = |value: &str| value.split_whitespace().collect::<Vec<_>>().join(" ");
        let lines = text.lines().filter_map(|line| line.split_once(':'));
        Self(lines.map(|(name, value)| (name.to_owned(), words(value))).collect())
    }

    fn is(&self, name: &str) -> &str {
        &self.0[name]
    }

    /// Asserts that no right is left but this user's.
    fn assert_of(&self, user: u32, groups: &str) {
        let ids = [user; 4].map(|id| id.to_string()).join(" ");
        assert_eq!((self.is("Uid"), self.is("Gid")), (&*ids, &*ids), "{self:?}");
        assert_eq!(self.is("Groups"), groups, "{self:?}");
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(self.is(set), "0000000000000000", "{set}");
        }
    }

    /// Asserts that the thread can gain no more rights.
    fn assert_sealed(&self) {
        assert_eq!((self.is("CapBnd"), self.is("NoNewPrivs")), ("0000000000000000", "1"));
    }

    /// Asserts that a setuid program would still gain its rights.
    fn assert_open(&self) {
        assert_eq!(self.is("CapBnd"), ours().is("CapBnd"));
        assert_eq!(self.is("NoNewPrivs"), "0");
    }
}

/// The rights of the test run itself.
fn ours() -> Rights {
    Rights::of(Path::new("/proc/self/status"))
}

fn rights(process: &Process) -> Rights {
    Rights::of(Path::new(&format!("/proc/{}/status", process.pid)))
}

/// The rights of each thread of websockify, but of a thread that ends meanwhile.
fn of_threads(pid: i32) -> Vec<Rights> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let status = |thread: fs::DirEntry| fs::read_to_string(thread.path().join("status")).ok();
    threads.filter_map(|thread| Some(Rights::in_text(&status(thread.unwrap())?))).collect()
}

/// A directory that everybody can look into, and what is in it.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(TempDir::new().unwrap());
        place.open_to(0, 0o755);
        place
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The path as text, for a command line.
    fn named(&self, name: &str) -> String {
        self.at(name).to_str().unwrap().to_owned()
    }

    /// Gives the directory itself to a user, with this mode.
    fn open_to(&self, user: u32, mode: u32) {
        chown(self.0.path(), Some(user), Some(user)).unwrap();
        fs::set_permissions(self.0.path(), Permissions::from_mode(mode)).unwrap();
    }

    /// A directory of this user's.
    fn directory_of(&self, user: u32, name: &str, mode: u32) -> PathBuf {
        let path = self.at(name);
        fs::create_dir(&path).unwrap();
        chown(&path, Some(user), Some(user)).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    }

    /// A copy of the actor that every user can execute; the built one may lie in a directory that others may not
    /// enter.
    fn actor(&self) -> String {
        let path = self.named("actor");
        copy_program(Actor, &path);
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        path
    }
}

/// A port below 1024 that is free.
fn low_port() -> u16 {
    // Other tests look for one at the same time, in this process and in others.
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = u16::try_from(std::process::id() % 200).unwrap();
    let mut ports = std::iter::repeat_with(|| 600 + (first + NEXT.fetch_add(1, Relaxed)) % 424);
    ports.find(|port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port)).is_ok()).unwrap()
}

/// A session with the actor.
fn greeted(port: u16) {
    let mut client = Client::connect_once_open(port);
    client.read_line();
    client.send("hello");
    assert_eq!(client.read(5), b"hello");
    client.close();
}

/// The engines to test with: the one of this run, or both.
fn engines() -> Vec<String> {
    engine().map_or_else(|| vec!["preload".into(), "seccomp".into()], |engine| vec![engine])
}

/// Ends it by SIGTERM, with all that it has started.
fn assert_stops(mut websockify: Websockify) {
    assert_eq!(websockify.stop(), 0);
    wait_until("the end of all", || websockify.remnants().is_empty());
}
