//! How we stand, for whoever asks at the admin address: whether clients are served, and what the program has done.
//! Noted by those parts that know it, which need not know whether anybody asks.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::exit::ExitStatus;
use crate::relay::{NotReady, RelayView};

/// How long a look is waited for: looks are apart from each other by a second at most, where they take long.
const LOOK: Duration = Duration::from_secs(2);

/// How we stand. Copies are the same.
#[derive(Debug, Clone)]
pub(crate) struct Standing(Arc<Noted>);

#[derive(Debug)]
struct Noted {
    began: SystemTime,
    relay: OnceLock<RelayView>,
    /// We were asked to drain; the relay may not have heard it yet.
    drains: AtomicBool,
    /// Whether the program was looked at, and what came of it is not yet noted.
    has_looked: AtomicBool,
    /// How often it was looked at, with what came of it.
    looks: watch::Sender<u64>,
    program: ProgramNotes,
}

/// What is noted for our whole life, on its way to another image of this program (O2).
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
    /// Its first process, with status 0; it may go on as a daemon.
    Success,
    /// Its first process, with another status.
    Failure,
    /// Its first process, by a signal.
    Signal,
    /// As a daemon.
    Daemon,
}

impl ProgramEnd {
    pub(super) const NAMES: [&'static str; 4] = ["success", "failure", "signal", "daemon"];

    /// Of a first process with this status.
    pub(crate) fn of(status: ExitStatus) -> Self {
        match status.code() {
            0 => Self::Success,
            // As a shell shows it.
            129.. => Self::Signal,
            _ => Self::Failure,
        }
    }
}

impl Default for Standing {
    /// We begin.
    fn default() -> Self {
        Self::new(SystemTime::now(), ProgramNotes::default())
    }
}

impl Standing {
    fn new(began: SystemTime, program: ProgramNotes) -> Self {
        Self(Arc::new(Noted {
            began,
            relay: OnceLock::new(),
            drains: AtomicBool::new(false),
            has_looked: AtomicBool::new(false),
            looks: watch::Sender::new(0),
            program,
        }))
    }

    /// We go on.
    pub(crate) fn resume(saved: &SavedStanding) -> Self {
        let program = ProgramNotes {
            starts: saved.starts.into(),
            ends: saved.ends.map(AtomicU64::new),
            started: saved.started.into(),
        };
        let began = UNIX_EPOCH.checked_add(Duration::from_millis(saved.began));
        Self::new(began.unwrap_or(UNIX_EPOCH), program)
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

    /// This is what clients are served by. The first one counts.
    pub(crate) fn watch(&self, relay: RelayView) {
        let _ = self.0.relay.set(relay);
    }

    /// From here on we are not ready.
    pub(super) fn begin_drain(&self) {
        self.0.drains.store(true, Ordering::Relaxed);
    }

    /// Whether somebody has asked us to drain.
    pub(crate) fn drains(&self) -> bool {
        self.0.drains.load(Ordering::Relaxed)
    }

    /// Whether a client who comes now is served.
    pub(crate) fn ready(&self) -> Result<(), NotReady> {
        if self.0.drains.load(Ordering::Relaxed) {
            return Err(NotReady::Draining);
        }
        self.0.relay.get().map_or(Err(NotReady::Starting), RelayView::ready)
    }

    /// Whether the program listens; none: there is none.
    pub(super) fn program_listens(&self) -> Option<bool> {
        self.0.relay.get().and_then(RelayView::program_listens)
    }

    /// The program was looked at.
    pub(crate) fn looked(&self) {
        self.0.has_looked.store(true, Ordering::Relaxed);
    }

    /// What was seen of the program has had its consequences.
    pub(crate) fn settled(&self) {
        if self.0.has_looked.swap(false, Ordering::Relaxed) {
            self.0.looks.send_modify(|looks| *looks += 1);
        }
    }

    /// Has the program looked at, if it is thought to listen: it may have closed its listener, of which nobody tells us.
    /// Where it is not, it is looked at unasked.
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

    /// Nothing of the present instance goes on.
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

    /// Since 1970; 0: none runs.
    pub(super) fn program_started_at(&self) -> Duration {
        Duration::from_millis(self.0.program.started.load(Ordering::Relaxed))
    }
}
