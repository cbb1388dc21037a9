//! How long a client waits for the answer to a wrong password.
//!
//! Each wrong one costs its client's address some time, ever more of it, and the answers to an address
//! come one after the other: it gains nothing by guessing over many connections at once. A right one is
//! answered at once. Only while an address has far more wrong ones to be answered than one person types
//! are its passwords not looked at, right or wrong: that is what limits those who do not wait for
//! answers.
//!
//! Knows addresses and clocks, no passwords.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// What the first wrong password costs. Each further one costs twice as much as the one before.
const FIRST: Duration = Duration::from_secs(1);

/// But no more than this.
const MOST: Duration = Duration::from_secs(10);

/// How far ahead the answers to an address may be put off, before passwords are not looked at.
const AHEAD: Duration = Duration::from_secs(20);

/// How long an address must have been without a penalty for its next to be the first again.
const FORGOTTEN: Duration = Duration::from_secs(600);

/// How many addresses are known. Whoever has more than that has as many guesses anyway.
const ADDRESSES_MAX: usize = 1024;

/// The penalties of all clients.
#[derive(Debug, Default)]
pub(crate) struct Penalties {
    by_address: Mutex<HashMap<IpAddr, Penalty>>,
}

#[derive(Debug)]
struct Penalty {
    /// How many there have been before.
    count: u32,
    /// When the last wrong password is answered.
    end: Instant,
}

impl Penalties {
    /// How long a client's passwords are not looked at.
    pub(crate) fn closed_for(&self, client: IpAddr, now: Instant) -> Option<Duration> {
        let by_address = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let end = by_address.get(&network(client))?.end;
        let time = end.saturating_duration_since(now).saturating_sub(AHEAD);
        (!time.is_zero()).then_some(time)
    }

    /// Counts a wrong password; says when it is to be answered.
    pub(crate) fn add(&self, client: IpAddr, now: Instant) -> Instant {
        let mut by_address = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let network = network(client);
        if by_address.len() >= ADDRESSES_MAX && !by_address.contains_key(&network) {
            make_room(&mut by_address, now);
        }
        let penalty = by_address.entry(network).or_insert(Penalty { count: 0, end: now });
        if penalty.is_forgotten(now) {
            penalty.count = 0;
        }
        let cost = FIRST * 2_u32.saturating_pow(penalty.count.min(16));
        penalty.count += 1;
        penalty.end = penalty.end.max(now) + cost.min(MOST);
        penalty.end
    }
}

impl Penalty {
    fn is_forgotten(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.end) > FORGOTTEN
    }
}

/// Forgets whom it costs least.
fn make_room(by_address: &mut HashMap<IpAddr, Penalty>, now: Instant) {
    by_address.retain(|_, penalty| !penalty.is_forgotten(now));
    if by_address.len() >= ADDRESSES_MAX {
        let least = by_address.iter().min_by_key(|(_, penalty)| penalty.end);
        let least = least.map(|(network, _)| *network);
        least.and_then(|network| by_address.remove(&network));
    }
}

/// An address as one client has it: of IPv6, whoever has one has the 2^64 beside it.
fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u32) -> IpAddr {
        std::net::Ipv4Addr::from_bits(number).into()
    }

    #[test]
    fn f11_wrong_passwords_are_answered_one_after_the_other_and_ever_later() {
        let (penalties, now) = (Penalties::default(), Instant::now());
        let client = address(1);
        let mut answered = Vec::new();
        while penalties.closed_for(client, now).is_none() {
            answered.push((penalties.add(client, now) - now).as_secs());
        }
        assert_eq!(answered, [1, 3, 7, 15, 25], "all sent at once");
        assert_eq!(penalties.closed_for(client, now), Some(Duration::from_secs(5)));
        assert_eq!(penalties.closed_for(address(2), now), None, "others do not wait");
        let later = now + Duration::from_secs(5);
        assert_eq!(penalties.closed_for(client, later), None);
        assert_eq!((penalties.add(client, later) - now).as_secs(), 35, "bounded");
    }

    #[test]
    fn f11_penalties_are_forgotten() {
        let (penalties, now) = (Penalties::default(), Instant::now());
        penalties.add(address(1), now);
        let later = now + FORGOTTEN / 2;
        assert_eq!((penalties.add(address(1), later) - later).as_secs(), 2);
        let later = later + FORGOTTEN * 2;
        assert_eq!((penalties.add(address(1), later) - later).as_secs(), 1);
    }

    #[test]
    fn f11_an_ipv6_client_is_its_network() {
        let (penalties, now) = (Penalties::default(), Instant::now());
        let cost = |client: &str| (penalties.add(client.parse().unwrap(), now) - now).as_secs();
        assert_eq!(cost("2001:db8:0:1::1"), 1);
        assert_eq!(cost("2001:db8:0:1:ffff::2"), 3);
        assert_eq!(cost("2001:db8:0:2::1"), 1);
        assert_eq!(cost("::ffff:192.0.2.1"), 1);
        assert_eq!(cost("192.0.2.1"), 3);
    }

    #[test]
    fn f11_many_addresses_neither_grow_the_table_nor_free_who_guesses_most() {
        let (penalties, now) = (Penalties::default(), Instant::now());
        let guesser = address(0);
        while penalties.closed_for(guesser, now).is_none() {
            penalties.add(guesser, now);
        }
        for number in 1..10_000 {
            penalties.add(address(number), now);
        }
        assert_eq!(penalties.by_address.lock().unwrap().len(), ADDRESSES_MAX);
        assert!(penalties.closed_for(guesser, now).is_some());
    }
}
