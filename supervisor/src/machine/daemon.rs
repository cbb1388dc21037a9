//! `-D`: goes into the background before there is a thread or a runtime, and keeps the caller's
//! command waiting until it can be told how that went. The only user of the `daemonize` crate.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{OwnedFd, RawFd};

use anyhow::{Context, Result, bail};
use daemonize::{Daemonize, Outcome};
use nix::fcntl::OFlag;
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::stat::{Mode, umask};

use crate::exit::{ExitStatus, Failure};

/// Which process we are after the fork.
pub(crate) enum Role {
    /// The caller's command, with the daemon's report: it is up, perhaps with a warning, or it has failed.
    Caller(Result<Option<String>, Failure>),
    /// The daemon, with the way to report.
    Daemon(Caller),
}

/// The caller's command, waiting for a report.
#[derive(Debug)]
pub(crate) struct Caller {
    pipe: Option<File>,
}

/// Closes what the caller had open besides the standard streams and the sockets after them that systemd has `passed`:
/// the daemon would hold a lock or a pipe of the caller's for as long as it lives (daemon(7)). To be called before
/// anything else opens a descriptor.
pub(crate) fn close_inherited(passed: usize) {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return };
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let ours = 3 + passed;
    // Collected first: the descriptor of this directory is among them, and is closed by then.
    let foreign: Vec<usize> = numbers.filter(|number| *number >= ours).collect();
    for number in foreign.into_iter().filter_map(|number| RawFd::try_from(number).ok()) {
        let _ = nix::unistd::close(number);
    }
}

/// Forks twice and starts a new session. Standard streams become /dev/null; the working directory
/// and the umask stay the caller's.
pub(crate) fn detach() -> Result<Role> {
    wait_for_children().context("cannot become a daemon")?;
    let (report, pipe) = nix::unistd::pipe2(OFlag::O_CLOEXEC).context("cannot open a pipe")?;
    let directory = std::env::current_dir().context("cannot find the working directory")?;
    let daemonize = Daemonize::new().working_directory(directory).umask(current_umask().bits());
    match daemonize.execute() {
        // `daemonize` says Ok even where the daemon failed; only the report counts.
        Outcome::Parent(Ok(_)) => {
            drop(pipe);
            Ok(Role::Caller(await_report(report)))
        }
        Outcome::Child(Ok(_)) => Ok(Role::Daemon(Caller { pipe: Some(pipe.into()) })),
        Outcome::Child(Err(error)) => {
            let failure = Failure {
                status: ExitStatus::FAILURE,
                reason: format!("cannot become a daemon: {}", daemonize_error_text(&error)),
            };
            Caller { pipe: Some(pipe.into()) }.failed(&failure);
            Ok(Role::Caller(Err(failure)))
        }
        Outcome::Parent(Err(error)) => {
            bail!("cannot become a daemon: {}", daemonize_error_text(&error))
        }
    }
}

impl Caller {
    /// No caller waits: we were not started with `-D`, or go on after a hand-over.
    pub(crate) fn none() -> Self {
        Self { pipe: None }
    }

    pub(crate) fn is_waiting(&self) -> bool {
        self.pipe.is_some()
    }

    /// Lets the caller's command end with success, and print the warning, if there is one. Only the first report
    /// counts.
    pub(crate) fn up(&mut self, warning: Option<&str>) {
        if let Some(mut pipe) = self.pipe.take() {
            let mut report = vec![0];
            report.extend(warning.unwrap_or_default().as_bytes());
            // A caller that was interrupted no longer reads.
            let _ = pipe.write_all(&report);
        }
    }

    /// Lets the caller's command end with this failure. False: no caller waits.
    pub(crate) fn failed(&mut self, failure: &Failure) -> bool {
        let Some(mut pipe) = self.pipe.take() else { return false };
        let mut report = vec![failure.status.code()];
        report.extend(failure.reason.as_bytes());
        let is_told = pipe.write_all(&report).is_ok();
        // The pipe stays open for as long as we live: the caller's command ends after us, and finds nothing of us left,
        // no process and no pid file.
        std::mem::forget(pipe);
        is_told
    }
}

/// Waits for the daemon's report. A daemon that ends without one has crashed.
fn await_report(pipe: OwnedFd) -> Result<Option<String>, Failure> {
    let mut report = Vec::new();
    let read = File::from(pipe).read_to_end(&mut report);
    let text = |said: &[u8]| String::from_utf8_lossy(said).into_owned();
    match (read, report.split_first()) {
        (Ok(_), Some((0, []))) => Ok(None),
        (Ok(_), Some((0, warning))) => Ok(Some(text(warning))),
        (Ok(_), Some((status, reason))) => {
            Err(Failure { status: ExitStatus::from(*status), reason: text(reason) })
        }
        _ => Err(Failure {
            status: ExitStatus::FAILURE,
            reason: "the daemon ended before it was up".into(),
        }),
    }
}

/// The crate's text, which ends with a bare errno, with that errno's text in its place. The crate has no public way to
/// the errno itself.
fn daemonize_error_text(error: &daemonize::Error) -> String {
    let text = error.to_string();
    match text.split_once(", errno ").map(|(deed, errno)| (deed, errno.parse())) {
        Some((deed, Ok(errno))) => {
            format!("{deed}: {}", bridge::error_text(&io::Error::from_raw_os_error(errno)))
        }
        _ => text,
    }
}

/// A caller that ignores SIGCHLD has left it ignored (exec(2)): then no child can be waited for, and `daemonize` takes that for
/// a failure of the daemon (wait(2)).
#[allow(unsafe_code)]
fn wait_for_children() -> nix::Result<SigHandler> {
    // SAFETY: the default action takes the place of no handler of ours.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) }
}

/// umask(2) can only be read by setting it.
fn current_umask() -> Mode {
    let mask = umask(Mode::empty());
    umask(mask);
    mask
}
