//! Files as certificates, keys and passwords are read from: whole, and no longer than they may be. Knows kinds of
//! files, and nothing of what is in them.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::regular;

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
