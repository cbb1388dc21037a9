//! Plugins: helpers that decide who gets a session, and Python classes (U8, U9).

mod auth;
mod python;
mod wrapped;

use std::path::Path;

use tempfile::TempDir;

/// A websockify in `directory` that is open, and its port; `target` and options as on a command line.
fn bridge_to(
    target: &str,
    directory: &TempDir,
    options: &[&str],
) -> (crate::support::Websockify, u16) {
    let all: Vec<_> = std::iter::once(target).chain(options.iter().copied()).collect();
    crate::tokens::bridge(directory, &all)
}

fn write(directory: &TempDir, name: impl AsRef<Path>, text: &str) {
    let path = directory.path().join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}
