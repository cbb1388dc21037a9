//! A connection whose activity is counted: the counts decide how long it may still take.
//!
//! Knows bytes, and of HTTP where a head ends.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::first::{ENCRYPTED, HEAD_MAX, PARTIAL_HEAD_MAX};
use crate::lobby::Guest;
use crate::stream::Stream;

/// How many bytes we keep ourselves of an answer that the client does not take, unless it is longer and
/// [in memory](Activity::at_hand) as a whole: pieces of a file, in three places.
const ANSWER: usize = 64 * 1024;

/// How many bytes hyper keeps for a connection, besides what it has read of a head.
const KEPT: usize = 20 * 1024;

/// How many unsent bytes of an answer the kernel may have without their being counted: asking is not worth it for fewer.
const UNCOUNTED_MAX: u64 = 64 * 1024;

/// What has passed over a connection.
#[derive(Debug, Default)]
pub(super) struct Activity {
    /// Bytes read.
    pub(super) read: AtomicU64,
    /// Bytes that the kernel took.
    pub(super) sent: AtomicU64,
    /// Whether there is more to send than the kernel takes now.
    pub(super) is_stuck: AtomicBool,
    /// Whether the kernel has a whole answer, and still keeps more than [`UNCOUNTED_MAX`] bytes that the client has not taken.
    pub(super) is_untaken: AtomicBool,
    /// How many bytes of an answer were in memory as a whole when hyper got it. It keeps them until the last one is written.
    pub(super) at_hand: AtomicUsize,
    /// Whether there was no memory for what is read.
    pub(super) lacks_memory: AtomicBool,
    /// Requests that were read and are or will be answered.
    pub(super) requests: AtomicU64,
    /// How many bytes had been read when the last request was.
    pub(super) read_at_request: AtomicU64,
    /// How many of the bytes sent the client's kernel had not taken when our kernel was last asked.
    pub(super) unsent: AtomicU64,
}

impl Activity {
    /// Counts a request.
    pub(super) fn count_request(&self) {
        self.read_at_request.store(self.read.load(Ordering::Relaxed), Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// How many of the bytes sent the client's kernel has not taken yet.
    pub(super) fn under_way(&self) -> u64 {
        self.unsent.load(Ordering::Relaxed)
    }
}

/// A connection whose activity is counted. Bytes that come behind a head are kept back until hyper reads again, so that the next
/// request counts as begun, and the connection not as idle (T6).
pub(super) struct Metered<'a> {
    io: Stream,
    pub(super) activity: &'a Activity,
    heads: Heads,
    /// The connection's entry in the lobby, where the memory that it keeps is counted: more while a head is incomplete, or the
    /// client does not take its answer.
    guest: &'a Guest,
    /// How many bytes of that answer wait, here and in the kernel.
    answer: usize,
    /// How much was sent when the kernel was asked last.
    sent_before: u64,
    has_unsent_limit: bool,
    /// Whether a long head is incomplete, and the rest is waited for.
    is_long: bool,
}

impl<'a> Metered<'a> {
    pub(super) fn new(io: Stream, activity: &'a Activity, guest: &'a Guest) -> Self {
        let heads = Heads::default();
        let metered = Self {
            io,
            activity,
            heads,
            guest,
            answer: 0,
            sent_before: 0,
            has_unsent_limit: false,
            is_long: false,
        };
        metered.hold();
        metered
    }

    /// Counts what is kept now for the budget. False: there was no memory for that.
    fn hold(&self) -> bool {
        let encrypted = if self.io.is_encrypted() { ENCRYPTED } else { 0 };
        // hyper reads no more than this of a head.
        let head = self.heads.length.min(HEAD_MAX);
        self.guest.keeps(encrypted + KEPT + head + self.answer)
    }

    /// Tells the lobby when a long head is incomplete and the rest is waited for, and when that is over.
    fn note_length(&mut self, waits: bool) {
        if self.heads.length <= PARTIAL_HEAD_MAX {
            if std::mem::take(&mut self.is_long) {
                self.guest.ends_long_head();
            }
        } else if waits {
            self.is_long = true;
            self.guest.begins_long_head();
        }
    }

    /// The connection below, with the kernel's buffering as usual.
    pub(super) fn into_stream(mut self) -> Stream {
        if self.has_unsent_limit {
            self.io.leg().limit_unsent(false);
        }
        if self.is_long {
            self.guest.ends_long_head();
        }
        self.io
    }

    /// Asks the kernel how much of what was sent it still keeps, as the client has not taken it.
    fn ask_kernel(&mut self) {
        let unsent = self.io.unsent();
        self.activity.unsent.store(unsent, Ordering::Relaxed);
        self.activity.is_untaken.store(unsent > UNCOUNTED_MAX, Ordering::Relaxed);
        self.answer = if unsent > UNCOUNTED_MAX { bytes(unsent) } else { 0 };
        self.hold();
    }

    /// Has the kernel keep less of what is written while memory is scarce.
    fn spare(&mut self) {
        let is_scarce = self.guest.is_memory_tight();
        if is_scarce != self.has_unsent_limit {
            self.has_unsent_limit = is_scarce;
            self.io.leg().limit_unsent(is_scarce);
        }
    }

    fn count(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Ready(Ok(length)) => {
                self.activity.sent.fetch_add(*length as u64, Ordering::Relaxed);
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.wait_for_kernel(),
        }
        written
    }

    /// Notes that the kernel takes no more for now, and counts what is kept for the client until it does.
    fn wait_for_kernel(&mut self) {
        self.activity.is_stuck.store(true, Ordering::Relaxed);
        let unsent = self.io.unsent();
        self.activity.unsent.store(unsent, Ordering::Relaxed);
        // Asked anew each time, as a slow client takes some of it: no more is to be counted than the kernel still has.
        let waiting = ANSWER.max(self.activity.at_hand.load(Ordering::Relaxed));
        self.answer = waiting + self.io.kept_by_tls(waiting) + bytes(unsent);
        self.hold();
    }
}

fn bytes(length: u64) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX / 4)
}

impl AsyncRead for Metered<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = room.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, room);
        if self.answer > 0 && !self.activity.is_stuck.load(Ordering::Relaxed) {
            self.ask_kernel();
        }
        if let Some(end) = self.heads.end(&room.filled()[before..]) {
            let behind = Bytes::copy_from_slice(&room.filled()[before + end..]);
            self.io.put_back(behind);
            room.set_filled(before + end);
        }
        let length = room.filled().len() - before;
        self.activity.read.fetch_add(length as u64, Ordering::Relaxed);
        self.note_length(read.is_pending());
        if length > 0 && !self.hold() && self.heads.length > 0 {
            self.activity.lacks_memory.store(true, Ordering::Relaxed);
            return Poll::Ready(Err(io::ErrorKind::OutOfMemory.into()));
        }
        read
    }
}

impl AsyncWrite for Metered<'_> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.spare();
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.count(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.spare();
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        self.count(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    /// hyper flushes when it has handed over all that it had. Below it rustls may still have some, which the kernel did not take;
    /// then hyper flushes again at each poll.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.activity.at_hand.store(0, Ordering::Relaxed);
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        if flushed.is_pending() {
            self.wait_for_kernel();
            return flushed;
        }
        self.activity.is_stuck.store(false, Ordering::Relaxed);
        let sent = self.activity.sent.load(Ordering::Relaxed);
        // The kernel may keep megabytes of an answer, until the client takes them.
        if self.answer > 0 || sent - self.sent_before > UNCOUNTED_MAX {
            self.sent_before = sent;
            self.ask_kernel();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Finds the ends of heads in what is read piece by piece. In a body it may see an end that is none, which only costs another
/// read.
#[derive(Debug, Default)]
struct Heads {
    /// Whether the line that is being read has something in it.
    is_in_line: bool,
    /// Whether there was such a line before, so that an empty one ends the head.
    is_in_head: bool,
    /// How many bytes were read since the last head ended.
    length: usize,
}

impl Heads {
    /// Where in `bytes` a head ends, if bytes follow it.
    fn end(&mut self, bytes: &[u8]) -> Option<usize> {
        for (at, byte) in bytes.iter().enumerate() {
            self.length += 1;
            match byte {
                b'\n' if self.is_in_line => {
                    self.is_in_line = false;
                    self.is_in_head = true;
                }
                b'\n' if self.is_in_head => {
                    self.is_in_head = false;
                    self.length = 0;
                    if at + 1 < bytes.len() {
                        return Some(at + 1);
                    }
                }
                b'\n' | b'\r' => {}
                _ => self.is_in_line = true,
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::Arc;

    use tokio::io::AsyncReadExt;

    use super::*;
    use crate::budget::Budget;
    use crate::lobby::Lobby;
    use crate::stream::tests::encrypted;

    #[tokio::test]
    async fn l5_t6_what_tls_still_has_of_an_answer_is_not_sent_and_is_counted() {
        let (ours, mut theirs) = encrypted().await;
        let budget = Budget::new(1 << 20);
        let guest = Lobby::new(Arc::clone(&budget)).enter(None);
        let activity = Activity::default();
        let is_stuck = || activity.is_stuck.load(Ordering::Relaxed);
        let mut metered = Metered::new(ours, &activity, &guest);
        let used_before = budget.used();
        let answer = vec![0; 40_000];
        let mut left = &answer[..];
        poll_fn(|cx| {
            while !left.is_empty() {
                let Poll::Ready(written) = Pin::new(&mut metered).poll_write(cx, left) else {
                    panic!("TLS takes it all, {} bytes are left", left.len());
                };
                left = &left[written.unwrap()..];
            }
            assert!(Pin::new(&mut metered).poll_flush(cx).is_pending(), "the kernel has it all");
            Poll::Ready(())
        })
        .await;
        assert!(is_stuck(), "most of it has not left");
        assert!(
            budget.used() >= used_before + 2 * ANSWER,
            "{} bytes, {used_before} before",
            budget.used()
        );
        let mut taken = vec![0; answer.len()];
        let (flushed, read) = tokio::join!(
            poll_fn(|cx| Pin::new(&mut metered).poll_flush(cx)),
            theirs.read_exact(&mut taken),
        );
        flushed.and(read).unwrap();
        assert_eq!((is_stuck(), budget.used()), (false, used_before));
    }

    #[test]
    fn f16_what_is_behind_a_head_is_told_from_it_however_it_is_split() {
        for head in ["GET / HTTP/1.1\r\nA: b\r\n\r\n", "\r\n\nGET / HTTP/1.1\nA: b\n\n"] {
            let both = format!("{head}GE");
            for split in 0..both.len() {
                let (mut heads, mut found) = (Heads::default(), None);
                for (start, piece) in [(0, &both[..split]), (split, &both[split..])] {
                    let begun = if start < head.len() { start } else { 0 };
                    assert_eq!(heads.length, begun, "what is not whole is counted");
                    found = found.or(heads.end(piece.as_bytes()).map(|end| start + end));
                }
                let expected = (split != head.len()).then_some(head.len());
                assert_eq!(found, expected, "{head:?} {split}");
            }
        }
    }
}
