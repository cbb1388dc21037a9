//! `--web`: the directory whose files are served.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The directory as an absolute path, looked at while the person who named it can be told. A link
/// in it stays one: it may be made to point elsewhere while we serve.
pub(crate) fn directory(typed: &Path) -> Result<PathBuf> {
    let path = std::path::absolute(typed).context("cannot find the working directory")?;
    let is_directory = fs::metadata(&path).and_then(|metadata| match metadata.is_dir() {
        true => Ok(()),
        false => Err(ErrorKind::NotADirectory.into()),
    });
    is_directory.with_context(|| format!("cannot serve files from {}", path.display()))?;
    Ok(path)
}
