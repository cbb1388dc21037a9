//! The answer of a binary that is tried: whether it could take the place of the old one. Keeps nothing open.

use std::fs::File;
use std::io::{self, Write};
use std::mem::ManuallyDrop;
use std::os::fd::FromRawFd;

use bridge::error_text;
use nix::unistd::{alarm, dup2_stdin};

use super::arrival::is_own;
use super::state::State;
use super::trial::{TRIAL_TIMEOUT, good};
use super::{format, memory};
use crate::exit::{ExitStatus, Failure};
use crate::resources::Resources;

/// Answers, on standard output.
pub(crate) fn answer() -> ExitStatus {
    alarm::set(TRIAL_TIMEOUT);
    let (line, status) = match check() {
        Ok(()) => (good(), ExitStatus::SUCCESS),
        Err(failure) => (failure.reason, failure.status),
    };
    let _ = writeln!(io::stdout(), "{line}");
    status
}

/// Whether we could go on with the state on our standard input.
fn check() -> Result<(), Failure> {
    let failed = |reason: String| Failure { status: ExitStatus::FAILURE, reason };
    let none = || failed("there is nothing to try: this is for websockify's own use".into());
    let bytes = memory::read(&stdin()).ok().flatten().ok_or_else(none)?;
    // What the old binary may have read from /dev/stdin is gone. An option that names it must not read the state instead.
    let null = File::open("/dev/null").and_then(|null| Ok(dup2_stdin(null)?));
    null.map_err(|error| failed(error_text(&error)))?;
    let (state, _) = format::read::<State>(&bytes).map_err(|why| failed(why.to_string()))?;
    let config = state.config().map_err(failed)?;
    if !is_own() {
        return Err(failed("whoever executes it gets the rights of another user by that".into()));
    }
    Resources::look(&config, state.launch.stderr, &state.held)
}

#[allow(unsafe_code)]
fn stdin() -> ManuallyDrop<File> {
    // SAFETY: standard input is open, or /dev/null since main() began; it is not closed here.
    ManuallyDrop::new(unsafe { File::from_raw_fd(libc::STDIN_FILENO) })
}
