//! How the dynamic linker reads `LD_PRELOAD`: what can stand in it, and in which order.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::bail;

/// The value of `LD_PRELOAD` (W1): our library first, so that the functions that it calls next are those of the library
/// that was there before.
pub(super) fn with(ours: &Path, existing: Option<&OsStr>) -> OsString {
    let mut value = OsString::from(ours);
    if let Some(existing) = existing.filter(|existing| !existing.is_empty()) {
        value.push(":");
        value.push(existing);
    }
    value
}

/// The dynamic linker splits `LD_PRELOAD` at colons and white space, and expands
/// `$ORIGIN` and the like; nothing escapes them.
pub(super) fn check_text(path: &Path) -> anyhow::Result<()> {
    let unfit = |byte: &u8| matches!(byte, b':' | b'$') || byte.is_ascii_whitespace();
    if path.as_os_str().as_bytes().iter().any(unfit) {
        bail!("a path with white space, ':' or '$' cannot stand in LD_PRELOAD");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// W1: the caller's `LD_PRELOAD` is kept behind ours.
    #[test]
    fn w1_keeps_an_existing_preload() {
        let ours = Path::new("/l/rebind.so");
        assert_eq!(with(ours, None), "/l/rebind.so");
        assert_eq!(with(ours, Some(OsStr::new(""))), "/l/rebind.so");
        assert_eq!(with(ours, Some(OsStr::new("a.so b.so"))), "/l/rebind.so:a.so b.so");
    }
}
