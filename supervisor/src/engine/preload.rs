//! The preload engine: moves the port by `rebind.so`, which the dynamic linker loads into the program and whatever that
//! starts, as long as they keep the environment. The only file that sets `LD_PRELOAD`.

mod clients;
mod environment;
mod library;
#[path = "../../../rebind/src/names.rs"]
mod names;
mod notifications;
mod obstacle;
mod saved;
mod stale;
mod unpacked;
mod variable;

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result};
use bridge::{Private, blocking};

use super::notice::{BindRequest, Notices};
use super::relocated::RelocatedPort;
use crate::machine::executable::Executable;
use crate::processes::Process;
pub(crate) use clients::{ClientTableFile, ClientTableFileState};
use environment::LostEnvironment;
use library::Library;
use notifications::Notifications;
pub(super) use obstacle::{Obstacle, gains_privileges};
pub(super) use saved::PreloadState;

/// What the program is started with, and what was seen of that.
#[derive(Debug)]
pub(crate) struct Preload {
    /// The program's own port.
    port: u16,
    relocated: RelocatedPort,
    /// Removed when this is dropped, so this must outlive every process of the program.
    library: Library,
    notifications: Notifications,
    lost: LostEnvironment,
    /// The file that tells the program who its clients are, if it is told.
    clients: Option<Arc<ClientTableFile>>,
}

impl Preload {
    pub(super) fn new(
        given: Option<&Path>,
        port: u16,
        relocated: RelocatedPort,
        clients: Option<Arc<ClientTableFile>>,
    ) -> Result<Self> {
        // Where no thread can be started, the next websockify removes them.
        drop(blocking::begin(library::remove_stale));
        let library = Library::find(given)?;
        if clients.is_some() {
            library.tells()?;
        }
        let notifications = Notifications::open().context("cannot open notification socket")?;
        let lost = LostEnvironment::default();
        let preload = Self { port, relocated, library, notifications, lost, clients };
        preload.check_open()?;
        Ok(preload)
    }

    /// Whether a program of another user can load the library.
    fn check_open(&self) -> Result<()> {
        if self.relocated.is_of_another_user() {
            let open = self.library.is_open();
            open.context("another user's program cannot load the rebind library")?;
        }
        Ok(())
    }

    pub(super) fn port(&self) -> u16 {
        self.relocated.port
    }

    pub(super) fn renew(&mut self, private: &Private) -> Result<()> {
        self.library.renew()?;
        self.check_open()?;
        if let Ok(metadata) = self.library.path().metadata() {
            private.note(&metadata);
        }
        self.clients.iter().for_each(|clients| clients.note(private));
        Ok(())
    }

    pub(super) fn prepare(&self, command: &mut Command) {
        let existing = std::env::var_os("LD_PRELOAD");
        command
            .env("LD_PRELOAD", variable::with(self.library.path(), existing.as_deref()))
            .env(names::OLD_PORT, self.port.to_string())
            .env(names::NEW_PORT, self.relocated.port.to_string())
            .env(names::NOTIFY, &self.notifications.name)
            .env(names::TOKEN, &self.notifications.token);
        match &self.clients {
            Some(clients) => command.env(names::CLIENTS, clients.value()),
            // If we run under another websockify, its variable must not reach our program.
            None => command.env_remove(names::CLIENTS),
        };
    }

    /// Of the requests to bind, keeps only those for sockets that another user has made: a socket of the port's own
    /// user the program can bind itself.
    pub(super) async fn heard(&mut self) -> Notices {
        let mut notices = self.notifications.heard().await;
        notices.requests.retain(|request| self.relocated.is_foreign(&request.socket));
        notices
    }

    pub(super) fn bind(&self, request: &BindRequest) -> io::Result<()> {
        self.relocated.bind(&request.socket, request.ip)
    }

    pub(super) fn obstacle(executable: &Executable) -> Option<Obstacle> {
        obstacle::of(executable)
    }

    pub(super) fn begin_instance(&mut self) {
        self.lost = LostEnvironment::default();
    }

    pub(super) fn look(&mut self, instance: &[Process]) {
        self.lost.look(instance, self.library.path(), self.instead());
    }

    pub(super) fn out_of_reach(&self, command: &[OsString]) -> Option<String> {
        self.lost.reason(command)
    }

    /// What to do about a program that ended without a word, if it had started another program.
    pub(super) fn advice(&self, executable: &Executable) -> Option<String> {
        let instead = self.instead();
        environment::starts_others(executable).then(|| {
            format!("if it starts a program that is statically linked, or in Go, {instead}")
        })
    }

    /// What to use for a program that rebind.so does not reach.
    fn instead(&self) -> &'static str {
        self.clients.as_ref().map_or("use --rebind-engine=seccomp", |clients| clients.instead())
    }

    pub(super) fn keep(&mut self) {
        self.library.keep(self.relocated.is_of_another_user());
    }
}
