//! The bytes that are sent, and the check that they arrive: a proxy that is fast and wrong must not count.

use std::sync::LazyLock;

use anyhow::{Result, ensure};

/// After how many bytes the pattern repeats. 16 KiB and 64 bytes divide it.
pub(crate) const PERIOD: usize = 1 << 20;

/// The most bytes of one slice.
const SLICE_MAX: usize = 1 << 18;

/// Random enough that no byte lost, doubled or moved goes unnoticed.
static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes: Vec<u8> = (0..PERIOD)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .collect();
    bytes.extend_from_within(..SLICE_MAX);
    bytes
});

/// `length` bytes of the pattern from `position` on; at most [`SLICE_MAX`].
pub(crate) fn slice(position: u64, length: usize) -> &'static [u8] {
    let start = usize::try_from(position % PERIOD as u64).expect("less than the period");
    &BYTES[start..start + length.min(SLICE_MAX)]
}

/// What is expected next on a session.
#[derive(Debug, Clone)]
pub(crate) struct Check {
    position: u64,
    pub(crate) left: u64,
}

impl Check {
    /// Expects `length` bytes from `position` on.
    pub(crate) fn new(position: u64, length: u64) -> Self {
        Self { position, left: length }
    }

    /// Compares what came with what was expected.
    pub(crate) fn take(&mut self, mut bytes: &[u8]) -> Result<()> {
        ensure!(
            bytes.len() as u64 <= self.left,
            "{} bytes too many",
            bytes.len() as u64 - self.left
        );
        while !bytes.is_empty() {
            let expected = slice(self.position, bytes.len());
            let (now, rest) = bytes.split_at(expected.len());
            ensure!(now == expected, "wrong bytes near {}", self.position);
            self.position += now.len() as u64;
            self.left -= now.len() as u64;
            bytes = rest;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_noticed() {
        let sent: Vec<u8> = [slice(9, 5000), slice(5009, 5000)].concat();
        let verdict = |bytes: &[u8]| {
            let mut check = Check::new(9, 10_000);
            check.take(bytes).is_ok() && check.left == 0
        };
        assert!(verdict(&sent));
        let mut flipped = sent.clone();
        flipped[7777] ^= 1;
        assert!(!verdict(&flipped), "a bit flipped");
        assert!(!verdict(&sent[..9999]), "a byte lost at the end");
        assert!(!verdict(&[&sent[..4000], &sent[4001..]].concat()), "a byte lost inside");
        assert!(!verdict(&[&sent[..], &[0]].concat()), "a byte too many");
        let mut moved = sent.clone();
        moved.swap(100, 5100);
        assert!(!verdict(&moved), "bytes moved");
    }
}
