//! Reading that may hang, as on a network file system whose server does not answer: the caller goes on after a time
//! limit, and at most one thread hangs. Knows not what is read.

use std::future::pending;
use std::time::Duration;

use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;

/// Reads in another thread, one reading after the other.
#[derive(Debug)]
pub(super) struct Reading<T> {
    limit: Duration,
    /// The reading under way. It stays here if it takes longer than `limit`, until it has ended.
    late: Option<JoinHandle<Option<T>>>,
}

impl<T: Send + 'static> Reading<T> {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, late: None }
    }

    /// What `read` gives. `None`: it has not ended in time, or an earlier reading has still not ended.
    pub(super) async fn run(&mut self, read: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        if self.late.is_some() {
            return None;
        }
        let late = self.late.insert(spawn_blocking(|| Some(read())));
        let read = timeout(self.limit, late).await.ok()?;
        self.late = None;
        read.ok().flatten()
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
        assert_eq!(reading.run(hangs).await, None);
        assert_eq!(reading.run(|| panic!("a second thread")).await, None);
        drop(release);
        reading.late_end().await;
        reading.limit = Duration::from_secs(60);
        assert_eq!(reading.run(|| 2).await, Some(2));
    }
}
