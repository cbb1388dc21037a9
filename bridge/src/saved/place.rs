//! Bytes that belong to a state: they are stored behind the state, one after the other, and the state says where. Must
//! not know what they mean.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::invalid::Invalid;

/// Where some of those bytes are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    at: u64,
    length: u64,
}

impl Place {
    /// Appends bytes to those that are there.
    pub(crate) fn put(all: &mut Vec<u8>, bytes: &[u8]) -> Self {
        let at = all.len() as u64;
        all.extend_from_slice(bytes);
        Self { at, length: bytes.len() as u64 }
    }

    /// Moves the place by `base`, the number of bytes that were put before all of these.
    pub(crate) fn move_by(&mut self, base: usize) {
        self.at += base as u64;
    }

    /// The bytes.
    pub(crate) fn of(self, all: &[u8]) -> Result<&[u8], Invalid> {
        let range = || -> Option<Range<usize>> {
            let at = usize::try_from(self.at).ok()?;
            Some(at..at.checked_add(usize::try_from(self.length).ok()?)?)
        };
        let bytes = range().and_then(|range| all.get(range));
        bytes.ok_or_else(|| Invalid("it speaks of bytes that are not there".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn o2_bytes_are_found_where_they_were_put_and_nowhere_else() {
        let mut all = vec![1];
        let places = [&b""[..], b"ab", b"c"].map(|bytes| (Place::put(&mut all, bytes), bytes));
        for (place, bytes) in places {
            assert_eq!(place.of(&all).unwrap(), bytes);
            let mut moved = place;
            moved.move_by(2);
            assert_eq!(moved.of(&[&[0, 0], &all[..]].concat()).unwrap(), bytes);
        }
        for (at, length) in [(0, 5), (4, 1), (5, 0), (u64::MAX, 1), (1, u64::MAX)] {
            assert!(Place { at, length }.of(&all).is_err(), "{at} {length}");
        }
    }
}
