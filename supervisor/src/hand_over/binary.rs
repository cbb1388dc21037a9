//! Our executable file: its path, and the file itself. Knows paths and descriptors.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};
use rustix::fs::{FileType, Mode, OFlags, fstat, open};

use std::ffi::OsString;

/// The file that this process executes.
const OURS: &str = "/proc/self/exe";

/// What the kernel puts behind the path of a file that was removed, as an upgrade does.
const REMOVED: &[u8] = b" (deleted)";

/// The path of the file that we were started from, as far as it can be known.
pub(crate) fn path() -> PathBuf {
    let path = fs::read_link(OURS).unwrap_or_default();
    let bytes = path.as_os_str().as_bytes();
    match bytes.strip_suffix(REMOVED) {
        Some(kept) if !path.exists() => OsString::from_vec(kept.to_vec()).into(),
        _ => path,
    }
}

/// The file that lies there now, to be executed.
pub(crate) fn at(path: &Path) -> io::Result<OwnedFd> {
    let file = open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    match FileType::from_raw_mode(fstat(&file)?.st_mode) {
        FileType::RegularFile => Ok(file),
        FileType::Directory => Err(io::ErrorKind::IsADirectory.into()),
        _ => Err(io::Error::other("it is no file")),
    }
}

/// Whether the file that we execute could be executed again, by the user that we are now.
pub(crate) fn check_ours() -> io::Result<()> {
    let runs = access(OURS, AccessFlags::X_OK).map_err(io::Error::from);
    runs.map_err(|error| {
        let why = format!("there would be no way back: {}", bridge::error_text(&error));
        io::Error::new(error.kind(), why)
    })
}

/// The file that we execute.
pub(crate) fn ours() -> io::Result<OwnedFd> {
    at(Path::new(OURS))
}
