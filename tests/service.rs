//! websockify as a service: the daemon, its log and its pid file, journald, systemd.

mod background;
mod journal;
mod log;
mod syslog;
pub(crate) mod systemd;
mod terminal;
mod trust;

use std::fs;
use std::path::Path;

use crate::support::{Process, Websockify, wait_for};

/// The daemon that `-D` has started, which must be alive.
fn daemon(websockify: &Websockify) -> Process {
    wait_for("the daemon", || {
        websockify.remnants().into_iter().find(|process| process.name == "websockify")
    })
}

/// The lines of a log file that contain all of `parts`.
fn lines_with(file: &Path, parts: &[&str]) -> Vec<String> {
    let text = fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let has_all = |line: &&str| parts.iter().all(|part| line.contains(part));
    text.lines().filter(has_all).map(str::to_owned).collect()
}

/// Waits for a line of a log file that contains all of `parts`.
fn wait_for_line(file: &Path, parts: &[&str]) -> String {
    let what = format!("{parts:?} in {}", file.display());
    wait_for(&what, || lines_with(file, parts).into_iter().next())
}
