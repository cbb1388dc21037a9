//! A session in which nothing moves, because one of its peers takes nothing: whether that is worth waiting for. It is,
//! unless the other peer has gone. This has nothing to do with the pause for a hand-over.
//!
//! Knows what was seen at each look, and decides; the pump decides when to look.

use serde::{Deserialize, Serialize};

use crate::net::PeerStatus;

/// After this many looks at which nothing has moved, the session is over if the other peer has ended. If the other peer
/// is the client and has not ended, it is asked whether it is there; after as many more looks without an answer the
/// session is over.
const STILL: u32 = 3;

/// Which peer takes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Stuck {
    Client,
    Target,
}

/// What is seen at a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) stuck: Stuck,
    /// Payload bytes that have gone either way, in all.
    pub(crate) moved: u64,
    /// Bytes that are under way to the peer that is stuck.
    pub(crate) left: u64,
    /// What is known of the other peer.
    pub(crate) other: PeerStatus,
    /// Whether bytes are under way to the other peer, too.
    pub(crate) other_is_owed: bool,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Wait,
    /// Send the client a ping, which its kernel must acknowledge: if the client has ended behind bytes that we have no
    /// room for, nothing else shows that it is gone.
    Probe,
    /// The session is over, for this reason.
    Over(&'static str),
}

/// The looks at one session.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Standstill {
    seen: Option<(Stuck, u64, u64)>,
    /// How many looks ago `seen` was seen first.
    looks: u32,
    /// Whether the client has been probed since.
    is_probed: bool,
}

impl Standstill {
    /// Whether all is as it was seen last: this peer takes nothing, and as many bytes have gone and are left (see [`Seen`]).
    pub(crate) fn still_is(&self, stuck: Stuck, moved: u64, left: u64) -> bool {
        self.seen == Some((stuck, moved, left))
    }

    /// At how many looks, one after the other, nothing had moved.
    pub(crate) fn looks(&self) -> u32 {
        self.looks
    }

    /// Judges what is seen now by what was seen before.
    pub(crate) fn look(&mut self, seen: Seen) -> Verdict {
        let now = Some((seen.stuck, seen.moved, seen.left));
        if self.seen != now {
            *self = Self { seen: now, ..Self::default() };
            return Verdict::Wait;
        }
        self.looks += 1;
        if !self.looks.is_multiple_of(STILL) {
            return Verdict::Wait;
        }
        match (seen.stuck, seen.other) {
            (Stuck::Client, PeerStatus::Unknown) => Verdict::Wait,
            (Stuck::Client, _) => Verdict::Over("client takes nothing, and its target has ended"),
            (Stuck::Target, PeerStatus::Unknown) if !seen.other_is_owed => {
                self.is_probed = true;
                Verdict::Probe
            }
            (Stuck::Target, PeerStatus::Unknown) if self.is_probed => {
                Verdict::Over("client: timed out")
            }
            // The client takes nothing either, and may be there.
            (Stuck::Target, PeerStatus::Unknown) => Verdict::Wait,
            (Stuck::Target, _) => Verdict::Over("target takes nothing, and its client has ended"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEEN: Seen = Seen {
        stuck: Stuck::Target,
        moved: 5,
        left: 7,
        other: PeerStatus::Unknown,
        other_is_owed: false,
    };

    /// The verdicts of as many looks, the first of which has nothing to compare with.
    fn looks(seen: &[Seen]) -> Vec<Verdict> {
        let mut standstill = Standstill::default();
        seen.iter().map(|seen| standstill.look(*seen)).collect()
    }

    #[test]
    fn f10_a_peer_that_has_ended_is_not_waited_for_if_nothing_moves() {
        for stuck in [Stuck::Target, Stuck::Client] {
            for other in [PeerStatus::Ended, PeerStatus::Failed] {
                let verdicts = looks(&[Seen { stuck, other, ..SEEN }; 4]);
                assert_eq!(verdicts[..3], [Verdict::Wait; 3]);
                assert!(matches!(verdicts[3], Verdict::Over(_)), "{verdicts:?}");
            }
        }
    }

    #[test]
    fn f10_b4_while_something_moves_it_is() {
        let moving = |step: u64| Seen { moved: step, other: PeerStatus::Ended, ..SEEN };
        let flowing = |step: u64| Seen { left: 100 - step, other: PeerStatus::Ended, ..SEEN };
        for seen in [(0..100).map(moving).collect::<Vec<_>>(), (0..100).map(flowing).collect()] {
            assert_eq!(looks(&seen), [Verdict::Wait; 100]);
        }
    }

    #[test]
    fn f10_a_client_that_is_there_is_asked_now_and_then() {
        let (wait, probe) = (Verdict::Wait, Verdict::Probe);
        assert_eq!(looks(&[SEEN; 7]), [wait, wait, wait, probe, wait, wait, probe]);
        let owed = Seen { other_is_owed: true, ..SEEN };
        assert_eq!(looks(&[owed; 40]), [wait; 40], "what is under way is no probe");
        let verdicts = looks(&[SEEN, SEEN, SEEN, SEEN, owed, owed, owed]);
        assert_eq!(verdicts[3..6], [probe, wait, wait]);
        assert_eq!(verdicts[6], Verdict::Over("client: timed out"));
    }

    #[test]
    fn f10_a_target_that_is_there_may_wait_for_its_client() {
        assert_eq!(looks(&[Seen { stuck: Stuck::Client, ..SEEN }; 40]), [Verdict::Wait; 40]);
    }
}
