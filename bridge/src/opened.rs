//! What a name of a file system leads to, opened to be looked at (O_PATH of open(2)): what was looked at is what is
//! used then, whoever gives its name to something else meanwhile. Knows descriptors, and nothing of tokens.

use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::libc::O_PATH;

use crate::error_text::error_text;

/// Something that has been opened, and where it is.
#[derive(Debug)]
pub(crate) struct Opened {
    file: File,
    path: PathBuf,
}

impl Opened {
    /// Follows links, and neither reads nor waits.
    ///
    /// # Errors
    ///
    /// As open(2), and where /proc does not say where that is.
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

    /// Where it is, without links.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn metadata(&self) -> io::Result<Metadata> {
        self.file.metadata()
    }

    /// A path that leads to this very thing, as long as it is open (proc_pid_fd(5)).
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
        // The C library asks faccessat2(2) about `..` and a slash at the end, which old containers' filters answer so.
        Err(error) if error.raw_os_error() == Some(Errno::EPERM as i32) => {
            Opened::open(path).map(|opened| opened.path)
        }
        found => found,
    }
}

/// Whether there is nothing of a name, nor can be, by what opening it or looking at it has come to.
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
