//! The client table: the file by which `rebind.so` knows which client each of the bridge's connections is from (A1,
//! A6). Knows where the file lies, and how programs are told of it; the bridge writes its contents.

mod saved;

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use bridge::{ClientTable, Private};
use rustix::fs::{Mode, OFlags, fchmod, openat};

use super::unpacked::{self, CLIENTS, DIRECTORY_MODE, MODE, candidates};
use crate::cli::ProgramAccess;
use crate::config::Told;
use crate::exit::Failure;
pub(crate) use saved::ClientTableFileState;

/// The longest path that `rebind.so` takes.
const LONGEST: usize = 255;

/// The file, removed when this is dropped: a process that is started later cannot read it, and gets no connection of
/// the bridge's any more.
#[derive(Debug)]
pub(crate) struct ClientTableFile {
    table: Arc<ClientTable>,
    told: Told,
    path: PathBuf,
    directory: File,
    /// The old binary of a hand-over may still need the file, so it is not removed when this is dropped.
    keep_on_drop: AtomicBool,
}

impl ClientTableFile {
    /// Makes it in the first directory that is fit.
    ///
    /// # Errors
    /// No directory is fit, or none has room for it.
    pub(crate) fn make(told: Told) -> Result<Self> {
        let mut reasons = Vec::new();
        for parent in candidates() {
            match Self::within(told, &parent) {
                Ok(clients) => return Ok(clients),
                Err(reason) => {
                    let reason = Failure::from(reason).reason;
                    reasons.push(format!("{}: {reason}", parent.display()));
                }
            }
        }
        bail!("cannot make the file for '{}': {}", told.option, reasons.join("; "))
    }

    /// The table, which the bridge writes.
    pub(crate) fn table(&self) -> Arc<ClientTable> {
        Arc::clone(&self.table)
    }

    /// The option that the file is made for.
    pub(crate) fn option(&self) -> &'static str {
        self.told.option
    }

    /// What to use for a program that `rebind.so` does not reach; the other engine cannot tell a program of its
    /// clients.
    pub(super) fn instead(&self) -> &'static str {
        match (self.told.option, self.told.access) {
            ("--program-access=bridge", _) => {
                "use --rebind-engine=seccomp without --program-access=bridge"
            }
            (_, ProgramAccess::Anyone) => {
                "use --rebind-engine=seccomp with --client-address=loopback"
            }
            (_, ProgramAccess::Bridge) => {
                "use --rebind-engine=seccomp with --client-address=loopback and without --program-access=bridge"
            }
        }
    }

    /// The value of the environment variable that tells `rebind.so` of the file.
    pub(super) fn value(&self) -> OsString {
        let (second, port) = self.table.sources();
        let whom = match self.told.access {
            ProgramAccess::Anyone => "anyone",
            ProgramAccess::Bridge => "bridge",
        };
        let mut value = OsString::from(format!("{second} {port} {whom} "));
        value.push(self.path.join(CLIENTS));
        value
    }

    fn within(told: Told, parent: &std::path::Path) -> Result<Self> {
        let (path, directory) = unpacked::make(parent, unpacked::check_open)?;
        let made = (|| {
            anyhow::ensure!(
                path.as_os_str().as_bytes().len() + 10 <= LONGEST,
                "its path is too long"
            );
            fchmod(&directory, Mode::from_raw_mode(DIRECTORY_MODE))
                .map_err(std::io::Error::from)?;
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let file =
                openat(&directory, CLIENTS, flags, Mode::RUSR).map_err(std::io::Error::from)?;
            fchmod(&file, Mode::from_raw_mode(MODE)).map_err(std::io::Error::from)?;
            ClientTable::new(file.into()).context("cannot fill it")
        })();
        match made {
            Ok(table) => Ok(Self { table, told, path, directory, keep_on_drop: false.into() }),
            Err(reason) => {
                unpacked::remove(&directory, &path);
                Err(reason)
            }
        }
    }

    /// Notes the file as private: no web request is answered with it.
    pub(super) fn note(&self, private: &Private) {
        if let Ok(metadata) = self.path.join(CLIENTS).metadata() {
            private.note(&metadata);
        }
    }
}

impl Drop for ClientTableFile {
    fn drop(&mut self) {
        if self.keep_on_drop.load(Ordering::Relaxed) {
            return;
        }
        // Sessions that are just ending may still use the table.
        self.table.clear();
        unpacked::remove(&self.directory, &self.path);
    }
}
