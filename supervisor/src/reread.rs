//! Files that are read again on SIGHUP, for the clients that come after that: whatever was read last counts, and a file
//! that cannot be used changes nothing. Other work on files that may hang takes its turns here too. Knows nothing of what
//! is in them.

use std::sync::Arc;

use anyhow::Result;
use tokio::sync::{Mutex, Semaphore, watch};
use tracing::{info, warn};

use crate::exit::Failure;

/// One reading is at work at a time, and one more waits at most, which finds whatever is there by then: a file system
/// that hangs holds up no more than these two. A clone takes turns with its original.
#[derive(Debug, Clone)]
pub(crate) struct Reread {
    waiting: Arc<Semaphore>,
    at_work: Arc<Mutex<()>>,
}

/// What the log says of a reading.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Words {
    pub(crate) done: &'static str,
    /// Followed by the reason.
    pub(crate) failed: &'static str,
}

impl Default for Reread {
    fn default() -> Self {
        Self { waiting: Arc::new(Semaphore::new(1)), at_work: Arc::default() }
    }
}

impl Reread {
    /// Begins a reading, and gives `used` what it finds. Needs a runtime.
    pub(crate) fn begin<T: Send + Sync + 'static>(
        &self,
        reading: impl Future<Output = Result<T>> + Send + 'static,
        used: watch::Sender<T>,
        words: Words,
    ) {
        self.begin_work(async move {
            match reading.await {
                Ok(read) => {
                    used.send_replace(read);
                    info!("{}", words.done);
                }
                Err(failure) => warn!("{}: {}", words.failed, Failure::from(failure).reason),
            }
        });
    }

    /// The same for work that gives nothing. Needs a runtime.
    pub(crate) fn begin_work(&self, work: impl Future<Output = ()> + Send + 'static) {
        let Ok(place) = Arc::clone(&self.waiting).try_acquire_owned() else { return };
        let at_work = Arc::clone(&self.at_work);
        tokio::spawn(async move {
            let _alone = at_work.lock().await;
            drop(place);
            work.await;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORDS: Words = Words { done: "read", failed: "not read" };

    /// As on a hundred SIGHUPs while the first reading hangs.
    #[tokio::test]
    async fn k2_c9_while_one_reading_hangs_one_more_waits() {
        let reread = Reread::default();
        let (used, mut seen) = watch::channel(0);
        let hanging = Arc::new(Semaphore::new(0));
        for number in 1..=100 {
            let hanging = Arc::clone(&hanging);
            let reading = async move {
                let _ = hanging.acquire().await?;
                Ok(number)
            };
            reread.begin(reading, used.clone(), WORDS);
            tokio::task::yield_now().await;
        }
        hanging.add_permits(1);
        seen.wait_for(|number| *number == 2).await.unwrap();
        drop(used);
        assert!(seen.changed().await.is_err(), "nobody else has waited");
        let (used, mut seen) = watch::channel(0);
        reread.begin(async { Err(anyhow::anyhow!("it is not there")) }, used.clone(), WORDS);
        reread.begin(async { Ok(3) }, used, WORDS);
        // The first still waits when the second is begun, so the second is left out; the first fails.
        assert!(seen.changed().await.is_err());
    }
}
