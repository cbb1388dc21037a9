//! How the thread that answers is made to stop between two calls, and what it works with is had from it meanwhile (O2).
//! Who waits for an answer waits longer. Knows neither calls nor answers.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Result, bail};

use super::hand;

/// How long a call may take that is being answered.
const PATIENCE: Duration = Duration::from_secs(1);

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
    /// It is to stop as soon as it comes by.
    Wanted,
    /// There is no thread.
    Still(Box<W>),
}

impl<W> Clone for Halt<W> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<W> Halt<W> {
    /// Of a thread that runs, or will.
    pub(super) fn new() -> Self {
        Self::with(Course::Runs)
    }

    /// Of one that has not begun.
    pub(super) fn of(work: W) -> Self {
        Self::with(Course::Still(Box::new(work)))
    }

    fn with(course: Course<W>) -> Self {
        Self(Arc::new(Shared { course: Mutex::new(course), changed: Condvar::new() }))
    }

    /// Stops the thread, which is called by way of the hand.
    ///
    /// # Errors
    /// It has not come by in time, and goes on.
    pub(super) fn stop(&self, hand: &hand::Sender) -> Result<()> {
        let mut course = self.course();
        if let Course::Still(_) = *course {
            return Ok(());
        }
        *course = Course::Wanted;
        drop(course);
        // What it has been given before comes first. Where it is full, it comes by as well.
        let _ = hand.call();
        let is_wanted = |course: &mut Course<W>| matches!(course, Course::Wanted);
        let course = self.course();
        let waited = self.0.changed.wait_timeout_while(course, PATIENCE, is_wanted);
        let (mut course, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if let Course::Still(_) = *course {
            return Ok(());
        }
        // When it comes by, nobody wants it any more.
        *course = Course::Runs;
        bail!("a call of the program's is not answered in time")
    }

    /// The thread has come by: gives what it works with back, if it is to go on.
    pub(super) fn come_by(&self, work: W) -> Option<W> {
        let mut course = self.course();
        if !matches!(*course, Course::Wanted) {
            return Some(work);
        }
        *course = Course::Still(Box::new(work));
        self.0.changed.notify_all();
        None
    }

    /// What the thread works with, while there is none.
    pub(super) fn look<T>(&self, look: impl FnOnce(&W) -> T) -> Option<T> {
        match &*self.course() {
            Course::Still(work) => Some(look(work)),
            Course::Runs | Course::Wanted => None,
        }
    }

    /// The same, for another thread.
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
