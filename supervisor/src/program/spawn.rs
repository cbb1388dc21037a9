//! Starts the program as if the caller of websockify had started it, but for the engine: what we
//! changed about ourselves is undone between fork and exec.
//!
//! Must be called on the main thread: the parent-death signal is sent when the *thread* that forked
//! ends (prctl(2), PR_SET_PDEATHSIG).

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::{AccessFlags, Pid, access};

use super::output::Output;
use crate::engine::Engine;
use crate::exit::{ExitStatus, Failure};
use crate::launcher::Launcher;
use crate::machine::executable;
use crate::machine::open_files::OpenFiles;
use crate::machine::search_path;
use crate::machine::terminal::Terminal;
use crate::machine::user::{User, Users};
use crate::processes::birth::{Birth, undo_ours};

/// What the program is started with besides its command line.
pub(crate) struct Preparation<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) open_files: OpenFiles,
    pub(crate) output: &'a Output,
    /// The terminal whose foreground group the program becomes.
    pub(crate) terminal: Option<Terminal>,
    pub(crate) users: &'a Users,
    /// The launcher, which starts the program where it is to have another user than we.
    pub(crate) launcher: Option<&'a Launcher>,
}

/// Forks and executes `command`; its name is looked up in `PATH` as execvp(3) does.
pub(crate) fn spawn(command: &[OsString], prepared: &Preparation<'_>) -> Result<Pid, Failure> {
    let (name, args) = command.split_first().expect("config.rs lets no empty command through");
    let mut child = Command::new(name);
    child.args(args).process_group(0);
    prepared.engine.prepare(&mut child);
    child.envs(prepared.users.of_program().into_iter().flat_map(User::environment));
    if let Some(stream) = prepared.output.journal_stream() {
        child.env("JOURNAL_STREAM", stream);
    }
    let started = match prepared.launcher {
        Some(launcher) => {
            launcher.start(&child, prepared.output.file(), prepared.terminal.is_some())
        }
        None => start(child, prepared),
    };
    started.map_err(|error| explain(name, &error))
}

fn start(mut child: Command, prepared: &Preparation<'_>) -> io::Result<Pid> {
    child.stdout(prepared.output.stdio()?).stderr(prepared.output.stdio()?);
    let birth = Birth {
        terminal: prepared.terminal,
        user: prepared.users.program_changes_to().cloned(),
        ..Birth::ordinary(prepared.open_files, Signal::SIGTERM)
    };
    undo_ours(&mut child, birth)?;
    let child = child.spawn()?;
    Ok(Pid::from_raw(i32::try_from(child.id()).expect("a pid fits pid_t")))
}

/// Whether there is such a program, as far as that can be seen without starting it.
pub(crate) fn look(command: &[OsString]) -> Result<(), Failure> {
    let name = command.first().expect("config.rs lets no empty command through");
    let path = std::env::var_os("PATH");
    let found = search_path::find(name, path.as_deref()).ok_or(Errno::ENOENT);
    let runs = found.and_then(|found| access(&found, AccessFlags::X_OK));
    runs.map_err(|errno| explain(name, &errno.into()))
}

/// exec(2) says ENOENT both for a missing program and for a missing interpreter.
fn explain(name: &OsStr, error: &io::Error) -> Failure {
    let path = std::env::var_os("PATH");
    if let Err(missing) = executable::find(name, path.as_deref()) {
        let reason = format!("program {} {missing}", name.display());
        return Failure { status: ExitStatus::NOT_EXECUTABLE, reason };
    }
    let (status, reason) = if is_missing(name, path.as_deref(), error) {
        (ExitStatus::NOT_FOUND, not_found(name, path.as_deref()))
    } else {
        (ExitStatus::NOT_EXECUTABLE, bridge::error_text(error))
    };
    Failure { status, reason: format!("cannot start program {}: {reason}", name.display()) }
}

fn not_found(name: &OsStr, path: Option<&OsStr>) -> String {
    match search_path::elsewhere(name, path) {
        Some(found) => format!("not found in PATH, but there is {}", found.display()),
        None => "not found".to_owned(),
    }
}

/// Whether the program is nowhere. A directory of `PATH` that may not be searched makes execvp(3) say
/// "permission denied" of what is in none; shells say "not found" then, as we do.
fn is_missing(name: &OsStr, path: Option<&OsStr>, error: &io::Error) -> bool {
    let is_in = |directory: PathBuf| directory.join(name).exists();
    match error.kind() {
        io::ErrorKind::NotFound => true,
        io::ErrorKind::PermissionDenied if !name.as_bytes().contains(&b'/') => {
            path.is_some_and(|path| !std::env::split_paths(path).any(is_in))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// W8: a program that is nowhere is 127, also where we may not look everywhere.
    #[test]
    fn w8_what_is_in_no_directory_of_path_is_not_found() {
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        let path = Some(OsStr::new("/nowhere:/bin"));
        assert!(is_missing("no-such-program".as_ref(), path, &denied));
        for (name, path) in [("sh", path), ("/nowhere/program", path), ("sh", None)] {
            assert!(!is_missing(name.as_ref(), path, &denied), "{name}");
        }
        let absent = io::Error::from(io::ErrorKind::NotFound);
        assert!(is_missing("/nowhere/program".as_ref(), path, &absent));
    }
}
