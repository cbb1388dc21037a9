//! A piece of traffic that waits to be recorded. A large piece is in a memory mapping of its own, which goes back to
//! the system when the piece is written or dropped: the heap would keep the memory.

use std::ops::Deref;

use memmap2::MmapMut;

/// From how many bytes on a piece gets a mapping; for a smaller piece too much of the last page would be wasted.
const LARGE: usize = 16 * 1024;

#[derive(Debug)]
pub(super) enum Payload {
    Small(Box<[u8]>),
    Large(MmapMut),
}

impl Payload {
    pub(super) fn copy(bytes: &[u8]) -> Self {
        let map = (bytes.len() >= LARGE).then(|| MmapMut::map_anon(bytes.len()));
        match map {
            Some(Ok(mut map)) => {
                map.copy_from_slice(bytes);
                Self::Large(map)
            }
            // A process may have only so many mappings.
            Some(Err(_)) | None => Self::Small(bytes.into()),
        }
    }
}

impl Deref for Payload {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Small(bytes) => bytes,
            Self::Large(map) => map,
        }
    }
}
