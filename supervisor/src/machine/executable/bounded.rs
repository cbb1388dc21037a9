//! A file of which little is read, whatever it claims of itself: another user may have made it, with headers that name
//! gigabytes of a hole. Knows bytes, and not what they mean.

use std::cell::Cell;
use std::fs::File;
use std::ops::Range;

use object::{ReadCache, ReadRef};

/// How much may be read of one file, in bytes. Of Chromium (300 MB) it is 14 KiB, and of no Go program at hand (up to 700 MB)
/// more than 16 KiB. Most is read where a Go program has parts in C: 24 for each dynamic symbol, and about 256 for the name
/// of each that it imports.
const MOST: u64 = 4 << 20;
/// How much the cache reads of a string at a time, and at most.
const PIECE: u64 = 256;
const LONGEST_STRING: u64 = 4096;

/// How much is left to be read of a file.
#[derive(Debug)]
pub(super) struct Budget(Cell<u64>);

impl Budget {
    pub(super) fn new() -> Self {
        Self(Cell::new(MOST))
    }

    /// Whether more was asked for than may be read.
    pub(super) fn is_exceeded(&self) -> bool {
        self.0.get() == 0
    }

    /// What is asked for again counts again, although it is in the cache: whoever asks also looks at it again.
    fn take(&self, size: u64) -> Result<(), ()> {
        self.0.set(self.0.get().saturating_sub(size));
        if self.is_exceeded() { Err(()) } else { Ok(()) }
    }
}

/// A file, and how much may still be read of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounded<'a> {
    pub(super) file: &'a ReadCache<File>,
    pub(super) budget: &'a Budget,
}

impl<'a> ReadRef<'a> for Bounded<'a> {
    fn len(self) -> Result<u64, ()> {
        self.file.len()
    }

    fn read_bytes_at(self, offset: u64, size: u64) -> Result<&'a [u8], ()> {
        self.budget.take(size)?;
        self.file.read_bytes_at(offset, size)
    }

    fn read_bytes_at_until(self, range: Range<u64>, delimiter: u8) -> Result<&'a [u8], ()> {
        self.budget.take(0)?;
        let found = self.file.read_bytes_at_until(range, delimiter);
        let length = found.map_or(LONGEST_STRING, |text| text.len() as u64);
        self.budget.take(length.max(PIECE))?;
        found
    }
}
