//! Values that stand in a file instead of on the command line, where whoever lists processes sees them. Knows
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
/// As open(2) and read(2), and if there is none, or more than 64 KiB.
pub(crate) fn read(path: &Path, sources: Sources) -> Result<Vec<u8>> {
    let named = || format!("cannot read {}", path.display());
    let text = whole(path, sources, LONGEST).with_context(named)?;
    let text = text.trim_ascii();
    ensure!(!text.is_empty(), "{}: it is empty", named());
    Ok(text.to_owned())
}
