//! Encrypted clients, and clients that must show who they are (T1–T6, U6, C9), and targets that speak TLS (U5).

mod auth;
mod clients;
mod deadline;
mod files;
mod offer;
mod port;
mod reload;
mod secrets;
mod target;

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use crate::support::{Identity, SERVERS, Service, Websockify, free_port};

/// A directory with a `self.pem` that all callers trust.
fn directory() -> (TempDir, Identity) {
    let directory = TempDir::new().unwrap();
    let identity = SERVERS.issue("localhost");
    write(&directory, "self.pem", &identity.pem());
    (directory, identity)
}

fn write(directory: impl AsRef<Path>, name: &str, text: &str) {
    fs::write(directory.as_ref().join(name), text).unwrap();
}

/// A websockify in this directory that bridges to `service` and is open, and its port.
fn bridge_in(directory: &TempDir, service: &Service, options: &[&str]) -> (Websockify, u16) {
    let port = free_port();
    let websockify = Websockify::start_with("", |command| {
        command.current_dir(directory).args([port.to_string(), service.target()]).args(options);
    });
    websockify.wait_until_open();
    (websockify, port)
}
