//! The buffers that bytes pass through, lent from a pool of the thread.
//!
//! A session holds one per direction while bytes are pending and none when it is idle.

use std::alloc::{Layout, handle_alloc_error};
use std::cell::RefCell;
use std::io;
use std::ops::{Deref, DerefMut, Range};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use arrayvec::ArrayVec;
use memmap2::MmapMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::saved::Invalid;

/// The size of a buffer, bytes. Just below two segments of the loopback device (65,483 each): a frame that is longer
/// than a segment by its header alone wakes its receiver twice, at nearly double the cost. With a buffer of one
/// segment, data that is written 64 KiB at a time would leave a small remainder, for a frame of its own.
pub(crate) const SIZE: usize = 130_900;

/// The size of a buffer where memory is scarce, bytes.
pub(crate) const SMALL_SIZE: usize = 8 * 1024;

/// How many ranges of a buffer are written by one `writev(2)`.
const PIECES: usize = 16;

/// Payload shorter than this, in bytes, is cheaper to copy behind the piece before it than to write as a piece of its own.
const SMALL: usize = 1024;

/// How many unused buffers a thread keeps.
const POOLED: usize = 32;

thread_local! {
    #[expect(clippy::vec_box, reason = "a buffer moves between pool and lease as one pointer")]
    static POOL: RefCell<Vec<Box<Buffer>>> = const { RefCell::new(Vec::new()) };
}

/// Memory, and the ranges of it that are to be written out.
pub(crate) struct Buffer {
    /// Mapped, not allocated: when many slow readers are gone, their memory goes back to the system, and not into the
    /// allocator's heap.
    pub(crate) bytes: MmapMut,
    /// The ranges to be written out, in ascending order, none of them empty.
    pieces: ArrayVec<Range<usize>, PIECES>,
}

impl Buffer {
    fn new(size: usize) -> Box<Self> {
        let no_memory = |_| handle_alloc_error(Layout::new::<[u8; SIZE]>());
        let bytes = MmapMut::map_anon(size).unwrap_or_else(no_memory);
        Box::new(Self { bytes, pieces: ArrayVec::new() })
    }

    /// How many bytes it has room for.
    pub(crate) fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Marks a range behind those marked before to be written out. A small one, or one too many,
    /// is moved to the end of its predecessor.
    pub(crate) fn push(&mut self, piece: Range<usize>) {
        let is_small = piece.len() < SMALL || self.pieces.is_full();
        match self.pieces.last_mut() {
            Some(last) if is_small || last.end == piece.start => {
                let end = last.end + piece.len();
                if last.end != piece.start {
                    self.bytes.copy_within(piece, last.end);
                }
                last.end = end;
            }
            _ => self.pieces.push(piece),
        }
    }

    /// Where the last marked range ends: from here on the memory is free.
    pub(crate) fn end(&self) -> usize {
        self.pieces.last().map_or(0, |piece| piece.end)
    }

    /// How many bytes are left to be written out.
    pub(crate) fn left(&self) -> usize {
        self.pieces.iter().map(ExactSizeIterator::len).sum()
    }

    /// What is left to be written out.
    pub(crate) fn left_bytes(&self) -> Vec<u8> {
        self.pieces.iter().flat_map(|piece| &self.bytes[piece.clone()]).copied().collect()
    }

    /// Whether nothing is left to be written out.
    pub(crate) fn is_done(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Reads once from `source` into the memory from `start` on. Returns how much, 0 at its end.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut (impl AsyncRead + Unpin),
        start: usize,
    ) -> Poll<io::Result<usize>> {
        let mut room = ReadBuf::new(&mut self.bytes[start..]);
        ready!(Pin::new(source).poll_read(cx, &mut room))?;
        Poll::Ready(Ok(room.filled().len()))
    }

    /// Writes what is marked to `sink`, and flushes it. Ready: nothing is left.
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        while !self.pieces.is_empty() {
            let written = match self.pieces.as_slice() {
                [piece] => Pin::new(&mut *sink).poll_write(cx, &self.bytes[piece.clone()]),
                pieces => {
                    let slices: ArrayVec<_, PIECES> = pieces
                        .iter()
                        .map(|piece| io::IoSlice::new(&self.bytes[piece.clone()]))
                        .collect();
                    Pin::new(&mut *sink).poll_write_vectored(cx, &slices)
                }
            };
            match ready!(written)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.advance(written),
            }
        }
        Pin::new(sink).poll_flush(cx)
    }

    fn advance(&mut self, mut written: usize) {
        let mut whole = 0;
        for piece in &mut self.pieces {
            if written < piece.len() {
                piece.start += written;
                break;
            }
            written -= piece.len();
            whole += 1;
        }
        self.pieces.drain(..whole);
    }
}

/// A buffer lent from the thread's pool, and given back when this is dropped.
pub(crate) struct Lease(Option<Box<Buffer>>);

impl Lease {
    /// A buffer with nothing marked; what its memory holds is undefined.
    pub(crate) fn take() -> Self {
        let pooled = POOL.with_borrow_mut(Vec::pop);
        Self(Some(pooled.unwrap_or_else(|| Buffer::new(SIZE))))
    }

    /// The same, or where memory is scarce a small buffer, which goes back to the system when this is dropped.
    pub(crate) fn take_as(is_scarce: bool) -> Self {
        if is_scarce { Self(Some(Buffer::new(SMALL_SIZE))) } else { Self::take() }
    }
}

impl Lease {
    /// A buffer with these bytes to be written out, if it has room for them. `None` if there are no bytes: a session
    /// that has nothing to write owns no buffer.
    pub(crate) fn with(bytes: &[u8]) -> Result<Option<Self>, Invalid> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let mut lease = Self::take();
        let room = lease.bytes.get_mut(..bytes.len());
        room.ok_or_else(|| Invalid("more bytes wait than a buffer has".to_owned()))?
            .copy_from_slice(bytes);
        lease.push(0..bytes.len());
        Ok(Some(lease))
    }
}

impl Deref for Lease {
    type Target = Buffer;

    fn deref(&self) -> &Buffer {
        self.0.as_ref().expect("only drop() takes it")
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut Buffer {
        self.0.as_mut().expect("only drop() takes it")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(mut buffer) = self.0.take() else { return };
        if buffer.size() < SIZE {
            return;
        }
        buffer.pieces.clear();
        // A thread that is ending has no pool any more; the buffer is freed then.
        let _ = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            if pool.len() < POOLED {
                pool.push(buffer);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    /// A sink that takes at most so many bytes a time.
    struct Dribble(usize, Vec<u8>);

    impl AsyncWrite for Dribble {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            let taken = bytes.len().min(self.0);
            self.1.extend(&bytes[..taken]);
            Poll::Ready(Ok(taken))
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            slices: &[io::IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
            let taken = bytes.len().min(self.0);
            self.1.extend(&bytes[..taken]);
            Poll::Ready(Ok(taken))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn b3_pieces_of_every_size_come_out_whole_and_in_order() {
        for size in [1, 10, SMALL - 1, SMALL, SMALL + 1, 5000] {
            for step in [1000, 4096, usize::MAX] {
                let mut lease = Lease::take();
                let mut expected = Vec::new();
                let mut at = 3;
                while at + size <= SIZE {
                    let filling = u8::try_from(at % 251).unwrap();
                    lease.bytes[at..at + size].fill(filling);
                    expected.extend(vec![filling; size]);
                    lease.push(at..at + size);
                    at += size + 6;
                }
                let mut sink = Dribble(step, Vec::new());
                poll_fn(|cx| lease.poll_write(cx, &mut sink)).await.unwrap();
                assert!(sink.1 == expected, "size {size}, step {step}");
            }
        }
    }

    #[test]
    fn p6_a_lease_goes_back_to_its_pool_clean() {
        let mut lease = Lease::take();
        lease.push(5..10);
        let memory = lease.bytes.as_ptr();
        drop(lease);
        let again = Lease::take();
        assert_eq!(again.bytes.as_ptr(), memory);
        assert!(again.is_done());
        assert_ne!(Lease::take().bytes.as_ptr(), memory);
    }
}
