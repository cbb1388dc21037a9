//! How long a client waits for the answer to a wrong password.
//!
//! Each wrong password puts off the answers to its client's address, each time for longer, and these answers are sent
//! one after the other: a client gains nothing by guessing over many connections at once. A right password is answered
//! at once. Only while an address has far more wrong passwords to be answered than one person types are its passwords
//! not looked at, right or wrong: that limits clients that do not wait for answers.
//!
//! Clients of a Unix socket have no address. There the penalties count for the user who connects (SO_PEERCRED): no user
//! can make another user wait, nor pretend to be another.
//!
//! Knows who clients are, and clocks, no passwords.

mod saved;

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::clients::ClientId;
pub(crate) use saved::SavedPenalty;

/// What the first wrong password costs. Each further one costs twice as much as the one before.
const FIRST: Duration = Duration::from_secs(1);

/// The most that one wrong password costs.
const MOST: Duration = Duration::from_secs(10);

/// How far in the future the last answer to an address may be due while its passwords are still looked at.
const AHEAD: Duration = Duration::from_secs(20);

/// How long after the last answer to a wrong password its address counts as new: its next wrong password costs as much
/// as the first.
const FORGOTTEN: Duration = Duration::from_secs(600);

/// How many clients are remembered. An attacker with more addresses than that has as many guesses anyway.
const CLIENTS_MAX: usize = 1024;

/// The penalties of all clients.
#[derive(Debug, Default)]
pub(crate) struct Penalties {
    by_client: Mutex<HashMap<ClientId, Penalty>>,
}

#[derive(Debug)]
struct Penalty {
    /// How many wrong passwords there have been.
    count: u32,
    /// When the last wrong password is answered.
    end: Instant,
}

impl Penalties {
    /// For how much longer a client's passwords are not looked at, if they are not.
    pub(crate) fn closed_for(&self, client: ClientId, now: Instant) -> Option<Duration> {
        let by_client = self.by_client.lock().unwrap_or_else(PoisonError::into_inner);
        let end = by_client.get(&client.counted())?.end;
        let time = end.saturating_duration_since(now).saturating_sub(AHEAD);
        (!time.is_zero()).then_some(time)
    }

    /// Counts a wrong password; says when it is to be answered.
    pub(crate) fn add(&self, client: ClientId, now: Instant) -> Instant {
        let mut by_client = self.by_client.lock().unwrap_or_else(PoisonError::into_inner);
        let counted = client.counted();
        if by_client.len() >= CLIENTS_MAX && !by_client.contains_key(&counted) {
            make_room(&mut by_client, now);
        }
        let penalty = by_client.entry(counted).or_insert(Penalty { count: 0, end: now });
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

/// Removes the clients whose penalties are forgotten; if that is not enough, the client whose last answer is due first.
fn make_room(by_client: &mut HashMap<ClientId, Penalty>, now: Instant) {
    by_client.retain(|_, penalty| !penalty.is_forgotten(now));
    if by_client.len() >= CLIENTS_MAX {
        let least = by_client.iter().min_by_key(|(_, penalty)| penalty.end);
        let least = least.map(|(client, _)| *client);
        least.and_then(|client| by_client.remove(&client));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u32) -> ClientId {
        ClientId::Address(std::net::Ipv4Addr::from_bits(number).into())
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
        let cost = |client: &str| {
            let client = ClientId::Address(client.parse().unwrap());
            (penalties.add(client, now) - now).as_secs()
        };
        assert_eq!(cost("2001:db8:0:1::1"), 1);
        assert_eq!(cost("2001:db8:0:1:ffff::2"), 3);
        assert_eq!(cost("2001:db8:0:2::1"), 1);
        assert_eq!(cost("::ffff:192.0.2.1"), 1);
        assert_eq!(cost("192.0.2.1"), 3);
    }

    /// F11, U3: each user has penalties of its own, also where all connect through the same socket.
    #[test]
    fn f11_a_unix_client_is_its_user() {
        let (penalties, now) = (Penalties::default(), Instant::now());
        let cost = |user| (penalties.add(ClientId::User(user), now) - now).as_secs();
        assert_eq!([cost(1), cost(1), cost(2)], [1, 3, 1]);
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
        assert_eq!(penalties.by_client.lock().unwrap().len(), CLIENTS_MAX);
        assert!(penalties.closed_for(guesser, now).is_some());
    }
}
