//! Reports of skipped tests. They are written to a file that the test run shows (`tests/run`), because the harness shows no
//! output of a test that passes. The unit tests, and those of the crate `bridge`, include this file by path.

use std::fs::OpenOptions;
use std::io::Write;

/// Says that the test that runs is skipped, in whole or in part; in continuous integration (`CI` is
/// set) that is a failure.
pub(crate) fn skip(reason: &str) {
    assert!(std::env::var_os("CI").is_none(), "must not be skipped here: {reason}");
    skip_even_in_ci(reason);
}

/// The same, but no failure in continuous integration: for what a machine or its kernel may forbid.
pub(crate) fn skip_even_in_ci(reason: &str) {
    let reason = reason.trim_end();
    eprintln!("skipped: {reason}");
    let Some(file) = std::env::var_os("WEBSOCKIFY_SKIPPED") else { return };
    let thread = std::thread::current();
    let line = format!("{}: {}\n", thread.name().unwrap_or("?"), reason.replace('\n', " "));
    let mut file = OpenOptions::new().append(true).create(true).open(file).unwrap();
    // In one write: other processes append to the file at the same time.
    file.write_all(line.as_bytes()).unwrap();
}
