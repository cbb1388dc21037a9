//! The parts that all end-to-end tests use. Knows how to start websockify, talk to it and look at its processes; must not
//! know how these should behave.

use std::path::{Path, PathBuf};
use std::process::Command;

mod actor;
mod blessed;
mod client;
mod control_group;
mod disk;
mod footprint;
mod frame;
mod lan;
mod network;
mod output;
mod process;
mod redis;
mod refuse;
mod skip;
mod thief;
mod tls;
mod tls_server;
mod tools;
mod wait;
mod websockify;

pub(crate) use actor::{Actor, compile, compile_library, musl_actor, static_actor};
pub(crate) use blessed::blessed;
pub(crate) use client::{
    Client, Head, UPGRADE, ask, connect, connect_unix, dial_from, read_to_end, request, try_ask,
    uninterrupted,
};
pub(crate) use control_group::MemoryLimit;
pub(crate) use disk::Disk;
pub(crate) use footprint::Footprint;
pub(crate) use frame::frame;
pub(crate) use lan::Lan;
pub(crate) use network::{
    Service, display, echo, echo_service, free_port, has_ipv6, is_refused, listeners_of, listening,
    read_frame, who_listens,
};
pub(crate) use output::Heard;
pub(crate) use process::Process;
pub(crate) use redis::Redis;
pub(crate) use refuse::{Refusal, refuse};
pub(crate) use skip::{skip, skip_even_in_ci};
pub(crate) use thief::{Loot, Thief};
pub(crate) use tls::{Authority, Caller, Dates, Identity, SERVERS, TlsConnection};
pub(crate) use tls_server::{TlsServer, send_close_notify};
pub(crate) use tools::Tools;
pub(crate) use wait::{DEADLINE, stays, wait_for, wait_for_within, wait_until};
pub(crate) use websockify::{
    OF_SYSTEMD, Output, WEBSOCKIFY, Websockify, engine, field, run, terminal,
};

/// The project's own directory, as it was cloned.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Whether these programs are installed. Where they are not, the test says that it is skipped; in
/// continuous integration (`CI` is set) that is a failure.
pub(crate) fn needs(programs: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let missing: Vec<_> = programs
        .iter()
        .copied()
        .filter(|name| {
            !std::env::split_paths(&path).any(|directory| directory.join(name).is_file())
        })
        .collect();
    if !missing.is_empty() {
        skip(&format!("not installed: {}", missing.join(" ")));
    }
    missing.is_empty()
}

/// Whether the tests run as root, because only root can change its user; skips the test if not.
pub(crate) fn needs_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        skip_even_in_ci("only root can do this");
    }
    root
}

/// A command that runs the command in its further arguments as the first process of a PID namespace, with a /proc of its own;
/// skips the test if there can be none.
pub(crate) fn in_pid_namespace() -> Option<Command> {
    let enter = ["--pid", "--fork", "--kill-child", "--mount-proc"];
    if !needs_root() || !needs(&["unshare"]) {
        return None;
    }
    if !Command::new("unshare").args(enter).arg("true").status().unwrap().success() {
        skip_even_in_ci("no PID namespace of our own here");
        return None;
    }
    let mut command = Command::new("unshare");
    command.args(enter);
    Some(command)
}

/// Whether a process can copy sockets of another one here (pidfd_getfd(2), Linux 5.6), as the engine `seccomp` does.
pub(crate) fn can_copy_sockets() -> bool {
    let ours = rustix::process::getpid();
    let process = rustix::process::pidfd_open(ours, rustix::process::PidfdFlags::empty());
    let none = rustix::process::PidfdGetfdFlags::empty();
    let copied = process.and_then(|process| rustix::process::pidfd_getfd(&process, 0, none));
    let refused = [rustix::io::Errno::NOSYS, rustix::io::Errno::PERM];
    !copied.is_err_and(|errno| refused.contains(&errno))
}

/// The same; skips the test if not.
pub(crate) fn needs_copied_sockets() -> bool {
    let can = can_copy_sockets();
    if !can {
        skip_even_in_ci("no pidfd_getfd(2) here");
    }
    can
}

/// Copies a program that is then to be run. Another process, `cp`, writes the copy: otherwise a child that another test
/// forks at that moment would inherit the file descriptor, and have the copy open for writing (`ETXTBSY`).
pub(crate) fn copy_program(from: impl AsRef<Path>, to: impl AsRef<Path>) {
    let status = Command::new("cp").arg(from.as_ref()).arg(to.as_ref()).status().unwrap();
    assert!(status.success());
}

/// Writes a script that is then to be run. Another process writes it, for the reason at [`copy_program`].
pub(crate) fn write_script(path: impl AsRef<Path>, text: &str) {
    let mut shell = Command::new("sh");
    shell.args(["-c", r#"printf %s "$1" >"$0" && chmod 755 "$0""#]).arg(path.as_ref()).arg(text);
    assert!(shell.status().unwrap().success());
}

/// What a command has written.
pub(crate) fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
