//! The engine: how the program's port is moved to loopback, and what is heard of the program. The program's loop knows
//! an engine, and not which one: another engine is a file beside `preload` and a variant here.

mod notice;
mod owner;
mod preload;
mod relocated;
mod saved;
mod seccomp;

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result};
use bridge::Private;
use tracing::{info, warn};

use crate::cli::RebindEngine;
use crate::exit::Failure;
use crate::machine::executable::{self, Executable, MissingInterpreter};
use crate::processes::Process;
pub(crate) use notice::{BindRequest, Notices};
pub(crate) use owner::Owner;
pub(crate) use preload::{ClientTableFile, ClientTableFileState};
use preload::{Obstacle, Preload};
pub(crate) use relocated::RelocatedPort;
pub(crate) use saved::EngineState;
use seccomp::Seccomp;

/// A way to move the port.
#[derive(Debug)]
pub(crate) enum Engine {
    /// `rebind.so`, loaded into the program by the dynamic linker.
    Preload(Box<Preload>),
    /// The kernel, which has each bind(2) and listen(2) wait for us.
    Seccomp(Seccomp),
}

/// What an engine is made from.
pub(crate) struct EngineOptions<'a> {
    pub(crate) engine: RebindEngine,
    /// The library that was given, if one was.
    pub(crate) library: Option<&'a Path>,
    pub(crate) program: &'a OsStr,
    /// The port that is to be moved.
    pub(crate) port: u16,
    /// The file that tells the program who its clients are.
    pub(crate) clients: Option<Arc<ClientTableFile>>,
}

impl Engine {
    /// The engine that was asked for, or with `auto` the one that reaches the program (W14). `apart` is the relocated
    /// port, if that is held already for a program of another user than we are; only `preload` can be used then. Needs
    /// a runtime.
    pub(crate) fn new(asked: EngineOptions<'_>, apart: Option<RelocatedPort>) -> Result<Self> {
        let EngineOptions { engine, library, program, port, clients } = asked;
        if let Some(clients) = &clients {
            must_be_preloaded(program, &format!("cannot use {}", clients.option()), BY_ADDRESS)?;
        }
        if apart.is_some() {
            must_be_preloaded(program, "cannot use --user and --program-user together", BY_ONE)?;
        }
        let (is_told, is_apart) = (clients.is_some(), apart.is_some());
        let preload = || {
            let relocated = apart.map_or_else(RelocatedPort::hold, Ok)?;
            Preload::new(library, port, relocated, clients).map(Box::new).map(Self::Preload)
        };
        match engine {
            RebindEngine::Preload => preload(),
            RebindEngine::Seccomp => {
                let seccomp = Seccomp::new(port).context("cannot use --rebind-engine=seccomp")?;
                let (program, costs) = (program.display(), seccomp.costs());
                info!("program {program}: its port is moved by --rebind-engine=seccomp{costs}");
                Ok(Self::Seccomp(seccomp))
            }
            RebindEngine::Auto => {
                let Ok(Some(executable)) = find(program) else { return preload() };
                match Preload::obstacle(&executable) {
                    None => preload().inspect(|_| {
                        let program = program.display();
                        info!(
                            "program {program}: its port is moved by rebind.so, as nothing is seen that keeps that out"
                        );
                    }),
                    // Only the library can do what is asked.
                    Some(_) if is_told || is_apart => preload(),
                    Some(obstacle) => seccomp_for(&executable, &obstacle, (program, port))
                        .map_or_else(preload, |seccomp| Ok(Self::Seccomp(seccomp))),
                }
            }
        }
    }

    /// Its name, as it is typed in `--rebind-engine`.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Preload(_) => "preload",
            Self::Seccomp(_) => "seccomp",
        }
    }

    /// The relocated port: the one on loopback that the program gets.
    pub(crate) fn port(&self) -> u16 {
        match self {
            Self::Preload(preload) => preload.port(),
            Self::Seccomp(seccomp) => seccomp.port(),
        }
    }

    /// Makes sure that all files are there that the next instance needs. They are noted as `private`, so that no web
    /// request is answered with them.
    pub(crate) fn renew(&mut self, private: &Private) -> Result<()> {
        match self {
            Self::Preload(preload) => preload.renew(private),
            Self::Seccomp(_) => Ok(()),
        }
    }

    /// Adds to a command what moves the port of the program that it starts.
    pub(crate) fn prepare(&self, command: &mut Command) {
        match self {
            Self::Preload(preload) => preload.prepare(command),
            Self::Seccomp(seccomp) => seccomp.prepare(command),
        }
    }

    /// Waits until something is heard of the program. Cancel-safe.
    pub(crate) async fn heard(&mut self) -> Notices {
        match self {
            Self::Preload(preload) => preload.heard().await,
            Self::Seccomp(seccomp) => seccomp.heard().await,
        }
    }

    /// Binds a socket to the relocated port, for a process that could not do it itself.
    pub(crate) fn bind(&self, request: &BindRequest) -> io::Result<()> {
        match self {
            Self::Preload(preload) => preload.bind(request),
            // This engine binds when it answers a call, and never gives such a request.
            Self::Seccomp(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Why the port of this program cannot be moved, or why the program cannot even be started, as far as its file
    /// shows. The text continues the program's name (W12).
    pub(crate) fn obstacle(&self, program: &OsStr) -> Option<String> {
        match find(program) {
            Ok(found) => found.and_then(|executable| match self {
                Self::Preload(_) => Preload::obstacle(&executable).map(|found| found.to_string()),
                Self::Seccomp(seccomp) => seccomp.obstacle(&executable),
            }),
            Err(missing) => Some(missing.to_string()),
        }
    }

    /// Another instance begins: forgets what was seen of the last one.
    pub(crate) fn begin_instance(&mut self) {
        match self {
            Self::Preload(preload) => preload.begin_instance(),
            Self::Seccomp(seccomp) => seccomp.begin_instance(),
        }
    }

    /// Looks whether the processes of an instance that does not listen were started with the engine.
    pub(crate) fn look(&mut self, instance: &[Process]) {
        match self {
            Self::Preload(preload) => preload.look(instance),
            Self::Seccomp(_) => {}
        }
    }

    /// Why an instance that was started by `command` is out of reach, as far as that was seen.
    pub(crate) fn out_of_reach(&self, command: &[OsString]) -> Option<String> {
        match self {
            Self::Preload(preload) => preload.out_of_reach(command),
            Self::Seccomp(seccomp) => seccomp.out_of_reach(),
        }
    }

    /// What to try with a program that has ended without listening, and nobody knows why.
    pub(crate) fn advice(&self, program: &OsStr) -> Option<String> {
        match self {
            Self::Preload(preload) => preload.advice(&find(program).ok()??),
            Self::Seccomp(_) => None,
        }
    }

    /// Leaves what a daemon that is left running needs.
    pub(crate) fn keep(&mut self) {
        match self {
            Self::Preload(preload) => preload.keep(),
            Self::Seccomp(_) => warn!(
                "what is left running can bind no socket any more: nobody answers it, and the kernel says ENOSYS"
            ),
        }
    }
}

/// What the error advises for programs that `rebind.so` does not reach.
const BY_ADDRESS: &str =
    "it cannot be told who its clients are; --client-address=loopback reaches it";
const BY_ONE: &str =
    "only --rebind-engine=seccomp moves its port, which takes one of the two alone";

/// The seccomp engine, if it is better for a program that is seen to be out of the reach of `rebind.so`.
fn seccomp_for(
    executable: &Executable,
    obstacle: &Obstacle,
    (program, port): (&OsStr, u16),
) -> Option<Seccomp> {
    if !obstacle.is_of_preloading() {
        return None;
    }
    let program = program.display();
    match Seccomp::new(port) {
        // The filter would cost the program the rights from its file, which it needs more.
        Ok(seccomp) if seccomp.obstacle(executable).is_some() => None,
        Ok(seccomp) => {
            let (cause, costs) = (obstacle.cause(), seccomp.costs());
            info!("program {program} {cause}: its port is moved by --rebind-engine=seccomp{costs}");
            Some(seccomp)
        }
        Err(failure) => {
            let reason = Failure::from(failure).reason;
            warn!("cannot use --rebind-engine=seccomp for program {program}: {reason}");
            None
        }
    }
}

/// Refuses a program that `rebind.so` does not reach, where only `rebind.so` can do what is asked: tell the program of
/// its clients, or move the port of another user's program.
fn must_be_preloaded(program: &OsStr, cannot: &str, instead: &str) -> Result<()> {
    let Some(executable) = find(program).ok().flatten() else { return Ok(()) };
    match Preload::obstacle(&executable) {
        Some(obstacle) if obstacle.is_of_preloading() => {
            anyhow::bail!(
                "{cannot}: program {} {}, so {instead}",
                program.display(),
                obstacle.cause()
            )
        }
        _ => Ok(()),
    }
}

fn find(program: &OsStr) -> Result<Option<Executable>, MissingInterpreter> {
    let path = std::env::var_os("PATH");
    executable::find(program, path.as_deref())
}
