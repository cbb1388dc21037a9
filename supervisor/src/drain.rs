//! A drain (O1): no new session begins, and the open sessions have time to end. Counts them, and tells the log and
//! systemd how far the drain is. Must not know how a bridge or a program is ended. When that is done, [`Ending`]
//! decides for a bridge without a program, and the program's [state](crate::program::state) for one with a program.

use std::future::pending;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{sleep_until, timeout_at};
use tracing::info;

use crate::machine::progress::Progress;

/// How often systemd is told that the drain goes on, and for how long systemd is to wait from then on (EXTENSION). The
/// latter is longer, so that systemd does not kill us when the machine hangs for a moment.
const EVERY: Duration = Duration::from_secs(10);
const EXTENSION: Duration = Duration::from_secs(30);
/// How soon systemd is told that sessions have ended.
const SOON: Duration = Duration::from_secs(1);
/// How long our end takes after the drain, besides the program's own time: connections that do not close are cut off, and
/// processes that do not die are given up, each after five seconds.
const END: Duration = Duration::from_secs(15);

/// The drain of one bridge, which may have begun.
#[derive(Debug)]
pub(crate) struct Drain {
    /// How long sessions may go on; zero: no drain ever begins.
    time: Duration,
    sessions: watch::Sender<usize>,
    course: Option<Course>,
}

/// A drain under way.
#[derive(Debug)]
struct Course {
    until: Instant,
    /// How many sessions there were at its beginning.
    began_with: usize,
    /// When systemd was told last, and how many sessions there were then.
    told: Instant,
    told_of: usize,
}

impl Drain {
    /// No drain yet. One takes `time` at most.
    pub(crate) fn new(time: Duration) -> Self {
        Self { time, sessions: watch::Sender::default(), course: None }
    }

    /// Where the bridge writes how many sessions it has.
    pub(crate) fn count(&self) -> watch::Sender<usize> {
        self.sessions.clone()
    }

    /// How long sessions may go on.
    pub(crate) fn time(&self) -> Duration {
        self.time
    }

    /// When it must be over, if it has begun.
    pub(crate) fn until(&self) -> Option<Instant> {
        self.course.as_ref().map(|course| course.until)
    }

    /// The drain begins. `held` of the sessions wait for the program: their clients are told to come again.
    pub(crate) fn begin(&mut self, until: Instant, held: usize, progress: &mut Progress) {
        let now = Instant::now();
        let sessions = self.sessions.borrow().saturating_sub(held);
        let seconds = until.saturating_duration_since(now).as_secs_f64().round();
        info!(
            sessions,
            seconds,
            held,
            "draining: {} for {seconds} s{}",
            go_on(sessions),
            waiting(held)
        );
        self.course = Some(Course { until, began_with: sessions, told: now, told_of: sessions });
        self.tell(progress);
    }

    /// Waits until systemd is to be [told](Self::tell) again. Cancel-safe.
    pub(crate) async fn news(&self) {
        let Some(course) = &self.course else { return pending().await };
        let mut sessions = self.sessions.subscribe();
        let is_other = sessions.wait_for(|open| *open != course.told_of);
        if timeout_at((course.told + EVERY).into(), is_other).await.is_ok() {
            sleep_until((course.told + SOON).into()).await;
        }
    }

    /// Tells systemd how far the drain is, and that it is to wait longer.
    pub(crate) fn tell(&mut self, progress: &mut Progress) {
        let Some(course) = &mut self.course else { return };
        let now = Instant::now();
        (course.told, course.told_of) = (now, *self.sessions.borrow());
        let left = course.until.saturating_duration_since(now).as_secs();
        progress.status(&format!("Draining: {} for {left} s more at most", go_on(course.told_of)));
        progress.extend(EXTENSION);
    }

    /// The drain is over, if it had begun. Sessions that are left are closed, and then we end, for which the program
    /// may take `stop_timeout`.
    pub(crate) fn end(&mut self, stop_timeout: Duration, progress: &mut Progress) {
        let Some(course) = self.course.take() else { return };
        let closed = *self.sessions.borrow();
        let ended = course.began_with.saturating_sub(closed);
        info!(ended, closed, "drain is over: {}, {closed} closed", have_ended(ended));
        progress.extend(stop_timeout.saturating_add(END));
    }
}

fn go_on(sessions: usize) -> String {
    if sessions == 1 { "1 session goes on".into() } else { format!("{sessions} sessions go on") }
}

fn have_ended(sessions: usize) -> String {
    if sessions == 1 {
        "1 session has ended by itself".into()
    } else {
        format!("{sessions} sessions have ended by themselves")
    }
}

fn waiting(held: usize) -> String {
    match held {
        0 => String::new(),
        1 => "; 1 that waits for the program is told to come again".into(),
        held => format!("; {held} that wait for the program are told to come again"),
    }
}

/// How far a bridge without a program is on its way to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It serves.
    No,
    Draining,
    /// Its sessions are being closed.
    Stopping,
    /// We end at once, and do not wait for that any more.
    Over,
}

/// What may bring the bridge nearer to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndRequest {
    /// A signal to stop.
    Stop,
    /// The administrator's request for a drain; a second one changes nothing.
    Drain,
    /// The time that sessions had is over.
    Deadline,
}

impl Ending {
    /// What follows, where sessions may go on for `time`.
    pub(crate) fn step(self, asked: EndRequest, time: Duration) -> Self {
        match (self, asked) {
            (Self::No, EndRequest::Stop | EndRequest::Drain) if !time.is_zero() => Self::Draining,
            (Self::No, EndRequest::Stop | EndRequest::Drain) => Self::Stopping,
            (Self::Draining, EndRequest::Stop | EndRequest::Deadline) => Self::Stopping,
            (Self::Stopping, EndRequest::Stop) => Self::Over,
            (ending, _) => ending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::daemon::Caller;

    /// O1, W9: every way that a bridge without a program has to its end.
    #[test]
    fn o1_a_bridge_drains_where_it_has_time_and_a_second_signal_ends_it_at_once() {
        use Ending::{Draining, No, Over, Stopping};
        const TIME: Duration = Duration::from_secs(5);
        for (ending, time, [stop, drain, deadline]) in [
            (No, TIME, [Draining, Draining, No]),
            (No, Duration::ZERO, [Stopping, Stopping, No]),
            (Draining, TIME, [Stopping, Draining, Stopping]),
            (Stopping, TIME, [Over, Stopping, Stopping]),
            (Over, TIME, [Over, Over, Over]),
        ] {
            for (asked, next) in [
                (EndRequest::Stop, stop),
                (EndRequest::Drain, drain),
                (EndRequest::Deadline, deadline),
            ] {
                assert_eq!(ending.step(asked, time), next, "{ending:?} {asked:?} {time:?}");
            }
        }
    }

    #[tokio::test]
    async fn o1_there_is_news_when_sessions_have_ended_and_every_ten_seconds() {
        let mut progress = Progress::new(Caller::none());
        let mut drain = Drain::new(Duration::from_secs(60));
        let sessions = drain.count();
        sessions.send_replace(3);
        drain.begin(Instant::now() + drain.time(), 1, &mut progress);
        assert!(drain.until().is_some());
        for (open, ago, is_news) in
            [(3, EVERY, true), (3, EVERY / 2, false), (2, SOON, true), (2, Duration::ZERO, false)]
        {
            sessions.send_replace(open);
            let course = drain.course.as_mut().expect("it has begun");
            let long_ago = Instant::now().checked_sub(ago).expect("the machine is not so new");
            (course.told, course.told_of) = (long_ago, 3);
            let news = tokio::time::timeout(Duration::from_millis(500), drain.news()).await;
            assert_eq!(news.is_ok(), is_news, "{open} sessions, told {ago:?} ago");
        }
        drain.end(Duration::ZERO, &mut progress);
        assert!(drain.until().is_none());
    }
}
