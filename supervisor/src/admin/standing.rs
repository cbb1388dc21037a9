//! The standing, for requests at the admin address: whether clients are served, and what the program has done. The
//! modules that know these things note them here, and need not know whether there is an admin address.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::exit::ExitStatus;
use crate::relay::{NotReady, RelayView};

/// How long a request waits for the look at the program that it asks for: where looks take long, they are a second
/// apart at most.
const LOOK: Duration = Duration::from_secs(2);

/// The standing. Copies share it.
#[derive(Debug, Clone)]
pub(crate) struct Standing(Arc<Noted>);

#[derive(Debug)]
struct Noted {
    began: SystemTime,
    relay: OnceLock<RelayView>,
    course: Mutex<Course>,
    /// Whether the program was looked at, and the main loop has not acted yet on what was seen.
    has_looked: AtomicBool,
    /// How often the program was looked at, and the main loop has acted on what was seen.
    looks: watch::Sender<u64>,
    program: ProgramNotes,
}

/// Whether the administrator can have anything done. It is behind a lock, which a request holds until it has had its
/// effect: a hand-over that begins after that saves the effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Course {
    Stays,
    /// We were asked to drain; the relay may not have heard it yet.
    Drains,
    /// A new binary takes our place in a hand-over, or we have taken the place of another and may still give it back.
    /// What is asked for now might be lost.
    Leaves,
}

/// What the old binary saves of it for the new one in a hand-over (O2).
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SavedStanding {
    /// Milliseconds since 1970.
    began: u64,
    starts: u64,
    ends: [u64; ProgramEnd::NAMES.len()],
    started: u64,
}

#[derive(Debug, Default)]
struct ProgramNotes {
    starts: AtomicU64,
    ends: [AtomicU64; ProgramEnd::NAMES.len()],
    /// When the present instance was started, milliseconds since 1970; 0: there is none.
    started: AtomicU64,
}

/// How a program, or its first process, has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProgramEnd {
    /// The first process ended with status 0; the program may go on as a daemon.
    Success,
    /// The first process ended with another status.
    Failure,
    /// A signal ended the first process.
    Signal,
    /// The program had become a daemon, and that has ended.
    Daemon,
}

impl ProgramEnd {
    pub(super) const NAMES: [&'static str; 4] = ["success", "failure", "signal", "daemon"];

    /// Of a first process with this status.
    pub(crate) fn of(status: ExitStatus) -> Self {
        match status.code() {
            0 => Self::Success,
            // 128 and the signal, as a shell shows it. There are 64 signals.
            129..=192 => Self::Signal,
            _ => Self::Failure,
        }
    }
}

/// There is a hand-over, so that nothing can be done for a moment.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Leaving;

impl Default for Standing {
    /// The standing of a websockify that starts now.
    fn default() -> Self {
        Self::new(SystemTime::now(), Course::Stays, ProgramNotes::default())
    }
}

impl Standing {
    fn new(began: SystemTime, course: Course, program: ProgramNotes) -> Self {
        Self(Arc::new(Noted {
            began,
            relay: OnceLock::new(),
            course: Mutex::new(course),
            has_looked: AtomicBool::new(false),
            looks: watch::Sender::new(0),
            program,
        }))
    }

    /// The standing that the old binary has saved in a hand-over, which lasts until we [stay](Self::stay).
    pub(crate) fn resume(saved: &SavedStanding) -> Self {
        let program = ProgramNotes {
            starts: saved.starts.into(),
            ends: saved.ends.map(AtomicU64::new),
            started: saved.started.into(),
        };
        let began = UNIX_EPOCH.checked_add(Duration::from_millis(saved.began));
        Self::new(began.unwrap_or(UNIX_EPOCH), Course::Leaves, program)
    }

    pub(crate) fn save(&self) -> SavedStanding {
        let ProgramNotes { starts, ends, started } = &self.0.program;
        let number = |count: &AtomicU64| count.load(Ordering::Relaxed);
        SavedStanding {
            began: u64::try_from(self.began().as_millis()).unwrap_or(u64::MAX),
            starts: number(starts),
            ends: std::array::from_fn(|at| number(&ends[at])),
            started: number(started),
        }
    }

    /// When we have begun, since 1970.
    pub(super) fn began(&self) -> Duration {
        self.0.began.duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    /// From now on this relay says whether clients are served. Only the first call counts.
    pub(crate) fn watch(&self, relay: RelayView) {
        let _ = self.0.relay.set(relay);
    }

    fn course(&self) -> MutexGuard<'_, Course> {
        self.0.course.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From here on we are not ready.
    ///
    /// # Errors
    /// There is a hand-over.
    pub(super) fn begin_drain(&self) -> Result<(), Leaving> {
        let mut course = self.course();
        if *course == Course::Leaves {
            return Err(Leaving);
        }
        *course = Course::Drains;
        Ok(())
    }

    /// Does what would be lost in a hand-over. None begins meanwhile.
    ///
    /// # Errors
    /// There is one already.
    pub(super) fn while_here<T>(&self, deed: impl FnOnce() -> T) -> Result<T, Leaving> {
        let course = self.course();
        if *course == Course::Leaves {
            return Err(Leaving);
        }
        Ok(deed())
    }

    /// A hand-over begins. False: somebody has asked us to drain, which the new binary would not know.
    pub(crate) fn leave(&self) -> bool {
        let mut course = self.course();
        if *course == Course::Drains {
            return false;
        }
        *course = Course::Leaves;
        true
    }

    /// The hand-over is over, and we are those who go on.
    pub(crate) fn stay(&self) {
        let mut course = self.course();
        if *course == Course::Leaves {
            *course = Course::Stays;
        }
    }

    /// Whether a client who comes now is served.
    pub(crate) fn ready(&self) -> Result<(), NotReady> {
        if *self.course() == Course::Drains {
            return Err(NotReady::Draining);
        }
        self.0.relay.get().map_or(Err(NotReady::Starting), RelayView::ready)
    }

    /// Whether the program listens. None: there is no program.
    pub(super) fn program_listens(&self) -> Option<bool> {
        self.0.relay.get().and_then(RelayView::program_listens)
    }

    /// The program was looked at.
    pub(crate) fn looked(&self) {
        self.0.has_looked.store(true, Ordering::Relaxed);
    }

    /// The main loop has acted on what was seen of the program.
    pub(crate) fn settled(&self) {
        if self.0.has_looked.swap(false, Ordering::Relaxed) {
            self.0.looks.send_modify(|looks| *looks += 1);
        }
    }

    /// Has the main loop look at the program, if the program is thought to listen: it may have closed its listener, of
    /// which nothing tells us. While the program is not thought to listen, the main loop looks by itself.
    pub(super) async fn look(&self, want: impl FnOnce()) {
        if self.program_listens() != Some(true) {
            return;
        }
        let mut looks = self.0.looks.subscribe();
        want();
        let _ = timeout(LOOK, looks.changed()).await;
    }

    pub(crate) fn program_started(&self) {
        self.0.program.starts.fetch_add(1, Ordering::Relaxed);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        self.0.program.started.store(now, Ordering::Relaxed);
    }

    pub(crate) fn program_ended(&self, how: ProgramEnd) {
        self.0.program.ends[how as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// No process of the present instance goes on.
    pub(crate) fn program_is_over(&self) {
        self.0.program.started.store(0, Ordering::Relaxed);
    }

    pub(super) fn program_starts(&self) -> u64 {
        self.0.program.starts.load(Ordering::Relaxed)
    }

    pub(super) fn program_ends(&self) -> impl Iterator<Item = bridge::Counted> {
        let ends = self.0.program.ends.iter().map(|count| count.load(Ordering::Relaxed));
        ProgramEnd::NAMES.into_iter().zip(ends)
    }

    /// When the present instance was started, since 1970; 0: there is none.
    pub(super) fn program_started_at(&self) -> Duration {
        Duration::from_millis(self.0.program.started.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn o3_o2_what_is_asked_for_is_done_by_the_binary_that_goes_on() {
        let standing = Standing::default();
        assert_eq!(standing.while_here(|| 7), Ok(7));
        assert!(standing.leave());
        assert_eq!(
            (standing.begin_drain(), standing.while_here(|| 7)),
            (Err(Leaving), Err(Leaving))
        );
        assert!(standing.leave(), "it leaves already");
        // In the new binary, until there is no way back.
        let taken_over = Standing::resume(&standing.save());
        assert_eq!(taken_over.begin_drain(), Err(Leaving));
        taken_over.stay();
        assert_eq!(taken_over.begin_drain(), Ok(()));
        // In the old binary, where the hand-over has failed.
        standing.stay();
        assert_eq!((standing.while_here(|| 7), standing.begin_drain()), (Ok(7), Ok(())));
        standing.stay();
        assert!(!standing.leave(), "it drains");
        assert_eq!((standing.while_here(|| 7), standing.begin_drain()), (Ok(7), Ok(())));
    }
}
