//! An object of a file system, opened by its name only to be examined (O_PATH of open(2)): the object that was examined
//! is the one that is used later, even if its name is given to something else meanwhile. Knows descriptors, and nothing
//! of tokens.

use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::libc::O_PATH;

use crate::error_text::error_text;

/// An object that has been opened, and its path.
#[derive(Debug)]
pub(crate) struct Opened {
    file: File,
    path: PathBuf,
}

impl Opened {
    /// Opens a path; follows symbolic links, and neither reads nor waits.
    ///
    /// # Errors
    ///
    /// As open(2), and if /proc does not say where the object is.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = File::options().read(true).custom_flags(O_PATH).open(path)?;
        let path = fs::read_link(link(&file)).map_err(|error| {
            io::Error::other(format!(
                "/proc/self/fd does not say where it is: {}",
                error_text(&error)
            ))
        })?;
        Ok(Self { file, path })
    }

    /// The object's path, without symbolic links.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn metadata(&self) -> io::Result<Metadata> {
        self.file.metadata()
    }

    /// A path that leads to this object as long as it is open (proc_pid_fd(5)).
    pub(crate) fn link(&self) -> PathBuf {
        link(&self.file)
    }
}

/// Where a path leads to, without links.
///
/// # Errors
///
/// As realpath(3).
pub(crate) fn real_path(path: &Path) -> io::Result<PathBuf> {
    match fs::canonicalize(path) {
        // For a path with `..`, or with a slash at its end, the C library calls faccessat2(2), which the seccomp
        // filters of old containers answer with EPERM.
        Err(error) if error.raw_os_error() == Some(Errno::EPERM as i32) => {
            Opened::open(path).map(|opened| opened.path)
        }
        found => found,
    }
}

/// Whether an error of opening or examining a name means that nothing of that name exists, or can exist.
pub(crate) fn is_absence(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound
        || error.kind() == ErrorKind::NotADirectory
        || matches!(
            error.raw_os_error().map(Errno::from_raw),
            Some(Errno::ENAMETOOLONG | Errno::ELOOP)
        )
}

fn link(file: &File) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}
