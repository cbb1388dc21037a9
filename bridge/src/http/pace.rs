//! How long a connection may take before it is a session (T6), and the traffic that tells.
//!
//! Knows clocks and counts of bytes, no HTTP.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::stream::Stream;

/// How long a kept-alive connection may be idle between two requests (T6).
const IDLE: Duration = Duration::from_secs(60);

/// How long a client may take nothing of an answer. The kernel says that there is room again when a
/// third of its buffer has gone, which may be a megabyte: a slow reader needs more than [`IDLE`].
const STALL: Duration = Duration::from_secs(300);

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
    pub(super) requests: AtomicU64,
}

/// When a connection must have gone on.
pub(super) struct Deadline {
    head_timeout: Duration,
    phase: Phase,
    /// How often there was a request.
    requests: u64,
    sleep: Pin<Box<Sleep>>,
    /// When it must be over, whatever happens.
    end: Option<Instant>,
}

/// What a connection is about.
enum Phase {
    /// A head is under way. Its bytes buy no time.
    Head { until: Instant },
    /// A request is being answered, or the next one has not begun. Bytes sent buy time.
    Answer { heard: u64, sent: u64, since: Instant },
}

impl Deadline {
    /// For a connection that began at `began`.
    pub(super) fn new(began: Instant, head_timeout: Duration) -> Self {
        let until = began + head_timeout;
        let (phase, sleep) = (Phase::Head { until }, Box::pin(sleep_until(until)));
        Self { head_timeout, phase, requests: 0, sleep, end: None }
    }

    /// Whether a request head is awaited for the first time, or has begun.
    pub(super) fn is_in_head(&self) -> bool {
        matches!(self.phase, Phase::Head { .. })
    }

    /// Allows for one head's time more, whatever the connection does with it.
    pub(super) fn hurry(&mut self) {
        self.end.get_or_insert(Instant::now() + self.head_timeout);
    }

    /// Ready when the time is over.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, traffic: &Traffic) -> Poll<()> {
        self.look(traffic);
        loop {
            let due = self.due(traffic);
            // Time that is bought by the byte is looked at when the old time is over: setting a
            // timer for each would cost more.
            if due < self.sleep.deadline() {
                self.sleep.as_mut().reset(due);
            }
            ready!(self.sleep.as_mut().poll(cx));
            if due <= Instant::now() {
                return Poll::Ready(());
            }
            self.sleep.as_mut().reset(due);
        }
    }

    fn look(&mut self, traffic: &Traffic) {
        let now = Instant::now();
        let requests = traffic.requests.load(Ordering::Relaxed);
        let (heard, sent) =
            (traffic.heard.load(Ordering::Relaxed), traffic.sent.load(Ordering::Relaxed));
        if requests != self.requests {
            self.requests = requests;
            self.phase = Phase::Answer { heard, sent, since: now };
        } else if let Phase::Answer { heard: before, sent: sent_before, since } = &mut self.phase {
            if *before != heard {
                self.phase = Phase::Head { until: now + self.head_timeout };
            } else if *sent_before != sent {
                (*sent_before, *since) = (sent, now);
            }
        }
    }

    fn due(&self, traffic: &Traffic) -> Instant {
        let due = match self.phase {
            Phase::Head { until } => until,
            Phase::Answer { since, .. } if traffic.is_stuck.load(Ordering::Relaxed) => {
                since + STALL
            }
            Phase::Answer { since, .. } => since + IDLE,
        };
        self.end.map_or(due, |end| due.min(end))
    }
}

/// A connection whose traffic is counted.
pub(super) struct Metered<'a> {
    pub(super) io: Stream,
    pub(super) traffic: &'a Traffic,
}

impl Metered<'_> {
    fn count(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Ready(Ok(length)) => {
                self.traffic.sent.fetch_add(*length as u64, Ordering::Relaxed);
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.traffic.is_stuck.store(true, Ordering::Relaxed),
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
        }
    }

    /// How many seconds it takes until the deadline has passed, with this traffic.
    async fn passes(deadline: &mut Deadline, traffic: Traffic) -> u64 {
        let began = Instant::now();
        poll_fn(|cx| deadline.poll(cx, &traffic)).await;
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
    async fn t6_a_long_answer_has_time_as_long_as_the_client_reads() {
        let mut deadline = Deadline::new(Instant::now(), HEAD);
        for sent in 0..100 {
            let poll = poll_fn(|cx| deadline.poll(cx, &traffic(1, 100, sent, true)));
            let time = Duration::from_secs(299);
            assert!(tokio::time::timeout(time, poll).await.is_err(), "{sent} bytes sent");
        }
        assert_eq!(passes(&mut deadline, traffic(1, 100, 99, true)).await, 1, "it reads no more");
    }

    #[tokio::test(start_paused = true)]
    async fn b8_a_connection_in_a_hurry_cannot_buy_time() {
        let mut deadline = Deadline::new(Instant::now(), HEAD);
        assert!(deadline.is_in_head());
        let mut next = traffic(1, 100, 0, true);
        let first =
            tokio::time::timeout(Duration::from_secs(50), poll_fn(|cx| deadline.poll(cx, &next)));
        assert!(first.await.is_err());
        deadline.hurry();
        *next.sent.get_mut() = 5;
        assert_eq!(passes(&mut deadline, next).await, 10);
    }
}
