//! The race between the addresses of a target: the first one that can be connected to is used ("Happy Eyeballs",
//! RFC 8305).
//!
//! Knows the order of the attempts and the delay between them; how an address is connected to is the caller's.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::sleep;

/// How long an attempt may take before the next address is tried in parallel (RFC 8305, section 8).
const DELAY: Duration = Duration::from_millis(250);

/// Tries the addresses in their order. The next attempt begins when one has failed, or after `DELAY`. Returns the first
/// success and drops the attempts that are still under way; returns the last failure if all attempts fail.
pub(crate) async fn first<T, F: Future<Output = io::Result<T>>>(
    addrs: &[SocketAddr],
    attempt: impl Fn(SocketAddr) -> F,
) -> io::Result<T> {
    let mut rest = alternating(addrs).into_iter();
    let mut attempts = Vec::new();
    let mut failure = io::Error::from(io::ErrorKind::NotFound);
    loop {
        attempts.extend(rest.next().map(|addr| Box::pin(attempt(addr))));
        if attempts.is_empty() {
            return Err(failure);
        }
        tokio::select! {
            biased;
            ended = any(&mut attempts) => match ended {
                Ok(success) => return Ok(success),
                Err(error) => failure = error,
            },
            () = sleep(DELAY), if rest.len() > 0 => {}
        }
    }
}

/// Waits until one of the attempts ends, and removes that attempt.
async fn any<F: Future>(attempts: &mut Vec<Pin<Box<F>>>) -> F::Output {
    poll_fn(|cx| {
        for at in 0..attempts.len() {
            if let Poll::Ready(ended) = attempts[at].as_mut().poll(cx) {
                drop(attempts.remove(at));
                return Poll::Ready(ended);
            }
        }
        Poll::Pending
    })
    .await
}

/// Puts IPv4 and IPv6 addresses in turns, beginning with the family of the first address. Within a family the order is
/// the resolver's (RFC 8305, section 4). Where one family has no route, all addresses of that family fail.
fn alternating(addrs: &[SocketAddr]) -> Vec<SocketAddr> {
    let is_preferred =
        |addr: &&SocketAddr| addrs.first().is_some_and(|one| one.is_ipv6() == addr.is_ipv6());
    let (preferred, others): (Vec<SocketAddr>, Vec<_>) = addrs.iter().partition(is_preferred);
    let (mut preferred, mut others) = (preferred.into_iter(), others.into_iter());
    let mut all = Vec::with_capacity(addrs.len());
    while all.len() < addrs.len() {
        all.extend(preferred.next());
        all.extend(others.next());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::future::pending;

    use tokio::time::Instant;

    fn addrs(list: &str) -> Vec<SocketAddr> {
        list.split(' ').map(|addr| addr.parse().unwrap()).collect()
    }

    /// The result of an attempt, by the port: 1 connects, 2 is refused, 3 never answers, others fail after a second.
    async fn act(addr: SocketAddr) -> io::Result<SocketAddr> {
        match addr.port() {
            1 => Ok(addr),
            2 => Err(io::ErrorKind::ConnectionRefused.into()),
            3 => pending().await,
            _ => {
                sleep(Duration::from_secs(1)).await;
                Err(io::ErrorKind::TimedOut.into())
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn f15_the_next_address_is_tried_after_a_quarter_of_a_second() {
        for (list, delays) in [
            ("[::1]:1 127.0.0.1:3", 0),
            ("[::1]:3 127.0.0.1:1", 1),
            ("[::1]:2 127.0.0.1:1", 0),
            ("[::1]:3 [::2]:3 127.0.0.1:1", 1),
            ("127.0.0.1:3 127.0.0.2:3 127.0.0.3:2 127.0.0.4:1", 2),
        ] {
            let began = Instant::now();
            let found = first(&addrs(list), act).await.unwrap();
            assert_eq!((found.port(), began.elapsed()), (1, delays * DELAY), "{list}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn f15_all_must_fail_for_a_failure_and_the_last_one_is_told() {
        let failed = async |list| first(&addrs(list), act).await.unwrap_err().kind();
        assert_eq!(failed("[::1]:2 127.0.0.1:2").await, io::ErrorKind::ConnectionRefused);
        assert_eq!(failed("[::1]:4 127.0.0.1:2").await, io::ErrorKind::TimedOut);
        assert_eq!(first(&[], act).await.unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[tokio::test(start_paused = true)]
    async fn f15_the_others_are_dropped_and_no_more_are_begun() {
        let begun = RefCell::new(Vec::new());
        let list = addrs("[::1]:3 127.0.0.1:1 [::2]:1");
        let attempt = |addr| {
            begun.borrow_mut().push(addr);
            act(addr)
        };
        assert_eq!(first(&list, attempt).await.unwrap(), list[1]);
        assert_eq!(*begun.borrow(), list[..2]);
    }

    #[test]
    fn f15_families_take_turns() {
        let sorted = addrs("[::1]:1 [::2]:1 [::3]:1 1.1.1.1:1 1.1.1.2:1");
        let expected = addrs("[::1]:1 1.1.1.1:1 [::2]:1 1.1.1.2:1 [::3]:1");
        assert_eq!(alternating(&sorted), expected);
        let other_way = addrs("1.1.1.1:1 [::1]:1 [::2]:1");
        assert_eq!(alternating(&other_way), other_way);
    }
}
