//! Peers that disappear while bytes are under way to them (B7). Keepalive probes are sent only while nothing is under
//! way, and the kernel itself goes on sending for a quarter of an hour (`net.ipv4.tcp_retries2`). `TCP_USER_TIMEOUT`
//! would end the connection sooner, but also that of a peer that answers and keeps its window closed, since it does not
//! read for a while.
//!
//! Knows what was heard, and decides whether a peer is gone; the pump decides when to look.

use std::time::Duration;

use tokio::time::Instant;

use crate::net::Heard;

/// A peer that answers nothing for so long is gone. Looks are ten seconds apart, so that it is noticed within a minute.
const GONE: Duration = Duration::from_secs(45);

/// One peer's silence.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Silence {
    /// Since when the peer has owed an acknowledgement at each look.
    since: Option<Instant>,
}

impl Silence {
    /// Judges by what was heard whether the peer is gone.
    pub(crate) fn is_gone(&mut self, heard: Option<Heard>, now: Instant) -> bool {
        let Some(Heard { is_asked: true, ago }) = heard else {
            self.since = None;
            return false;
        };
        let since = *self.since.get_or_insert(now);
        // Both must be long: of a connection that was idle for an hour, the last acknowledgement is an hour old, and
        // bytes that were sent a moment ago have none yet.
        ago >= GONE && now.duration_since(since) >= GONE
    }

    /// Whether the peer owes an acknowledgement.
    pub(crate) fn is_asked(self) -> bool {
        self.since.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// At which look a peer is gone. The looks are ten seconds apart; each says how many seconds ago the peer has
    /// answered, or `None` if nothing was heard.
    fn gone_at(looks: &[Option<u32>]) -> Option<usize> {
        let (mut silence, begin) = (Silence::default(), Instant::now());
        let mut times = (0u32..).map(|look| begin + look * 10 * SECOND);
        looks.iter().position(|ago| {
            let heard = ago.map(|ago| Heard { is_asked: true, ago: ago * SECOND });
            silence.is_gone(heard, times.next().unwrap())
        })
    }

    #[test]
    fn l6_b7_a_peer_that_answers_nothing_is_gone_within_a_minute() {
        assert_eq!(gone_at(&[Some(1), Some(11), Some(21), Some(31), Some(41), Some(51)]), Some(5));
        assert_eq!(gone_at(&[3600, 3610, 3620, 3630, 3640, 3650].map(Some)), Some(5), "rested");
    }

    #[test]
    fn l6_b7_a_peer_that_answers_is_not() {
        assert_eq!(gone_at(&[Some(3600); 4]), None, "it has its time");
        assert_eq!(gone_at(&[Some(0); 100]), None, "it is asked and answers");
        assert_eq!(gone_at(&[Some(100), Some(100), Some(100), Some(100), None, Some(100)]), None);
        let mut silence = Silence::default();
        let unasked = Some(Heard { is_asked: false, ago: 3600 * SECOND });
        let now = Instant::now();
        assert!((0..100).all(|look| !silence.is_gone(unasked, now + look * 10 * SECOND)));
        assert!(!silence.is_asked());
    }
}
