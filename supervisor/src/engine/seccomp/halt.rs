//! The halt of the thread that answers: for a hand-over (O2) it stops between two calls, and leaves here what it works
//! with. Calls that come meanwhile wait longer. Knows neither calls nor answers.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};

use super::hand;

/// How long the call that is being answered may take.
const HALT_TIMEOUT: Duration = Duration::from_secs(1);

/// Shared with the thread, which works with `W`.
#[derive(Debug)]
pub(super) struct Halt<W>(Arc<Shared<W>>);

#[derive(Debug)]
struct Shared<W> {
    course: Mutex<Course<W>>,
    changed: Condvar,
}

#[derive(Debug)]
enum Course<W> {
    Runs,
    /// The thread is to stop as soon as it looks here.
    Wanted,
    /// There is no thread. This is what it has left.
    Still(Box<W>),
}

impl<W> Clone for Halt<W> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<W> Halt<W> {
    /// For a thread that runs, or will run.
    pub(super) fn new() -> Self {
        Self::with(Course::Runs)
    }

    /// For a thread that has not begun, with what it will work with.
    pub(super) fn of(work: W) -> Self {
        Self::with(Course::Still(Box::new(work)))
    }

    fn with(course: Course<W>) -> Self {
        Self(Arc::new(Shared { course: Mutex::new(course), changed: Condvar::new() }))
    }

    /// Stops the thread, which is woken through the hand.
    ///
    /// # Errors
    /// The thread has not looked here in time, and goes on.
    pub(super) fn stop(&self, hand: &hand::Sender) -> Result<()> {
        let mut course = self.course();
        if let Course::Still(_) = *course {
            return Ok(());
        }
        *course = Course::Wanted;
        drop(course);
        // The thread first takes what was sent to it before. If there is no room for this message, the thread may not
        // look here in time, and we give up below.
        let _ = hand.call();
        let is_wanted = |course: &mut Course<W>| matches!(course, Course::Wanted);
        let course = self.course();
        let waited = self.0.changed.wait_timeout_while(course, HALT_TIMEOUT, is_wanted);
        let (mut course, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if let Course::Still(_) = *course {
            return Ok(());
        }
        // When the thread looks here later, it is not to stop any more.
        *course = Course::Runs;
        bail!("a call of the program's is not answered in time")
    }

    /// Called by the thread when it was woken. Gives `work` back if the thread is to go on; else the thread must end.
    pub(super) fn come_by(&self, work: W) -> Option<W> {
        let mut course = self.course();
        if !matches!(*course, Course::Wanted) {
            return Some(work);
        }
        *course = Course::Still(Box::new(work));
        self.0.changed.notify_all();
        None
    }

    /// Looks at what the thread has left. None: the thread runs.
    pub(super) fn look<T>(&self, look: impl FnOnce(&W) -> T) -> Option<T> {
        match &*self.course() {
            Course::Still(work) => Some(look(work)),
            Course::Runs | Course::Wanted => None,
        }
    }

    /// Starts a thread that calls `run` with the work.
    ///
    /// # Errors
    /// No thread can be started. The work is left here, as by a thread that has stopped.
    pub(super) fn begin(
        &self,
        thread: thread::Builder,
        work: W,
        run: impl FnOnce(W, &Self) + Send + 'static,
    ) -> io::Result<()>
    where
        W: Send + 'static,
    {
        // The standard library drops what a thread was to have that it cannot start.
        let lent = Arc::new(Mutex::new(Some(work)));
        let (theirs, halt) = (Arc::clone(&lent), self.clone());
        let take =
            |lent: &Mutex<Option<W>>| lent.lock().unwrap_or_else(PoisonError::into_inner).take();
        let started = thread.spawn(move || take(&theirs).map(|work| run(work, &halt)));
        started.map(drop).inspect_err(|_| {
            if let Some(work) = take(&lent) {
                *self.course() = Course::Still(Box::new(work));
            }
        })
    }

    /// Takes what the thread has left, for another thread.
    pub(super) fn take(&self) -> Option<W> {
        let mut course = self.course();
        match std::mem::replace(&mut *course, Course::Runs) {
            Course::Still(work) => Some(*work),
            running => {
                *course = running;
                None
            }
        }
    }

    fn course(&self) -> MutexGuard<'_, Course<W>> {
        self.0.course.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn o2_what_no_thread_could_begin_with_is_left_for_a_later_one() {
        let halt = Halt::of(7);
        let (begun, begins) = mpsc::channel();
        for (stack, is_started) in [(1 << 60, false), (1 << 60, false), (1 << 16, true)] {
            let (thread, begun) = (thread::Builder::new().stack_size(stack), begun.clone());
            let work = halt.take().expect("left");
            let started = halt.begin(thread, work, move |work, _| {
                let _ = begun.send(work);
            });
            assert_eq!(started.is_ok(), is_started, "{stack}");
        }
        assert_eq!(begins.recv_timeout(HALT_TIMEOUT * 20), Ok(7));
        assert_eq!(halt.take(), None, "a thread has it");
    }
}
