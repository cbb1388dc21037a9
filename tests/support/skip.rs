//! Tests that skip. Says so where the test run collects it (`tests/run`): the harness shows nothing of
//! what a test that passes has printed. Included by path where a crate's own tests may skip.

use std::fs::OpenOptions;
use std::io::Write;

/// Says that the test that runs is skipped, in whole or in part; in continuous integration (`CI` is
/// set) that is a failure.
pub(crate) fn skip(reason: &str) {
    assert!(std::env::var_os("CI").is_none(), "must not be skipped here: {reason}");
    skip_even_in_ci(reason);
}

/// The same where a machine or its kernel may forbid it, whoever tests.
pub(crate) fn skip_even_in_ci(reason: &str) {
    let reason = reason.trim_end();
    eprintln!("skipped: {reason}");
    let Some(file) = std::env::var_os("WEBSOCKIFY_SKIPPED") else { return };
    let thread = std::thread::current();
    let line = format!("{}: {}\n", thread.name().unwrap_or("?"), reason.replace('\n', " "));
    let mut file = OpenOptions::new().append(true).create(true).open(file).unwrap();
    // In one piece: others append to it at the same time.
    file.write_all(line.as_bytes()).unwrap();
}
