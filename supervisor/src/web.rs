//! `--web`: the directory whose files are served.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The directory as an absolute path, looked at while the person who named it can be told. A link
/// in it stays one: it may be made to point elsewhere while we serve.
pub(crate) fn directory(typed: &Path) -> Result<PathBuf> {
    let path = std::path::absolute(typed).context("cannot find the working directory")?;
    // With a slash at its end, so that anything else is "not a directory" (path_resolution(7)).
    fs::metadata(path.join(""))
        .with_context(|| format!("cannot serve files from {}", path.display()))?;
    Ok(path)
}
