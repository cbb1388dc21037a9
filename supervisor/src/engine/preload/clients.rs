//! The file by which `rebind.so` knows who the bridge's connections are from (A1, A6): where it lies, and how
//! programs are told of it. What stands in it is the bridge's matter.

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
pub(crate) use saved::ClientsState;

/// The longest path that `rebind.so` takes.
const LONGEST: usize = 255;

/// The file, removed when this is dropped: who is started later gets no connection of ours any more.
#[derive(Debug)]
pub(crate) struct Clients {
    table: Arc<ClientTable>,
    told: Told,
    path: PathBuf,
    directory: File,
    /// Another image of us may still need it.
    is_anothers: AtomicBool,
}

impl Clients {
    /// Makes it in the first directory that is fit.
    ///
    /// # Errors
    /// No directory is, or has room for it.
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

    /// What the bridge writes.
    pub(crate) fn table(&self) -> Arc<ClientTable> {
        Arc::clone(&self.table)
    }

    /// The option that it is there for.
    pub(crate) fn option(&self) -> &'static str {
        self.told.option
    }

    /// What to use for a program that this does not reach, as the other engine excludes it.
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

    /// What `rebind.so` is told of it.
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
            Ok(table) => Ok(Self { table, told, path, directory, is_anothers: false.into() }),
            Err(reason) => {
                unpacked::remove(&directory, &path);
                Err(reason)
            }
        }
    }

    /// Nobody is served it.
    pub(super) fn note(&self, private: &Private) {
        if let Ok(metadata) = self.path.join(CLIENTS).metadata() {
            private.note(&metadata);
        }
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        if self.is_anothers.load(Ordering::Relaxed) {
            return;
        }
        // Sessions that are just ending may have the table still.
        self.table.clear();
        unpacked::remove(&self.directory, &self.path);
    }
}
