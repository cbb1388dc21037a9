//! The trial of a new binary before it takes our place: it is started as a child, with all of the state that is known
//! by then, and says whether it could go on with that. Our sessions go on meanwhile. Must not know how the child finds
//! its [answer](super::answer).

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, pipe2};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use super::format::FORMAT;
use super::image::{BACK, ExecArgs, VARIABLE, environment};
use crate::exit::End;
use crate::machine::open_files::OpenFiles;
use crate::processes::birth::{Birth, SYSTEMD, undo_ours};
use crate::processes::{Aside, ExitWatcher, Process};

/// The only argument of a binary that is tried; a program that does not know it refuses it.
const ARGUMENT: &str = "--hand-over-trial";

/// How long the child may take, seconds. It sets an alarm for that itself; we end it a little later if it still runs.
pub(super) const TRIAL_TIMEOUT: u32 = 5;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(6);

/// How much of the child's answer is read, bytes.
const ANSWER_MAX: u64 = 4096;

/// A trial under way. If this is dropped, the trial goes on, and nobody hears what came of it.
#[derive(Debug)]
pub(super) struct Trial {
    verdict: JoinHandle<Result<(), String>>,
    program: OwnedFd,
}

impl Trial {
    /// Begins. To be called on the main thread, as the child is to die with us (PR_SET_PDEATHSIG).
    ///
    /// # Errors
    ///
    /// Why no trial can begin.
    pub(super) fn begin(
        program: OwnedFd,
        state: File,
        open_files: OpenFiles,
        aside: &Aside,
    ) -> io::Result<Self> {
        let (answer, said) = pipe2(OFlag::O_CLOEXEC)?;
        let answer = Receiver::from_owned_fd(answer)?;
        let name = std::env::args_os().next().unwrap_or_else(|| "websockify".into());
        let mut without = SYSTEMD.to_vec();
        without.extend([VARIABLE, BACK]);
        let image = ExecArgs::new([name, ARGUMENT.into()], environment(&without, []))?;
        let mut child = Command::new(ARGUMENT);
        child.process_group(0).stdin(Stdio::from(state));
        child.stdout(Stdio::from(said.try_clone()?)).stderr(Stdio::from(said));
        undo_ours(&mut child, Birth::ordinary(open_files, Signal::SIGKILL))?;
        execute(&mut child, image, program.as_raw_fd());
        let child = child.spawn()?;
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid fits pid_t"));
        aside.add_asked(pid);
        let verdict = tokio::spawn(verdict(answer, pid, aside.clone()));
        Ok(Self { verdict, program })
    }

    /// What came of it; cancel-safe.
    pub(super) async fn verdict(&mut self) -> Result<(), String> {
        let failed = |error: tokio::task::JoinError| Err(error.to_string());
        (&mut self.verdict).await.unwrap_or_else(failed)
    }

    /// The file that was tried.
    pub(super) fn program(self) -> OwnedFd {
        self.program
    }
}

/// Has the child execute this file, and no shell if the file is no program.
#[allow(unsafe_code)]
fn execute(child: &mut Command, image: ExecArgs, program: i32) {
    let execute = move || {
        // SAFETY: alarm(2) takes no pointer; exec(2) keeps the alarm.
        unsafe { libc::alarm(TRIAL_TIMEOUT) };
        Err(image.execute(program))
    };
    // SAFETY: between fork and exec it makes two system calls.
    unsafe { child.pre_exec(execute) };
}

async fn verdict(answer: Receiver, child: Pid, aside: Aside) -> Result<(), String> {
    let until = Instant::now() + ANSWER_TIMEOUT;
    let mut said = Vec::new();
    let mut answer = answer.take(ANSWER_MAX);
    // What the child has said by then counts.
    let _ = timeout_at(until, answer.read_to_end(&mut said)).await;
    let mut end = ExitWatcher::of(&[Process::of_leader(child)]);
    if !end.is_empty() {
        let _ = timeout_at(until, end.ended()).await;
    }
    let end = aside.collect(child);
    judge(end, &String::from_utf8_lossy(&said))
}

/// `end` is none where it has not ended in time.
fn judge(end: Option<End>, said: &str) -> Result<(), String> {
    let line = said.lines().next().unwrap_or_default();
    match end {
        Some(End::Exited(0)) if line == good() => Ok(()),
        Some(End::Exited(code)) if line.is_empty() => {
            Err(format!("tried, it ends with status {code} and no answer"))
        }
        Some(End::Exited(code)) => Err(format!("tried, it ends with status {code}: {line}")),
        None | Some(End::Killed(libc::SIGALRM | libc::SIGKILL)) => {
            Err(format!("tried, it gives no answer within {TRIAL_TIMEOUT} s"))
        }
        Some(End::Killed(number)) => {
            let name = Signal::try_from(number).map(Signal::as_str);
            let name = name.map_or_else(|_| format!("signal {number}"), str::to_owned);
            Err(format!("tried, it ends by {name}"))
        }
    }
}

/// What the child says if it could go on.
pub(super) fn good() -> String {
    format!("good {FORMAT}")
}

/// Whether we are the child of a trial.
pub(crate) fn is_tried(args: &[OsString]) -> bool {
    matches!(args, [_, argument] if argument == ARGUMENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn o2_only_a_good_answer_of_one_that_ends_well_counts() {
        let exited = |code| Some(End::Exited(code));
        let killed = |signal| Some(End::Killed(signal));
        assert_eq!(judge(exited(0), &format!("good {FORMAT}\n")), Ok(()));
        for (status, said, why) in [
            (exited(0), "", "ends with status 0 and no answer"),
            (exited(0), "good 0\n", "ends with status 0: good 0"),
            (exited(2), "unexpected argument\nusage", "ends with status 2: unexpected argument"),
            (exited(1), "good 1", "ends with status 1: good 1"),
            (killed(libc::SIGSEGV), "good 1\n", "ends by SIGSEGV"),
            (killed(40), "good 1\n", "ends by signal 40"),
            (killed(libc::SIGALRM), "", "no answer within 5 s"),
            (None, "good 1\n", "no answer within 5 s"),
        ] {
            let verdict = judge(status, said).unwrap_err();
            assert!(verdict.contains(why), "{verdict}");
        }
    }
}
