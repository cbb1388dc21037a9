//! `--record`: where the recordings go.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::{AccessFlags, faccessat};

use crate::trusted;

/// The beginning of their names as an absolute path, its directory looked at while the person who named it
/// can be told.
pub(crate) fn beginning(typed: &Path) -> Result<PathBuf> {
    let path = std::path::absolute(typed).context("cannot find the working directory")?;
    let directory = path.parent().expect("config.rs lets no path without a file name through");
    check(directory).with_context(|| format!("cannot record to {}", path.display()))?;
    Ok(path)
}

fn check(directory: &Path) -> Result<()> {
    trusted::directory(directory)?;
    let wanted = AccessFlags::W_OK | AccessFlags::X_OK;
    Ok(faccessat(AT_FDCWD, directory, wanted, AtFlags::AT_EACCESS).map_err(io::Error::from)?)
}
