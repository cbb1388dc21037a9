//! Files as certificates, keys and passwords are read from: whole, and no longer than they may be. Knows kinds of
//! files, and nothing of what is in them.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

/// What may be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sources {
    /// A pipe too, as a shell makes one of `<(command)`, for as long as its writer takes. It can be read once.
    Any,
    /// Regular files only, which hold up nobody.
    Regular,
}

/// The whole of a file of at most `longest` bytes.
///
/// # Errors
///
/// As open(2) and read(2), and if it is longer, or of a kind that `sources` leaves out.
pub fn whole(path: &Path, sources: Sources, longest: u64) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    open(path, sources)?.take(longest + 1).read_to_end(&mut text)?;
    if text.len() as u64 > longest {
        return Err(io::Error::other(format!("is longer than {} KiB", longest / 1024)));
    }
    Ok(text)
}

/// The standard library adds O_CLOEXEC.
fn open(path: &Path, sources: Sources) -> io::Result<File> {
    if sources == Sources::Any {
        return File::open(path);
    }
    // open(2) of a pipe that nobody writes to would wait.
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let is_file = file.metadata()?.is_file();
    is_file.then_some(file).ok_or_else(|| io::Error::other("is not a file"))
}
