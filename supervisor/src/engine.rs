//! How the program's port is moved to loopback, and what is heard of that. The program's loop knows an
//! engine and not which one it is: another one is a file beside `preload` and a variant here.

mod notice;
mod preload;
mod relocated;

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use bridge::Private;

use crate::host::executable;
use crate::processes::Process;
pub(crate) use notice::{BindRequest, Notices};
use preload::Preload;

/// A way to move the port.
#[derive(Debug)]
pub(crate) enum Engine {
    /// `rebind.so`, loaded into the program by the dynamic linker.
    Preload(Preload),
}

impl Engine {
    /// Takes the library that was `given`, or our own; moves this `port` of the program's. Needs a runtime.
    pub(crate) fn preload(given: Option<&Path>, port: u16) -> Result<Self> {
        Preload::new(given, port).map(Self::Preload)
    }

    /// The port on loopback that the program gets.
    pub(crate) fn port(&self) -> u16 {
        match self {
            Self::Preload(preload) => preload.port(),
        }
    }

    /// Sees to it that all is there that the next instance needs. None of it is served: it is noted as
    /// `private`.
    pub(crate) fn renew(&mut self, private: &Private) -> Result<()> {
        match self {
            Self::Preload(preload) => preload.renew(private),
        }
    }

    /// Adds to a command what moves the port of the program that it starts.
    pub(crate) fn prepare(&self, command: &mut Command) {
        match self {
            Self::Preload(preload) => preload.prepare(command),
        }
    }

    /// Waits until something is heard of the program. Cancel-safe.
    pub(crate) async fn heard(&mut self) -> Notices {
        match self {
            Self::Preload(preload) => preload.heard().await,
        }
    }

    /// Binds the socket of a process that could not do it to the program's port on loopback.
    pub(crate) fn bind(&self, request: &BindRequest) -> io::Result<()> {
        match self {
            Self::Preload(preload) => preload.bind(request),
        }
    }

    /// What can be seen from outside of why this program cannot be moved, or not even started; it
    /// continues the program's name (W12).
    pub(crate) fn obstacle(&self, program: &OsStr) -> Option<String> {
        let path = std::env::var_os("PATH");
        match executable::find(program, path.as_deref()) {
            Ok(found) => found.and_then(|executable| match self {
                Self::Preload(_) => Preload::obstacle(&executable),
            }),
            Err(missing) => Some(missing.to_string()),
        }
    }

    /// Another instance begins: what was seen of the last one is not true of it.
    pub(crate) fn begin_instance(&mut self) {
        match self {
            Self::Preload(preload) => preload.begin_instance(),
        }
    }

    /// Looks whether the processes of an instance that does not listen were started with the engine.
    pub(crate) fn look(&mut self, instance: &[Process]) {
        match self {
            Self::Preload(preload) => preload.look(instance),
        }
    }

    /// Why an instance that was started by `command` is out of reach, as far as that was seen.
    pub(crate) fn out_of_reach(&self, command: &[OsString]) -> Option<String> {
        match self {
            Self::Preload(preload) => preload.out_of_reach(command),
        }
    }

    /// Leaves what a daemon that is left running needs.
    pub(crate) fn keep(&mut self) {
        match self {
            Self::Preload(preload) => preload.keep(),
        }
    }
}
