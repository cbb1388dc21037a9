//! The directories that the command line names, to serve files from and to record to: looked at while
//! the person who named them can be told.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::{AccessFlags, access, faccessat};

use crate::config::Config;
use crate::machine::trusted;

/// Both, as absolute paths.
#[derive(Debug)]
pub(crate) struct Directories {
    pub(crate) web: Option<PathBuf>,
    /// What the names of recordings begin with.
    pub(crate) record: Option<PathBuf>,
}

impl Directories {
    pub(crate) fn look(config: &Config) -> Result<Self> {
        let is_users = config.users.ours.is_some();
        let web = config.web.as_deref().map(|typed| to_serve(typed, is_users)).transpose()?;
        let record = config.record.as_deref().map(to_record).transpose()?;
        Ok(Self { web, record })
    }
}

/// A symbolic link in the path stays one: it may be made to point elsewhere while we serve. The directory is checked as
/// the user that we are to become, if there is one: it is that user who reads the files.
fn to_serve(typed: &Path, is_users: bool) -> Result<PathBuf> {
    let path = std::path::absolute(typed).context("cannot find the working directory")?;
    // With a slash at its end, so that anything else is "not a directory" (path_resolution(7)).
    fs::metadata(path.join(""))
        .and_then(|_| if is_users { may(&path, AccessFlags::X_OK) } else { Ok(()) })
        .with_context(|| format!("cannot serve files from {}", path.display()))?;
    Ok(path)
}

fn to_record(typed: &Path) -> Result<PathBuf> {
    let path = std::path::absolute(typed).context("cannot find the working directory")?;
    let directory = path.parent().expect("config.rs lets no path without a file name through");
    check_recording(directory).with_context(|| format!("cannot record to {}", path.display()))?;
    Ok(path)
}

fn check_recording(directory: &Path) -> Result<()> {
    trusted::directory(directory)?;
    Ok(may(directory, AccessFlags::W_OK | AccessFlags::X_OK)?)
}

/// Whether our present effective user has this access.
fn may(directory: &Path, wanted: AccessFlags) -> io::Result<()> {
    match faccessat(AT_FDCWD, directory, wanted, AtFlags::AT_EACCESS) {
        // The C library calls faccessat2(2), which the filters of old containers refuse so. The older call asks for our
        // real user instead of the effective one.
        Err(Errno::EPERM) => access(directory, wanted),
        answer => answer,
    }
    .map_err(io::Error::from)
}
