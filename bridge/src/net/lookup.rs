//! The look-up of host names, by the system's resolver.
//!
//! getaddrinfo(3) blocks a thread for an unlimited time and cannot be cancelled. So a name is looked up once at a time,
//! and all callers that ask for it meanwhile share the answer. Few names are looked up at once, since requests for
//! files need the same threads. Answers are not cached: a caller that asks after the answer has come begins a new
//! look-up (C2).

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use super::zone;
use crate::error_text::error_text;

/// How many names are looked up at a time. The runtime has 512 threads for all that blocks.
const AT_ONCE: usize = 16;

/// How long a caller waits for an answer.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);

/// The addresses, or in words why there are none.
type Answer = Result<Vec<SocketAddr>, String>;

/// The names that are being looked up.
#[derive(Debug, Clone)]
pub(crate) struct Lookups {
    under_way: Arc<Mutex<HashMap<String, watch::Receiver<Option<Answer>>>>>,
    permits: Arc<Semaphore>,
}

impl Lookups {
    pub(crate) fn new() -> Self {
        Self { under_way: Arc::default(), permits: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// The addresses of `host`, each with this port. `host` may be an address itself.
    pub(crate) async fn resolve(&self, host: &str, port: u16) -> Answer {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        if let Some(found) = zone::resolve(host, port) {
            return found.map(|found| vec![found]).map_err(|error| error_text(&error));
        }
        let mut answer = self.join(host);
        let known = timeout(LOOKUP_TIMEOUT, answer.wait_for(Option::is_some)).await;
        let known = known.map_err(|late| error_text(&late.into()))?;
        let known = known.ok().and_then(|known| known.clone());
        let mut addresses = known.unwrap_or_else(|| Err("its look-up has failed".into()))?;
        for address in &mut addresses {
            address.set_port(port);
        }
        Ok(addresses)
    }

    /// Joins the look-up of this name that is under way, or begins one.
    fn join(&self, host: &str) -> watch::Receiver<Option<Answer>> {
        let mut under_way = self.under_way();
        // A look-up whose task has failed (no thread could be started, for one) gives no answer any more: its sender is
        // dropped.
        if let Some(answer) = under_way.get(host).filter(|answer| answer.has_changed().is_ok()) {
            return answer.clone();
        }
        let (sender, answer) = watch::channel(None);
        under_way.insert(host.to_owned(), answer.clone());
        // It has a task of its own: the first caller may be dropped while others still wait.
        tokio::spawn(self.clone().look_up(host.to_owned(), sender));
        answer
    }

    async fn look_up(self, host: String, sender: watch::Sender<Option<Answer>>) {
        let found = {
            let _permit = self.permits.acquire().await;
            lookup_host((host.as_str(), 0)).await.map(Iterator::collect)
        };
        self.under_way().remove(&host);
        sender.send_replace(Some(found.map_err(|error: io::Error| error_text(&error))));
    }

    fn under_way(&self) -> MutexGuard<'_, HashMap<String, watch::Receiver<Option<Answer>>>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn c2_an_address_is_its_own_and_a_name_is_looked_up() {
        let lookups = Lookups::new();
        assert_eq!(lookups.resolve("192.0.2.1", 7).await, Ok(vec!["192.0.2.1:7".parse().unwrap()]));
        assert_eq!(lookups.resolve("::1", 7).await, Ok(vec!["[::1]:7".parse().unwrap()]));
        for _ in 0..2 {
            let found = lookups.resolve("localhost", 7).await.unwrap();
            assert!(found.iter().all(|it| it.ip().is_loopback() && it.port() == 7), "{found:?}");
            assert!(!found.is_empty());
            assert!(lookups.under_way().is_empty(), "nothing is kept");
        }
        let failure = lookups.resolve("no name has spaces", 7).await.unwrap_err();
        assert!(!failure.is_empty() && lookups.under_way().is_empty(), "{failure}");
    }

    #[tokio::test]
    async fn f8_a_name_is_looked_up_once_for_all_who_ask_meanwhile() {
        let lookups = Lookups::new();
        let first = lookups.join("localhost");
        let second = lookups.join("localhost");
        assert!(first.same_channel(&second));
        assert!(!first.same_channel(&lookups.join("another")));
        assert_eq!(lookups.under_way().len(), 2);
        // The callers need not wait to the end of the look-up.
        drop((first, second));
        assert!(lookups.resolve("localhost", 7).await.is_ok());
    }

    /// L6: after a look-up that failed without an answer, the next one begins anew.
    #[tokio::test]
    async fn l6_a_look_up_without_a_thread_is_not_the_next_ones() {
        let lookups = Lookups::new();
        let (sender, answer) = watch::channel(None);
        lookups.under_way().insert("localhost".into(), answer);
        drop(sender);
        assert!(lookups.resolve("localhost", 7).await.is_ok());
        assert!(lookups.under_way().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn f8_nobody_waits_longer_than_ten_seconds() {
        let lookups = Lookups::new();
        let _all = lookups.permits.clone().acquire_many_owned(16).await.unwrap();
        assert_eq!(lookups.resolve("localhost", 7).await, Err("timed out".into()));
        assert_eq!(lookups.under_way().len(), 1, "it goes on for those who come");
    }
}
