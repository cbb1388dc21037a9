//! How long a connection may take before it is a session (T6).
//!
//! Knows clocks, and what was counted of the connection.

use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use super::idle::IDLE;
use super::metered::Activity;

/// How often the kernel is asked what such a client has taken. The kernel takes more from us only when a third of its buffer is
/// free again, which may be a megabyte: by that a slow reader cannot be told from one that takes nothing.
const LOOK: Duration = Duration::from_secs(10);

/// How often the kernel is asked when it has a whole answer: an ordinary client has taken that by the first time.
const SOON: Duration = Duration::from_secs(1);

/// The deadline by which a connection must have gone on.
pub(super) struct Deadline {
    head_timeout: Duration,
    phase: Phase,
    /// How many requests had been counted at the last look.
    requests: u64,
    sleep: Pin<Box<Sleep>>,
    /// When the connection must be over, whatever happens.
    last: Option<Instant>,
}

/// What a connection is doing.
enum Phase {
    /// A request head is under way. Its bytes do not put off the deadline.
    Head { until: Instant },
    /// A request is being answered, or the next one has not begun. Each byte that is sent, or that the client takes, puts off the
    /// deadline.
    Answer {
        read: u64,
        sent: u64,
        /// How many of the sent bytes the client had taken when the kernel was last asked; none if it was not asked since bytes
        /// were last sent.
        taken: Option<u64>,
        /// When the kernel was last asked, or bytes were last sent.
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

    /// Ends the connection when the time for one more head is over, whatever the connection does with it.
    pub(super) fn hurry(&mut self) {
        self.last.get_or_insert(Instant::now() + self.head_timeout);
    }

    /// Ready when the time is over. `under_way` says how many of the bytes sent the client has not
    /// taken yet.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        activity: &Activity,
        mut under_way: impl FnMut() -> u64,
    ) -> Poll<()> {
        self.update(activity);
        loop {
            let due = self.due(activity);
            // That the deadline was put off is noticed when the old one has passed: setting the timer for each byte would cost
            // more.
            if due < self.sleep.deadline() {
                self.sleep.as_mut().reset(due);
            }
            ready!(self.sleep.as_mut().poll(cx));
            let now = Instant::now();
            if let Some(every) = look_every(activity) {
                self.look(now, every, &mut under_way);
            }
            if self.end() <= now {
                return Poll::Ready(());
            }
            let due = self.due(activity);
            self.sleep.as_mut().reset(due);
        }
    }

    fn update(&mut self, activity: &Activity) {
        let now = Instant::now();
        let requests = activity.requests.load(Ordering::Relaxed);
        let (read, sent) =
            (activity.read.load(Ordering::Relaxed), activity.sent.load(Ordering::Relaxed));
        if requests != self.requests {
            self.requests = requests;
            // The next head may have begun since.
            let read = activity.read_at_request.load(Ordering::Relaxed);
            self.phase = Phase::Answer { read, sent, taken: None, looked: now, since: now };
        }
        if let Phase::Answer { read: before, sent: sent_before, .. } = self.phase {
            if before != read {
                self.phase = Phase::Head { until: now + self.head_timeout };
            } else if sent_before != sent {
                self.phase = Phase::Answer { read, sent, taken: None, looked: now, since: now };
            }
        }
    }

    /// Asks what the client has taken. If that is more than at the last look, it has the whole time again.
    fn look(&mut self, now: Instant, every: Duration, under_way: &mut impl FnMut() -> u64) {
        let Phase::Answer { sent, taken, looked, since, .. } = &mut self.phase else { return };
        if now < *looked + every {
            return;
        }
        let before = taken.replace(sent.saturating_sub(under_way()));
        *looked = now;
        if before.is_some() && before < *taken {
            *since = now;
        }
    }

    /// When the timer is due.
    fn due(&self, activity: &Activity) -> Instant {
        match (&self.phase, look_every(activity)) {
            (Phase::Answer { looked, .. }, Some(every)) => self.end().min(*looked + every),
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

/// How often the kernel is asked what the client has taken, if the client has something to take.
fn look_every(activity: &Activity) -> Option<Duration> {
    if activity.is_stuck.load(Ordering::Relaxed) {
        return Some(LOOK);
    }
    activity.is_untaken.load(Ordering::Relaxed).then_some(SOON)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    const HEAD: Duration = Duration::from_secs(10);

    fn activity(requests: u64, read: u64, sent: u64, is_stuck: bool) -> Activity {
        Activity {
            read: read.into(),
            sent: sent.into(),
            is_stuck: is_stuck.into(),
            requests: requests.into(),
            read_at_request: read.into(),
            ..Activity::default()
        }
    }

    /// How many seconds it takes until the deadline has passed, with this activity.
    async fn passes(deadline: &mut Deadline, activity: Activity) -> u64 {
        let began = Instant::now();
        poll_fn(|cx| deadline.poll(cx, &activity, || 0)).await;
        began.elapsed().as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn t6_ten_seconds_a_head_and_sixty_between_requests() {
        let mut deadline = Deadline::new(Instant::now(), HEAD);
        assert_eq!(passes(&mut deadline, activity(0, 0, 0, false)).await, 10, "before a byte");
        let mut deadline = Deadline::new(Instant::now(), HEAD);
        assert_eq!(passes(&mut deadline, activity(0, 5, 0, false)).await, 10, "bytes buy no time");
        let mut deadline = Deadline::new(Instant::now(), HEAD);
        assert_eq!(passes(&mut deadline, activity(1, 100, 9, false)).await, 60, "after an answer");
        assert_eq!(passes(&mut deadline, activity(1, 101, 9, false)).await, 10, "the next head");
        assert!(deadline.is_in_head());
        assert_eq!(passes(&mut deadline, activity(2, 200, 9, false)).await, 60, "the next answer");
    }

    #[tokio::test(start_paused = true)]
    async fn t6_a_long_answer_has_time_as_long_as_the_kernel_takes_it() {
        let mut deadline = Deadline::new(Instant::now(), HEAD);
        for sent in 0..100 {
            let poll = poll_fn(|cx| deadline.poll(cx, &activity(1, 100, sent, true), || sent));
            let time = Duration::from_secs(59);
            assert!(tokio::time::timeout(time, poll).await.is_err(), "{sent} bytes sent");
        }
        let began = Instant::now();
        poll_fn(|cx| deadline.poll(cx, &activity(1, 100, 99, true), || 99)).await;
        assert_eq!(began.elapsed().as_secs(), 1, "it takes no more");
    }

    #[tokio::test(start_paused = true)]
    async fn f17_a_long_answer_has_time_as_long_as_the_client_takes_it_from_the_kernel() {
        let mut deadline = Deadline::new(Instant::now(), HEAD);
        let began = Instant::now();
        // Much is under way. A byte goes every 40 seconds, a hundred times.
        let under_way = || 1000 - (began.elapsed().as_secs() / 40).min(100);
        let sent = activity(1, 100, 1000, true);
        poll_fn(|cx| deadline.poll(cx, &sent, under_way)).await;
        assert_eq!(began.elapsed().as_secs(), 4000 + 60);
        let mut deadline = Deadline::new(Instant::now(), HEAD);
        assert_eq!(passes(&mut deadline, sent).await, 60, "one that takes nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn b8_a_connection_in_a_hurry_cannot_buy_time() {
        let mut deadline = Deadline::new(Instant::now(), HEAD);
        assert!(deadline.is_in_head());
        let mut next = activity(1, 100, 0, true);
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
