//! The program's life: its states, the events that can happen to it, and the actions that can be done. How one leads to
//! the other, [`step`] says. All here is pure: no system call, no clock.
//!
//! An *instance* is one run of the program: its leader (the process that we started) and whatever
//! that forked. What an instance left behind without listening is a *leftover*.

mod on_demand;
mod step;

use std::time::{Duration, Instant};

use bridge::Demand;
use serde::{Deserialize, Serialize};

use crate::clock::{instant, maybe_instant};
use crate::exit::ExitStatus;
use on_demand::Retiring;
pub(crate) use step::{ended_without_listening, step};

/// After this long, a program that has not listened is warned of, if `wrap_timeout` is not even shorter (W12).
const SILENCE: Duration = Duration::from_secs(10);
/// How long SIGKILL may take before those who survived it are named (W9).
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// The next state, and what is to be done on the way to it.
type Next = (State, Vec<Action>);

/// What to do when the program exits or daemonizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WrapMode {
    Exit,
    Ignore,
    Respawn,
}

/// When the program is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// At once.
    Now,
    /// When the first client has come (O5).
    OnDemand {
        /// How long it goes on without a client; none: for ever.
        stop_idle: Option<Duration>,
    },
}

/// What the caller of websockify decided about the program's life.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Policy {
    pub(crate) mode: WrapMode,
    pub(crate) start: Start,
    /// How long a program whose leader has ended may take to listen.
    pub(crate) wrap_timeout: Duration,
    /// How long open sessions, and then the program, may take to end.
    pub(crate) stop_timeout: Duration,
    /// How long sessions may go on when we are asked to end; zero: not at all.
    pub(crate) drain_timeout: Duration,
}

impl Policy {
    /// How long a program may take to listen before it is warned of.
    fn silence(&self) -> Duration {
        SILENCE.min(self.wrap_timeout)
    }
}

/// Where the program is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum State {
    /// On demand: it does not run, and there is no client.
    Asleep { failures: u32 },
    /// The leader runs; no process of the instance has listened yet.
    Starting { run: Run, warned: bool },
    /// The leader runs, and a process of the instance has listened.
    Listening { run: Run },
    /// The leader has ended with status 0 before any process listened, and has left processes.
    Settling {
        run: Run,
        #[serde(with = "instant")]
        until: Instant,
        warned: bool,
    },
    /// The leader is gone; a process of the instance listens.
    Daemonized { run: Run },
    /// An instance failed; the next one starts at `until`, if it is wanted then.
    Backoff {
        #[serde(with = "instant")]
        until: Instant,
        failures: u32,
        is_wanted: bool,
    },
    /// On demand: there has been no client for long, and the program is being ended.
    Retiring(Retiring),
    /// Under `ignore`: it has ended, after it had listened. The bridge says so to its clients.
    Gone,
    /// Under `exit`, it has ended or daemonized; under `ignore`, it has ended without having listened. Open sessions come
    /// to their end.
    Finishing {
        #[serde(with = "instant")]
        until: Instant,
        status: ExitStatus,
    },
    /// We are asked to end, and sessions have until `until` to come to their end (O1). The program is not started
    /// again.
    Draining {
        #[serde(with = "instant")]
        until: Instant,
        status: ExitStatus,
        program: Remaining,
    },
    /// Everything is being ended.
    Stopping(Stopping),
    /// Under `ignore`: sessions are being closed, the daemon is left running.
    Leaving,
    /// Over. Nothing happens any more.
    Ended { status: ExitStatus },
}

/// What is known of one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Run {
    #[serde(with = "instant")]
    started: Instant,
    /// Whether it is the first instance.
    first: bool,
    /// How many instances before it failed in a row.
    failures: u32,
    /// On demand: since when there is no client.
    #[serde(default, with = "maybe_instant")]
    idle_since: Option<Instant>,
    /// On demand: whether a client waits for the program. Otherwise it is true, as a client may come.
    is_wanted: bool,
}

/// Which process of the program is left while its sessions are drained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Remaining {
    /// The leader, which runs, or is being started.
    Leader,
    /// A process of the instance that listens, and goes on without a leader.
    Daemon,
    /// No process that listens, or will.
    Nobody,
}

/// What [`State::Stopping`] waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stopping {
    status: ExitStatus,
    /// The deadline of SIGTERM, at which SIGKILL is sent; after that, the deadline of SIGKILL, at which we give up.
    #[serde(with = "instant")]
    until: Instant,
    killed: bool,
    tree_empty: bool,
    bridge_ended: bool,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// The program could not be started. The status is the one that a shell has for that.
    SpawnFailed(ExitStatus),
    /// The program cannot be started any more.
    LauncherLost,
    /// A process of the instance listens on the relocated port.
    Listening,
    /// No process of the instance listens there any more.
    ListenerGone,
    /// The leader has ended.
    LeaderEnded { status: ExitStatus, left: Left, served: bool },
    /// The leader was ended from the terminal while that was lent to the program (^C).
    Interrupted(ExitStatus),
    /// The last of the processes that held the listener when the instance daemonized has ended.
    DaemonEnded { served: bool },
    /// No process of any instance is left.
    TreeEmpty,
    /// On demand: whether the program is needed has changed.
    Demand(Demand),
    /// The bridge has ended: it was told to, or for a reason of its own, with this status.
    BridgeEnded(ExitStatus),
    /// [`State::deadline`] has come.
    Deadline,
    /// A signal asks us to stop. A second one means: at once.
    Stop,
    /// Somebody asks us to drain. For a second time, that changes nothing.
    Drain,
}

/// Which processes the leader left when it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    Nobody,
    /// Processes, none of which listens.
    Idle,
    /// A process that listens on the relocated port.
    Listener,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Let clients in, to be held.
    AcceptClients,
    Spawn,
    /// Say that the program has not listened yet, and why that may be.
    WarnSilent,
    /// Say that the processes that the leader left have not listened in their time.
    WarnSettled,
    /// Say that the program has ended, and no process of it has listened.
    WarnNeverListened,
    /// Say that the program comes and goes too fast, and when it is tried next.
    WarnFast {
        delay: Duration,
    },
    /// Say that the program has daemonized, and watch those that listen.
    Daemonized,
    /// Let clients through: to begin with, or again.
    OpenBridge,
    /// Hold the clients that come.
    PauseBridge,
    /// Tell clients that the program cannot be started.
    FailClients,
    /// Tell clients that the program is gone for good.
    RefuseSessions,
    /// Accept nobody, let sessions come to their end.
    FinishBridge,
    /// Accept nobody, let sessions come to their end, and tell other clients to come again (O1).
    DrainBridge,
    /// Accept nobody, close every session.
    StopBridge,
    /// Say that there has been no client for long, and that the program is therefore ended.
    TellIdle,
    /// SIGTERM to every process of every instance.
    Terminate,
    /// SIGKILL to every process of every instance.
    Kill,
    /// Say that the daemon goes on without us.
    LeaveDaemon,
    /// Name the processes that cannot be ended.
    NameSurvivors,
}

impl State {
    /// The beginning: the first instance is to be started, or awaits its first client.
    pub(crate) fn begin(now: Instant, policy: &Policy) -> (Self, Vec<Action>) {
        if let Start::OnDemand { .. } = policy.start {
            return (Self::Asleep { failures: 0 }, vec![Action::AcceptClients]);
        }
        let run = Run { started: now, first: true, failures: 0, idle_since: None, is_wanted: true };
        (Self::Starting { run, warned: false }, vec![Action::Spawn])
    }

    /// Another instance is started, for the clients that wait for it.
    fn start(failures: u32, now: Instant) -> Next {
        let run = Run { started: now, first: false, failures, idle_since: None, is_wanted: true };
        (Self::Starting { run, warned: false }, vec![Action::PauseBridge, Action::Spawn])
    }

    /// When [`Event::Deadline`] is due.
    pub(crate) fn deadline(&self, policy: &Policy) -> Option<Instant> {
        let of_state = match self {
            Self::Starting { run, warned: false } => Some(run.started + policy.silence()),
            Self::Settling { run, until, warned: false } => {
                Some((run.started + policy.silence()).min(*until))
            }
            Self::Settling { until, .. }
            | Self::Backoff { until, .. }
            | Self::Finishing { until, .. }
            | Self::Draining { until, .. }
            | Self::Retiring(Retiring { until, .. })
            | Self::Stopping(Stopping { until, .. }) => Some(*until),
            _ => None,
        };
        [of_state, self.idle_until(policy)].into_iter().flatten().min()
    }

    /// For the log.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Asleep { .. } => "asleep",
            Self::Starting { .. } => "starting",
            Self::Listening { .. } => "listening",
            Self::Settling { .. } => "settling",
            Self::Daemonized { .. } => "daemonized",
            Self::Backoff { .. } => "backoff",
            Self::Retiring(_) => "retiring",
            Self::Gone => "gone",
            Self::Finishing { .. } => "finishing",
            Self::Draining { .. } => "draining",
            Self::Stopping(_) => "stopping",
            Self::Leaving => "leaving",
            Self::Ended { .. } => "ended",
        }
    }

    /// For `systemctl status`.
    pub(crate) fn description(&self) -> &'static str {
        match self {
            Self::Asleep { .. } => "Waiting for a client to start the program for",
            Self::Starting { .. } => "Waiting for the program to listen",
            Self::Settling { .. } => "Waiting for what the program has left to listen",
            Self::Listening { .. } => "Bridging to the program",
            Self::Daemonized { .. } => "Bridging to the daemonized program",
            Self::Backoff { .. } => "Waiting to start the program again: it fails too fast",
            Self::Retiring(_) => "Stopping the program, which nobody uses",
            Self::Gone => "The program has ended; refusing sessions",
            Self::Finishing { .. } => "The program has ended; finishing its sessions",
            Self::Draining { .. } => "Draining",
            Self::Stopping(_) | Self::Leaving | Self::Ended { .. } => "Stopping",
        }
    }

    /// Whether processes of an instance may run.
    pub(crate) fn has_instance(&self) -> bool {
        !matches!(
            self,
            Self::Asleep { .. }
                | Self::Backoff { .. }
                | Self::Gone
                | Self::Finishing { .. }
                | Self::Draining { program: Remaining::Nobody, .. }
                | Self::Ended { .. }
        )
    }

    /// Whether the program is being started for the first time, before clients can come.
    pub(crate) fn is_first_start(&self) -> bool {
        matches!(self, Self::Starting { run: Run { first: true, .. }, .. })
    }

    /// Whether all that can follow is our end.
    pub(crate) fn is_ending(&self) -> bool {
        matches!(
            self,
            Self::Finishing { .. }
                | Self::Draining { .. }
                | Self::Stopping(_)
                | Self::Leaving
                | Self::Ended { .. }
        )
    }

    /// Whether processes of the program may still end by SIGTERM, and are not killed yet.
    pub(crate) fn is_terminating(&self) -> bool {
        match self {
            Self::Stopping(stopping) => stopping.awaits_tree() && !stopping.killed,
            Self::Retiring(retiring) => !retiring.is_killed,
            _ => false,
        }
    }

    /// Whether processes of the program are being killed.
    pub(crate) fn is_killing(&self) -> bool {
        match self {
            Self::Stopping(stopping) => stopping.killed,
            Self::Retiring(retiring) => retiring.is_killed,
            _ => false,
        }
    }

    /// Whether it matters which process listens.
    pub(crate) fn minds_listener(&self) -> bool {
        self.awaits_listener() || matches!(self, Self::Gone | Self::Draining { .. })
    }

    /// Whether, if no process is seen to listen, one may listen that we have not seen yet.
    pub(crate) fn awaits_listener(&self) -> bool {
        matches!(
            self,
            Self::Starting { .. }
                | Self::Settling { .. }
                | Self::Listening { .. }
                | Self::Daemonized { .. }
        )
    }
}

impl Stopping {
    /// Whether processes were still left when we last heard of them.
    pub(crate) fn awaits_tree(&self) -> bool {
        !self.tree_empty
    }
}

#[cfg(test)]
mod handed_over;
#[cfg(test)]
mod tests;
