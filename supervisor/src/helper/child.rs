//! The process of a helper: it has a process group of its own, its standard streams lead to us, and it is ended with
//! all of its group before another is started. It gets SIGKILL when we die, however we do.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use bridge::{blocking, error_text};
use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, pipe2};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::{Receiver, Sender};
use tracing::warn;

use super::lines::Lines;
use crate::exit::{ExitStatus, Failure};
use crate::machine::open_files::OpenFiles;
use crate::machine::user::User;
use crate::processes::birth::{Birth, undo_ours};
use crate::processes::{Aside, ExitWatcher, Process};
use crate::program::readers::log_lines;

/// A helper that runs.
pub(super) struct Child {
    /// What the log calls it.
    pub(super) name: String,
    /// Its standard input.
    pub(super) questions: Sender,
    /// Its standard output.
    pub(super) answers: Receiver,
    /// Its end.
    pub(super) end: ExitWatcher,
    pid: Pid,
    aside: Aside,
}

/// What a helper is started with.
#[derive(Debug, Clone)]
pub(crate) struct Surroundings {
    pub(crate) open_files: OpenFiles,
    /// Where the helper is noted as a process that is none of the program's.
    pub(crate) aside: Aside,
    /// The user that we have become, if we have changed our user.
    pub(crate) user: Option<User>,
}

impl Child {
    /// Its name is looked up in PATH. What it writes to standard error is logged under `tag` and its process id.
    pub(super) fn start(
        command: &[OsString],
        tag: &str,
        surroundings: &Surroundings,
    ) -> Result<Self, Failure> {
        let (program, args) = command.split_first().expect("config/helper.rs lets none through");
        let failed = |error: io::Error| Failure {
            status: ExitStatus::FAILURE,
            reason: format!("cannot start helper {}: {}", program.display(), error_text(&error)),
        };
        let aside = surroundings.aside.clone();
        let start = || {
            let pipe = || pipe2(OFlag::O_CLOEXEC);
            let ((theirs, questions), (answers, output), (log, errors)) =
                (pipe()?, pipe()?, pipe()?);
            let questions = Sender::from_owned_fd(questions)?;
            let (answers, log) = (Receiver::from_owned_fd(answers)?, Receiver::from_owned_fd(log)?);
            let mut child = Command::new(program);
            child.args(args).process_group(0);
            let stdio = |end: OwnedFd| Stdio::from(end);
            child.stdin(stdio(theirs)).stdout(stdio(output)).stderr(stdio(errors));
            child.envs(surroundings.user.iter().flat_map(User::environment));
            undo_ours(&mut child, Birth::ordinary(surroundings.open_files, Signal::SIGKILL))?;
            let child = child.spawn()?;
            let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid fits pid_t"));
            aside.add(pid);
            Ok((pid, questions, answers, log))
        };
        let (pid, questions, answers, log) = start().map_err(failed)?;
        let tag = format!("{tag}[{pid}]");
        tokio::spawn(log_lines(log, tag.clone()));
        let end = ExitWatcher::of(&[Process::of_leader(pid)]);
        Ok(Self { name: format!("helper {tag}"), questions, answers, end, pid, aside })
    }

    /// Kills it, and all of its group.
    pub(super) async fn kill(self) {
        // Dropped on another thread, as the drop waits for the end of the process; here, where no thread can be started.
        let _ = blocking::run(move || drop(self)).await;
    }
}

/// Returns when the process has ended. The end of its output would not say so: a child of its own may still have the
/// pipe open.
pub(super) async fn ended(end: &mut ExitWatcher) {
    if !end.is_empty() {
        end.ended().await;
    }
}

/// Takes what a helper says next.
pub(super) async fn read(answers: &mut Receiver, lines: &mut Lines) -> Result<(), String> {
    match answers.read_buf(lines.space()).await {
        Ok(0) => Err("it has ended".into()),
        Ok(_) => Ok(()),
        Err(error) => Err(error_text(&error)),
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.aside.end(self.pid) {
            warn!(
                "cannot end {}: it does not end of SIGKILL, or has become another user",
                self.name
            );
        }
    }
}

/// A program as the log has it.
pub(super) fn file_name(program: &OsStr) -> String {
    let file = Path::new(program).file_name().unwrap_or(program);
    file.to_string_lossy().replace('\n', " ")
}
