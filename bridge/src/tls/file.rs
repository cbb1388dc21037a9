//! The reading of files with certificates, keys and passwords: whole, and up to a limit. Knows kinds of
//! files; must not know what is in them.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::regular;

/// The kinds of files that may be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sources {
    /// Any kind. A pipe, as a shell makes one of `<(command)`, is read for as long as its writer takes, and can be read
    /// once only.
    Any,
    /// Regular files only: reading them does not wait for another process.
    Regular,
}

/// The whole of a file of at most `longest` bytes.
///
/// # Errors
///
/// As open(2) and read(2), and if it is longer, or of a kind that `sources` leaves out.
pub fn whole(path: &Path, sources: Sources, longest: u64) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let file = match sources {
        Sources::Any => File::open(path)?,
        Sources::Regular => regular::open(path)?,
    };
    file.take(longest + 1).read_to_end(&mut text)?;
    if text.len() as u64 > longest {
        return Err(io::Error::other(format!("is longer than {} KiB", longest / 1024)));
    }
    Ok(text)
}
