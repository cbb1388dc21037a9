//! Reading that may hang, as on a network file system whose server does not answer: the caller goes on after a time
//! limit, and at most one thread hangs. Knows not what is read.

use std::future::pending;
use std::time::Duration;

use bridge::blocking;
use tokio::sync::oneshot::Receiver;
use tokio::time::timeout;

/// Reads in another thread, one reading after the other.
#[derive(Debug)]
pub(super) struct Reading<T> {
    limit: Duration,
    /// The reading under way. It stays here if it takes longer than `limit`, until it has ended.
    late: Option<Receiver<T>>,
}

/// Why nothing was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// It has not ended in time, or an earlier reading has still not ended.
    Late,
    /// No thread can be started for it.
    NotBegun,
    Panicked,
}

impl<T: Send + 'static> Reading<T> {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, late: None }
    }

    /// What `read` gives.
    pub(super) async fn run(
        &mut self,
        read: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Unread> {
        if self.late.is_some() {
            return Err(Unread::Late);
        }
        let begun = blocking::begin(read).map_err(|_| Unread::NotBegun)?;
        let late = self.late.insert(begun);
        let read = timeout(self.limit, late).await.map_err(|_| Unread::Late)?;
        self.late = None;
        read.map_err(|_| Unread::Panicked)
    }

    /// Waits until the late reading has ended. What it has read is dropped: it may be old by now. Cancel-safe.
    pub(super) async fn late_end(&mut self) {
        match &mut self.late {
            Some(late) => {
                let _ = late.await;
                self.late = None;
            }
            None => pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn t5_what_hangs_is_left_until_it_ends() {
        let mut reading = Reading::new(Duration::from_millis(10));
        let (release, hang) = mpsc::channel::<()>();
        let hangs = move || {
            let _ = hang.recv();
            1
        };
        assert_eq!(reading.run(hangs).await, Err(Unread::Late));
        let second = reading.run(|| panic!("a second thread"));
        assert_eq!(second.await, Err(Unread::Late));
        drop(release);
        reading.late_end().await;
        reading.limit = Duration::from_secs(60);
        assert_eq!(reading.run(|| 2).await, Ok(2));
    }
}
