//! Upkeep of the sessions: heartbeats, and the limits on how long sessions last (B12, B13). Goes through the session
//! [book](crate::book), decides by what is noted there, and calls the sessions to do something. Knows no socket. The
//! accept loop, which has the only clock, says when upkeep is due.

use std::time::Duration;

use tokio::time::Instant;

use crate::book::{Book, Call, Entry, LastSeen};
use crate::config::Upkeep;
use crate::saved::Moment;

/// How often sessions are checked against the limits at least, however long the limits are.
const LIMITS: Duration = Duration::from_secs(1);

/// The shortest time between two checks, so that many sessions with limits at different times do not cause many checks.
const LOOKS_APART: Duration = Duration::from_millis(20);

/// For how many heartbeats, and for how long at least, a client may send nothing before it is given up.
const SILENT_BEATS: u32 = 3;
const SILENCE: Duration = Duration::from_secs(60);

/// When upkeep is due.
#[derive(Debug)]
pub(crate) struct UpkeepSchedule {
    upkeep: Upkeep,
    next_beat: Option<Instant>,
    next_limits: Option<Instant>,
}

impl UpkeepSchedule {
    pub(crate) fn new(upkeep: Upkeep) -> Self {
        Self { upkeep, next_beat: None, next_limits: None }
    }

    /// Whether the configuration asks for any upkeep.
    pub(crate) fn is_needed(&self) -> bool {
        let Upkeep { heartbeat, timeout, idle_timeout, expires } = self.upkeep;
        expires || heartbeat.or(timeout).or(idle_timeout).is_some()
    }

    /// Plans the next round if there are sessions, and no round if there are none.
    pub(crate) fn plan(&mut self, has_sessions: bool, now: Instant) {
        if !has_sessions {
            (self.next_beat, self.next_limits) = (None, None);
            return;
        }
        if let Some(heartbeat) = self.upkeep.heartbeat {
            self.next_beat.get_or_insert(now + heartbeat);
        }
        if let Some(interval) = self.limits_interval() {
            self.next_limits.get_or_insert(now + interval);
        }
    }

    /// When the next heartbeats are due, and the next look at limits.
    pub(crate) fn saved(&self) -> (Option<Moment>, Option<Moment>) {
        (self.next_beat.map(Into::into), self.next_limits.map(Into::into))
    }

    /// After a hand-over: both are due when they were due in the old process.
    pub(crate) fn resume(&mut self, beat: Option<Moment>, limits: Option<Moment>) {
        let at = |moment: Moment| Instant::from_std(moment.instant());
        self.next_beat = beat.map(at).filter(|_| self.upkeep.heartbeat.is_some());
        self.next_limits = limits.map(at).filter(|_| self.limits_interval().is_some());
    }

    /// When the next round is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        [self.next_beat, self.next_limits].into_iter().flatten().min()
    }

    /// Makes the rounds that are due, and plans the next.
    pub(crate) fn make(&mut self, book: &Book, now: Instant) {
        let is_due = |next: Option<Instant>| next.is_some_and(|next| next <= now);
        if let Some(heartbeat) = self.upkeep.heartbeat.filter(|_| is_due(self.next_beat)) {
            // Counted from when this one was due, so that the interval is kept on a busy machine. Heartbeats that were missed
            // are not sent later.
            let next = self.next_beat.map_or(now, |due| due + heartbeat);
            self.next_beat = Some(if next > now { next } else { now + heartbeat });
            book.each(|session, last_seen| beat(session, last_seen, heartbeat, now));
        }
        if is_due(self.next_limits) {
            let mut ends: Option<Instant> = None;
            book.each(|session, last_seen| {
                let end = self.upkeep.limit(session, last_seen, now);
                ends = ends.into_iter().chain(end).min();
            });
            let next = self.limits_interval().map(|interval| now + interval);
            let ends = ends.map(|end| end.max(now + LOOKS_APART));
            self.next_limits = next.into_iter().chain(ends).min();
        }
    }

    /// How often sessions are checked against the limits: often enough for the shortest limit.
    fn limits_interval(&self) -> Option<Duration> {
        let Upkeep { timeout, idle_timeout, expires, .. } = self.upkeep;
        let short_enough = timeout.into_iter().chain(idle_timeout).map(|limit| limit / 4);
        short_enough.chain(expires.then_some(LIMITS)).min().map(|interval| interval.min(LIMITS))
    }
}

/// Has the session send its client a ping or, if the client has been silent for too long, check whether it is still there.
fn beat(session: &Entry, last_seen: &mut LastSeen, heartbeat: Duration, now: Instant) {
    let now = now.into_std();
    if session.take_heard() {
        last_seen.heard = now;
    }
    let most = SILENCE.max(heartbeat.saturating_mul(SILENT_BEATS));
    let is_unheard = now.duration_since(last_seen.heard) >= most;
    session.call(if is_unheard { Call::Unheard } else { Call::Ping });
}

impl Upkeep {
    /// Ends a session that has reached a limit. Otherwise returns when it will reach the first one.
    fn limit(&self, session: &Entry, last_seen: &mut LastSeen, now: Instant) -> Option<Instant> {
        let now = now.into_std();
        let moved = session.received() + session.sent();
        if moved != last_seen.moved {
            (last_seen.moved, last_seen.moved_at) = (moved, now);
        }
        // A limit that is further away than an `Instant` can say is never reached.
        let too_long = self.timeout.and_then(|limit| session.began.checked_add(limit));
        let expired = if self.expires { session.expires() } else { None };
        let too_quiet = self.idle_timeout.and_then(|limit| last_seen.moved_at.checked_add(limit));
        let is_over = |end: Option<std::time::Instant>| end.is_some_and(|end| end <= now);
        if is_over(too_long) {
            session.call(Call::TooLong);
        } else if is_over(expired) {
            session.call(Call::Expired);
        } else if is_over(too_quiet) {
            session.call(Call::TooQuiet);
        } else {
            return [too_long, expired, too_quiet].into_iter().flatten().min().map(Into::into);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::{Context, Waker};

    use super::*;
    use crate::book::Session;
    use crate::destination::Address;
    use crate::peer::Peer;

    const SECOND: Duration = Duration::from_secs(1);

    fn session(book: &Arc<Book>) -> Session {
        until(book, None)
    }

    fn until(book: &Arc<Book>, expires: Option<std::time::Instant>) -> Session {
        let destination = Address { host: "localhost".into(), port: 9 };
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], 1)).into();
        let peer = Peer::new(address);
        book.begin(Arc::new(peer), Arc::new(destination.into()), None, expires).unwrap()
    }

    fn calls(session: &Session) -> Vec<Call> {
        let mut cx = Context::from_waker(Waker::noop());
        std::iter::from_fn(|| session.take_call(&mut cx)).collect()
    }

    #[test]
    fn b12_a_client_is_unheard_after_three_heartbeats_and_a_minute() {
        for (heartbeat, most) in [(1, 60), (10, 60), (20, 60), (30, 90), (100, 300)] {
            let book = Book::new(1, true);
            let session = session(&book);
            let began = Instant::from_std(session.entry.began);
            let heartbeat = heartbeat * SECOND;
            let mut rounds =
                UpkeepSchedule::new(Upkeep { heartbeat: Some(heartbeat), ..Upkeep::default() });
            rounds.plan(true, began);
            session.note_heard();
            // The first heartbeat notes what the client has sent before it.
            let heard = began + heartbeat;
            while let Some(now) = rounds.next().filter(|now| *now <= heard + 2 * most * SECOND) {
                rounds.make(&book, now);
                let is_unheard = now >= heard + most * SECOND;
                let expected = if is_unheard { Call::Unheard } else { Call::Ping };
                assert_eq!(calls(&session), [expected], "{heartbeat:?} {:?}", now - began);
            }
        }
    }

    #[tokio::test]
    async fn b12_missed_heartbeats_are_not_caught_up_on_and_end_with_the_sessions() {
        let mut rounds =
            UpkeepSchedule::new(Upkeep { heartbeat: Some(SECOND), ..Upkeep::default() });
        let book = Book::new(1, true);
        let now = Instant::now();
        assert_eq!(rounds.next(), None);
        rounds.plan(true, now);
        rounds.make(&book, now + 3 * SECOND / 2);
        assert_eq!(rounds.next(), Some(now + 2 * SECOND));
        rounds.make(&book, now + 10 * SECOND);
        assert_eq!(rounds.next(), Some(now + 11 * SECOND));
        rounds.plan(false, now + 10 * SECOND);
        assert_eq!(rounds.next(), None);
    }

    #[test]
    fn k5_a_session_ends_with_its_token_where_that_is_asked_for() {
        for expires in [true, false] {
            let mut rounds = UpkeepSchedule::new(Upkeep { expires, ..Upkeep::default() });
            assert_eq!(rounds.is_needed(), expires);
            let (book, now) = (Book::new(2, true), Instant::now());
            let sessions = [until(&book, None), until(&book, Some((now + 3 * SECOND).into_std()))];
            rounds.plan(true, now);
            assert_eq!(rounds.next(), expires.then_some(now + SECOND));
            for second in 1..5 {
                rounds.make(&book, now + second * SECOND);
                assert_eq!(calls(&sessions[0]), []);
                let is_over = expires && second >= 3;
                assert_eq!(calls(&sessions[1]), [Call::Expired][..usize::from(is_over)]);
            }
        }
    }

    /// B13: a session ends no later than [`LOOKS_APART`] after its limit. A session that begins after a check is checked
    /// again before its limit.
    #[test]
    fn b13_a_session_ends_when_its_time_is_over_and_not_at_some_look_after() {
        let timeout = Some(10 * SECOND);
        let mut rounds = UpkeepSchedule::new(Upkeep { timeout, ..Upkeep::default() });
        let book = Book::new(2, true);
        let sessions = [session(&book), session(&book)];
        let began = Instant::from_std(sessions[1].entry.began);
        // The first check may be at any time.
        rounds.plan(true, began + SECOND / 3);
        let mut looks = 0;
        let ended = loop {
            let now = rounds.next().unwrap();
            rounds.make(&book, now);
            looks += 1;
            if calls(&sessions[1]) == [Call::TooLong] {
                break now;
            }
        };
        assert_eq!(calls(&sessions[0]), [Call::TooLong]);
        let lasted = ended - began;
        assert!((10 * SECOND..=10 * SECOND + LOOKS_APART).contains(&lasted), "{lasted:?}");
        assert!(looks < 15, "{looks} looks");
    }

    #[test]
    fn b13_limits_are_looked_at_every_second_or_as_often_as_they_need() {
        for (timeout, idle_timeout, milliseconds) in
            [(Some(3600), None, 1000), (None, Some(2), 500), (Some(3600), Some(2), 500)]
        {
            let seconds = |limit: Option<u64>| limit.map(Duration::from_secs);
            let upkeep = Upkeep {
                heartbeat: None,
                timeout: seconds(timeout),
                idle_timeout: seconds(idle_timeout),
                expires: false,
            };
            let interval = UpkeepSchedule::new(upkeep).limits_interval();
            assert_eq!(interval, Some(Duration::from_millis(milliseconds)));
        }
        assert!(!UpkeepSchedule::new(Upkeep::default()).is_needed());
    }
}
