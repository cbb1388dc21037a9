//! The threads that run the runtime's tasks (its workers), while they are kept from it: then none of them has a lock.
//! fork(2) copies a lock as it is, and nobody in the child would ever release it. Must not know why we fork.

use std::convert::Infallible;
use std::io;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

/// How long we wait before we wake the workers again.
const AGAIN: Duration = Duration::from_millis(5);

/// Workers that run no task until this is dropped.
pub(super) struct Held {
    _workers: Vec<Sender<Infallible>>,
}

/// Gives each worker of the runtime a task that blocks it. To be called on the thread of `block_on`, which is none of them.
///
/// # Errors
/// A worker is at another task for longer than `limit`.
pub(super) fn hold(limit: Duration) -> io::Result<Held> {
    let runtime = Handle::current();
    let deadline = Instant::now() + limit;
    let (stops, stopped) = mpsc::channel();
    let block = |_| {
        let (worker, end) = mpsc::channel();
        let stops = stops.clone();
        runtime.spawn(async move {
            let _ = stops.send(());
            // It fails when `worker` is dropped.
            let _ = end.recv();
        });
        worker
    };
    let workers: Vec<_> = (0..runtime.metrics().num_workers()).map(block).collect();
    for _ in &workers {
        while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(AGAIN) {
            if Instant::now() >= deadline {
                return Err(io::Error::other("a task does not pause in time"));
            }
            // A worker takes several tasks at once, so that a blocked one may have the task of another that sleeps.
            // Whoever is woken looks for such tasks.
            runtime.spawn(async {});
        }
    }
    Ok(Held { _workers: workers })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use tokio::runtime::{Builder, Runtime};
    use tokio::task::yield_now;

    use super::*;

    fn runtime() -> Runtime {
        Builder::new_multi_thread().worker_threads(4).enable_all().build().expect("a runtime")
    }

    #[test]
    fn o2_no_task_runs_while_the_workers_are_held() {
        let (runtime, turns) = (runtime(), Arc::new(AtomicUsize::new(0)));
        for _ in 0..20 {
            let turns = Arc::clone(&turns);
            runtime.spawn(async move {
                loop {
                    turns.fetch_add(1, Ordering::Relaxed);
                    yield_now().await;
                }
            });
        }
        let _context = runtime.enter();
        for _ in 0..200 {
            let held = hold(Duration::from_secs(10)).expect("held");
            let before = turns.load(Ordering::Relaxed);
            let until = Instant::now() + Duration::from_millis(1);
            while Instant::now() < until {
                assert_eq!(turns.load(Ordering::Relaxed), before);
                thread::yield_now();
            }
            drop(held);
            let deadline = Instant::now() + Duration::from_secs(10);
            while turns.load(Ordering::Relaxed) == before {
                assert!(Instant::now() < deadline, "the tasks go on");
                thread::yield_now();
            }
        }
        runtime.shutdown_background();
    }

    #[test]
    fn o2_workers_that_sleep_are_held_at_once() {
        let runtime = runtime();
        let _context = runtime.enter();
        for _ in 0..200 {
            drop(hold(Duration::from_secs(10)).expect("held"));
        }
    }

    #[test]
    fn o2_a_task_that_blocks_is_not_waited_for_for_ever() {
        let runtime = runtime();
        let (end, ended) = mpsc::channel::<Infallible>();
        runtime.spawn(async move { ended.recv().expect_err("the other end is dropped") });
        let _context = runtime.enter();
        let error = hold(Duration::from_millis(50)).err().expect("a worker is busy");
        assert_eq!(error.to_string(), "a task does not pause in time");
        drop(end);
        hold(Duration::from_secs(10)).expect("held");
    }
}
