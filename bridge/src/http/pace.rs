//! How long a connection may take before it is a session (T6), and the traffic that tells.
//!
//! Knows clocks and counts of bytes, and of HTTP where a head ends.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::stream::Stream;

/// How long a kept-alive connection may be idle between two requests (T6), and how long its client may
/// take nothing of an answer.
const IDLE: Duration = Duration::from_secs(60);

/// How often the kernel is asked what such a client has taken. It takes more from us only when a third
/// of its buffer has gone, which may be a megabyte: that is no measure of a slow reader.
const LOOK: Duration = Duration::from_secs(10);

/// What has passed over a connection.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    /// Bytes read.
    heard: AtomicU64,
    /// Bytes that the kernel took.
    sent: AtomicU64,
    /// Whether there are more to send than it takes now.
    is_stuck: AtomicBool,
    /// Requests that were read and are or will be answered.
    requests: AtomicU64,
    /// Bytes that had been read when the last of them was.
    asked: AtomicU64,
    /// How many bytes the client's kernel had not taken when that was seen last.
    unsent: AtomicU64,
}

impl Traffic {
    /// Counts a request.
    pub(super) fn ask(&self) {
        self.asked.store(self.heard.load(Ordering::Relaxed), Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// How many of the bytes sent the client's kernel has not taken yet.
    pub(super) fn under_way(&self) -> u64 {
        self.unsent.load(Ordering::Relaxed)
    }
}

/// When a connection must have gone on.
pub(super) struct Deadline {
    head_timeout: Duration,
    phase: Phase,
    /// How often there was a request.
    requests: u64,
    sleep: Pin<Box<Sleep>>,
    /// When it must be over, whatever happens.
    last: Option<Instant>,
}

/// What a connection is about.
enum Phase {
    /// A head is under way. Its bytes buy no time.
    Head { until: Instant },
    /// A request is being answered, or the next one has not begun. Bytes sent buy time, and bytes
    /// that the client takes.
    Answer {
        heard: u64,
        sent: u64,
        /// How many of them the client had taken when that was last asked, after the last was sent.
        taken: Option<u64>,
        /// When that was.
        looked: Instant,
        /// When something was sent or taken last.
        since: Instant,
    },
}

impl Deadline {
    /// For a connection that began at `began`.
    pub(super) fn new(began: Instant, head_timeout: Duration) -> Self {
        let until = began + head_timeout;
        let (phase, sleep) = (Phase::Head { until }, Box::pin(sleep_until(until)));
        Self { head_timeout, phase, requests: 0, sleep, last: None }
    }

    /// Whether a request head is awaited for the first time, or has begun.
    pub(super) fn is_in_head(&self) -> bool {
        matches!(self.phase, Phase::Head { .. })
    }

    /// Allows for one head's time more, whatever the connection does with it.
    pub(super) fn hurry(&mut self) {
        self.last.get_or_insert(Instant::now() + self.head_timeout);
    }

    /// Ready when the time is over. `under_way` says how many of the bytes sent the client has not
    /// taken yet.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        traffic: &Traffic,
        mut under_way: impl FnMut() -> u64,
    ) -> Poll<()> {
        self.hear(traffic);
        loop {
            let due = self.due(traffic);
            // Time that is bought by the byte is looked at when the old time is over: setting a
            // timer for each would cost more.
            if due < self.sleep.deadline() {
                self.sleep.as_mut().reset(due);
            }
            ready!(self.sleep.as_mut().poll(cx));
            let now = Instant::now();
            if traffic.is_stuck.load(Ordering::Relaxed) {
                self.look(now, &mut under_way);
            }
            if self.end() <= now {
                return Poll::Ready(());
            }
            let due = self.due(traffic);
            self.sleep.as_mut().reset(due);
        }
    }

    fn hear(&mut self, traffic: &Traffic) {
        let now = Instant::now();
        let requests = traffic.requests.load(Ordering::Relaxed);
        let (heard, sent) =
            (traffic.heard.load(Ordering::Relaxed), traffic.sent.load(Ordering::Relaxed));
        if requests != self.requests {
            self.requests = requests;
            // The next head may have begun since.
            let heard = traffic.asked.load(Ordering::Relaxed);
            self.phase = Phase::Answer { heard, sent, taken: None, looked: now, since: now };
        }
        if let Phase::Answer { heard: before, sent: sent_before, .. } = self.phase {
            if before != heard {
                self.phase = Phase::Head { until: now + self.head_timeout };
            } else if sent_before != sent {
                self.phase = Phase::Answer { heard, sent, taken: None, looked: now, since: now };
            }
        }
    }

    /// Whether the client has taken something since the last look, and so has time again.
    fn look(&mut self, now: Instant, under_way: &mut impl FnMut() -> u64) {
        let Phase::Answer { sent, taken, looked, since, .. } = &mut self.phase else { return };
        if now < *looked + LOOK {
            return;
        }
        let before = taken.replace(sent.saturating_sub(under_way()));
        *looked = now;
        if before.is_some() && before < *taken {
            *since = now;
        }
    }

    /// When there is something to do.
    fn due(&self, traffic: &Traffic) -> Instant {
        match self.phase {
            Phase::Answer { looked, .. } if traffic.is_stuck.load(Ordering::Relaxed) => {
                self.end().min(looked + LOOK)
            }
            _ => self.end(),
        }
    }

    /// When the time is over.
    fn end(&self) -> Instant {
        let end = match self.phase {
            Phase::Head { until } => until,
            Phase::Answer { since, .. } => since + IDLE,
        };
        self.last.map_or(end, |last| end.min(last))
    }
}

/// A connection whose traffic is counted. What comes behind a head is read when it is asked for
/// again, so that a next request counts as begun, and not as an idle connection (T6).
pub(super) struct Metered<'a> {
    pub(super) io: Stream,
    pub(super) traffic: &'a Traffic,
    heads: Heads,
}

impl<'a> Metered<'a> {
    pub(super) fn new(io: Stream, traffic: &'a Traffic) -> Self {
        Self { io, traffic, heads: Heads::default() }
    }

    fn count(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Ready(Ok(length)) => {
                self.traffic.sent.fetch_add(*length as u64, Ordering::Relaxed);
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => {
                self.traffic.is_stuck.store(true, Ordering::Relaxed);
                self.traffic.unsent.store(self.io.unsent(), Ordering::Relaxed);
            }
        }
        written
    }
}

impl AsyncRead for Metered<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = room.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, room);
        if let Some(end) = self.heads.end(&room.filled()[before..]) {
            let behind = Bytes::copy_from_slice(&room.filled()[before + end..]);
            self.io.unread(behind);
            room.set_filled(before + end);
        }
        let length = room.filled().len() - before;
        self.traffic.heard.fetch_add(length as u64, Ordering::Relaxed);
        read
    }
}

impl AsyncWrite for Metered<'_> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.count(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        self.count(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    /// hyper flushes when it has handed over all that it had.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.traffic.is_stuck.store(false, Ordering::Relaxed);
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Finds the ends of heads in what is read piece by piece. What it takes for one in a body is none, and
/// costs another read.
#[derive(Debug, Default)]
struct Heads {
    /// Whether the line that is being read has something in it.
    is_in_line: bool,
    /// Whether there was such a line before, so that an empty one is the end.
    is_in_head: bool,
}

impl Heads {
    /// Where in `bytes` a head ends that has something behind it.
    fn end(&mut self, bytes: &[u8]) -> Option<usize> {
        for (at, byte) in bytes.iter().enumerate() {
            match byte {
                b'\n' if self.is_in_line => {
                    self.is_in_line = false;
                    self.is_in_head = true;
                }
                b'\n' if self.is_in_head => {
                    self.is_in_head = false;
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
    use super::*;
    use std::future::poll_fn;

    const HEAD: Duration = Duration::from_secs(10);

    fn traffic(requests: u64, heard: u64, sent: u64, is_stuck: bool) -> Traffic {
        Traffic {
            heard: heard.into(),
            sent: sent.into(),
            is_stuck: is_stuck.into(),
            requests: requests.into(),
            asked: heard.into(),
            ..Traffic::default()
        }
    }

    /// How many seconds it takes until the deadline has passed, with this traffic.
    async fn passes(deadline: &mut Deadline, traffic: Traffic) -> u64 {
        let began = Instant::now();
        poll_fn(|cx| deadline.poll(cx, &traffic, || 0)).await;
        began.elapsed().as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn t6_ten_seconds_a_head_and_sixty_between_requests() {
        let mut deadline = Deadline::new(Instant::now(), HEAD);
        assert_eq!(passes(&mut deadline, traffic(0, 0, 0, false)).await, 10, "before a byte");
        let mut deadline = Deadline::new(Instant::now(), HEAD);
        assert_eq!(passes(&mut deadline, traffic(0, 5, 0, false)).await, 10, "bytes buy no time");
        let mut deadline = Deadline::new(Instant::now(), HEAD);
        assert_eq!(passes(&mut deadline, traffic(1, 100, 9, false)).await, 60, "after an answer");
        assert_eq!(passes(&mut deadline, traffic(1, 101, 9, false)).await, 10, "the next head");
        assert!(deadline.is_in_head());
        assert_eq!(passes(&mut deadline, traffic(2, 200, 9, false)).await, 60, "the next answer");
    }

    #[tokio::test(start_paused = true)]
    async fn t6_a_long_answer_has_time_as_long_as_the_kernel_takes_it() {
        let mut deadline = Deadline::new(Instant::now(), HEAD);
        for sent in 0..100 {
            let poll = poll_fn(|cx| deadline.poll(cx, &traffic(1, 100, sent, true), || sent));
            let time = Duration::from_secs(59);
            assert!(tokio::time::timeout(time, poll).await.is_err(), "{sent} bytes sent");
        }
        let began = Instant::now();
        poll_fn(|cx| deadline.poll(cx, &traffic(1, 100, 99, true), || 99)).await;
        assert_eq!(began.elapsed().as_secs(), 1, "it takes no more");
    }

    #[tokio::test(start_paused = true)]
    async fn f17_a_long_answer_has_time_as_long_as_the_client_takes_it_from_the_kernel() {
        let mut deadline = Deadline::new(Instant::now(), HEAD);
        let began = Instant::now();
        // Much is under way. A byte goes every 40 seconds, a hundred times.
        let under_way = || 1000 - (began.elapsed().as_secs() / 40).min(100);
        let sent = traffic(1, 100, 1000, true);
        poll_fn(|cx| deadline.poll(cx, &sent, under_way)).await;
        assert_eq!(began.elapsed().as_secs(), 4000 + 60);
        let mut deadline = Deadline::new(Instant::now(), HEAD);
        assert_eq!(passes(&mut deadline, sent).await, 60, "one that takes nothing");
    }

    #[test]
    fn f16_what_is_behind_a_head_is_told_from_it_however_it_is_split() {
        for head in ["GET / HTTP/1.1\r\nA: b\r\n\r\n", "\r\n\nGET / HTTP/1.1\nA: b\n\n"] {
            let both = format!("{head}GE");
            for split in 0..both.len() {
                let (mut heads, mut found) = (Heads::default(), None);
                for (start, piece) in [(0, &both[..split]), (split, &both[split..])] {
                    found = found.or(heads.end(piece.as_bytes()).map(|end| start + end));
                }
                let expected = (split != head.len()).then_some(head.len());
                assert_eq!(found, expected, "{head:?} {split}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn b8_a_connection_in_a_hurry_cannot_buy_time() {
        let mut deadline = Deadline::new(Instant::now(), HEAD);
        assert!(deadline.is_in_head());
        let mut next = traffic(1, 100, 0, true);
        let first = tokio::time::timeout(
            Duration::from_secs(50),
            poll_fn(|cx| deadline.poll(cx, &next, || 0)),
        );
        assert!(first.await.is_err());
        deadline.hurry();
        *next.sent.get_mut() = 5;
        assert_eq!(passes(&mut deadline, next).await, 10);
    }
}
