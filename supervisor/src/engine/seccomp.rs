//! The seccomp engine: moves the port in the kernel (seccomp_unotify(2)). Whatever the program is and whatever it
//! starts, each of its calls of bind(2) and listen(2) waits until we have answered; calls that concern its port we make
//! ourselves, on a copy of its socket. Needs Linux 5.6, and no container that forbids it.
//!
//! - `filter` stops the calls, and puts the program under it; `hand` brings us the listener, where the kernel tells the
//!   calls,
//! - `call` is a call that waits, `caller` the thread that has made it,
//! - `rules` are those of `rebind.so`, from its own sources,
//! - `repeats` are calls of bind(2) that a thread makes once more after a signal, `unseen` is a process that we cannot
//!   look into,
//! - `answers` is the thread that answers; `halt` stops it for a hand-over, in which the new binary goes on with what
//!   is `saved`.

mod answers;
mod call;
mod caller;
mod filter;
mod halt;
mod hand;
mod repeats;
mod rules;
mod saved;
mod unseen;

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::Notify;
use tokio::time::sleep;

use super::notice::Notices;
use super::relocated::RelocatedPort;
use crate::machine::executable::Executable;
use answers::Answers;
use filter::NewPrivileges;
use halt::Halt;
use repeats::RetriedBinds;
pub(super) use saved::SeccompState;
use unseen::Unseen;

/// How long we wait after no thread could be started.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// What the program is started with.
#[derive(Debug)]
pub(crate) struct Seccomp {
    relocated: Arc<RelocatedPort>,
    privileges: NewPrivileges,
    listens: Arc<Notify>,
    unseen: Unseen,
    /// The end of the hand that the program sends its listener by. When it is closed, the thread ends.
    instances: Arc<hand::Sender>,
    halt: Halt<Answers>,
}

impl Seccomp {
    /// # Errors
    ///
    /// The kernel is too old, or a container forbids it; or there is no port.
    pub(super) fn new(port: u16) -> Result<Self> {
        let privileges = try_out().map_err(|error| {
            let who = match error.raw_os_error() {
                Some(libc::EBUSY) => {
                    "another one, that of a container perhaps, stops calls of ours"
                }
                Some(libc::ENOSYS) => "it needs Linux 5.6, or a container refuses it",
                _ => "the kernel, or a container, refuses it",
            };
            anyhow::Error::new(error).context(who)
        })?;
        let relocated = Arc::new(RelocatedPort::hold()?);
        let listens = Arc::default();
        let unseen = Unseen::default();
        let (instances, taken) = hand::pair().context("cannot make a socket pair")?;
        let answers = Answers {
            port,
            relocated: Arc::clone(&relocated),
            listens: Arc::clone(&listens),
            instances: taken,
            listeners: VecDeque::new(),
            repeats: RetriedBinds::new(),
            unseen: unseen.clone(),
        };
        let halt = Halt::new();
        answers.begin(&halt)?;
        Ok(Self { relocated, privileges, listens, unseen, instances: Arc::new(instances), halt })
    }

    pub(super) fn port(&self) -> u16 {
        self.relocated.port
    }

    #[allow(unsafe_code)]
    pub(super) fn prepare(&self, command: &mut Command) {
        let (privileges, instances) = (self.privileges, Arc::clone(&self.instances));
        let install = move || {
            let listener = filter::install(privileges)?;
            filter::hand_over(&listener, instances.as_fd())
        };
        // SAFETY: between fork and exec only async-signal-safe functions may be called (fork(2),
        // signal-safety(7)): `install` makes plain system calls and allocates nothing.
        unsafe { command.pre_exec(install) };
    }

    /// Waits until a process listens on the relocated port. Cancel-safe. Not to be called while the engine is stopped for a
    /// hand-over: if no thread could be started after one, this tries that again.
    pub(super) async fn heard(&self) -> Notices {
        while self.go_on().is_err() {
            sleep(RETRY_INTERVAL).await;
        }
        self.listens.notified().await;
        Notices { listens: true, requests: vec![] }
    }

    pub(super) fn begin_instance(&self) {
        self.unseen.forget();
    }

    /// Why an instance is out of reach, as far as that was seen.
    pub(super) fn out_of_reach(&self) -> Option<String> {
        self.unseen.first()
    }

    /// What else the engine does to the program and all that it starts; the text continues a sentence.
    pub(super) fn costs(&self) -> &'static str {
        match self.privileges {
            NewPrivileges::Kept => "",
            NewPrivileges::Lost => {
                ", and setuid programs that it starts, such as sudo, get no rights (PR_SET_NO_NEW_PRIVS)"
            }
        }
    }

    /// What a program that gets rights from its file loses by the filter, if it does.
    pub(super) fn obstacle(&self, executable: &Executable) -> Option<String> {
        let is_lost = self.privileges == NewPrivileges::Lost;
        (is_lost && super::preload::gains_privileges(executable)).then(|| {
            "is setuid, setgid or has file capabilities, and gets none of them under \
             --rebind-engine=seccomp: run websockify as root"
                .to_owned()
        })
    }
}

/// Tries whether the engine can work here, and whether the program would keep its privileges.
fn try_out() -> io::Result<NewPrivileges> {
    caller::try_out()?;
    filter::try_out()
}
