//! The hand-over (O2): on SIGUSR2 the new binary takes over in the running process, by exec. Each test has its own
//! copy of the binary, which it may replace.

mod asked;
mod back;
mod load;
mod place;
mod refused;
mod rest;
mod wrapped;

pub(crate) use back::FAULT;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::support::{
    Client, Service, WEBSOCKIFY, Websockify, copy_program, echo_service, free_port, wait_until,
};

/// A websockify with an echo service as its target, that runs from its own copy of the binary.
struct Bridge {
    websockify: Websockify,
    port: u16,
    directory: TempDir,
    _service: Service,
}

impl Bridge {
    fn start(options: &str) -> Self {
        Self::start_with(options, |_| {})
    }

    fn start_with(options: &str, prepare: impl FnOnce(&mut Command)) -> Self {
        let (service, port, directory) = (echo_service(), free_port(), TempDir::new().unwrap());
        copy_program(WEBSOCKIFY, directory.path().join("websockify"));
        let mut command = Command::new(directory.path().join("websockify"));
        let words = format!("{port} {} {options}", service.target());
        command.args(words.split_whitespace());
        command.current_dir(directory.path());
        prepare(&mut command);
        let websockify = Websockify::launch(&mut command);
        websockify.wait_until_open();
        Self { websockify, port, directory, _service: service }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn binary(&self) -> PathBuf {
        self.path("websockify")
    }

    /// Puts another file in the binary's place, as an upgrade does.
    fn replace(&self, make: impl FnOnce(&Path)) {
        let new = self.path("websockify.new");
        make(&new);
        fs::rename(new, self.binary()).unwrap();
    }

    fn ask(&self) {
        self.websockify.signal(Signal::SIGUSR2);
    }

    /// Has the new binary take over, for the nth time in this test.
    fn hand_over(&self, nth: usize) {
        self.ask();
        wait_until("another image", || self.websockify.logged(&["INFO taken over: "]).len() == nth);
    }

    fn assert_serves(&self) {
        let mut client = Client::connect(self.port);
        client.send("hello");
        assert_eq!(client.read(5), b"hello");
        assert_eq!(client.close().code, 1000);
    }

    /// The command line that `ps` shows.
    fn command_line(&self) -> Vec<u8> {
        fs::read(format!("/proc/{}/cmdline", self.websockify.pid())).unwrap()
    }

    fn executed(&self) -> PathBuf {
        fs::read_link(format!("/proc/{}/exe", self.websockify.pid())).unwrap()
    }

    fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.websockify.pid())).unwrap().count()
    }
}

fn write(path: &Path, bytes: &[u8], mode: u32) {
    // Another process writes the file: where this one did, a process that another test is just starting could have it
    // open for writing (ETXTBSY).
    let source = path.with_extension("source");
    fs::write(&source, bytes).unwrap();
    copy_program(&source, path);
    fs::remove_file(source).unwrap();
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}
