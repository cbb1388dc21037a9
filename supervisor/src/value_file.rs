//! Values that are in a file and not on the command line, which every user can see in the list of processes. Knows
//! nothing of what they mean.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use bridge::tls::{Sources, whole};

/// The longest value, bytes.
const LONGEST: u64 = 64 * 1024;

/// The text of a file without the white space around it.
///
/// # Errors
///
/// It cannot be opened or read, or the text is empty or longer than 64 KiB.
pub(crate) fn read(path: &Path, sources: Sources) -> Result<Vec<u8>> {
    let named = || format!("cannot read {}", path.display());
    let text = whole(path, sources, LONGEST).with_context(named)?;
    let text = text.trim_ascii();
    ensure!(!text.is_empty(), "{}: it is empty", named());
    Ok(text.to_owned())
}
