//! The reaper: it waits for every child that has ended, be it the leader, an orphan of the program's that became our
//! child, or a child that we had when we began (wait(2), prctl(2) for subreapers). A helper, which is in `aside`, may
//! be waited for elsewhere, too.

use nix::errno::Errno;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::aside::Aside;
use super::children::{self, Seen, Waited};
use super::number;
use crate::exit::ExitStatus;

/// Children that have ended, or were stopped, and have not been asked about.
#[derive(Debug)]
pub(crate) struct Reaper {
    aside: Aside,
    ended: Vec<(Pid, ExitStatus)>,
    stopped: Vec<Pid>,
}

/// What the new binary needs to know of them.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReaperState {
    #[serde(default)]
    ended: Vec<Ended>,
    #[serde(default)]
    stopped: Vec<Stopped>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Ended {
    #[serde(with = "number")]
    pid: Pid,
    status: ExitStatus,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stopped {
    #[serde(with = "number")]
    pid: Pid,
}

impl Reaper {
    /// It reports nothing of the children in `aside`.
    pub(crate) fn new(aside: Aside) -> Self {
        Self { aside, ended: vec![], stopped: vec![] }
    }

    pub(crate) fn save(&self) -> ReaperState {
        let ended = self.ended.iter().map(|(pid, status)| Ended { pid: *pid, status: *status });
        let stopped = self.stopped.iter().map(|pid| Stopped { pid: *pid });
        ReaperState { ended: ended.collect(), stopped: stopped.collect() }
    }

    pub(crate) fn resume(aside: Aside, state: ReaperState) -> Self {
        Self {
            aside,
            ended: state.ended.into_iter().map(|ended| (ended.pid, ended.status)).collect(),
            stopped: state.stopped.into_iter().map(|stopped| stopped.pid).collect(),
        }
    }

    /// Collects all children that have ended by now. False: there was none.
    pub(crate) fn collect(&mut self) -> bool {
        let before = self.ended.len();
        loop {
            match children::next() {
                Ok(Some(seen)) => self.collect_one(seen),
                Err(Errno::EINTR) => {}
                Ok(None) | Err(_) => break,
            }
        }
        self.ended.len() > before
    }

    fn collect_one(&mut self, Seen { pid, is_stopped }: Seen) {
        if !is_stopped && self.aside.wait_for(pid).is_some() {
            return;
        }
        let is_aside = self.aside.all().contains(&pid);
        match children::wait_for_change(pid) {
            Ok(_) if is_aside => {}
            Ok(Some(Waited::Stopped)) => self.stopped.push(pid),
            Ok(Some(Waited::Ended(end))) => self.ended.push((pid, ExitStatus::of_program(end))),
            // Interrupted, or waited for elsewhere: the next look shows it.
            Ok(None) | Err(_) => {}
        }
    }

    /// The status of a child that was collected. The others are forgotten.
    pub(crate) fn take(&mut self, pid: Option<Pid>) -> Option<ExitStatus> {
        let ended = std::mem::take(&mut self.ended);
        ended.into_iter().find(|(ended, _)| Some(*ended) == pid).map(|(_, status)| status)
    }

    /// Whether a child was stopped since this was asked last.
    pub(crate) fn take_stopped(&mut self, pid: Option<Pid>) -> bool {
        let stopped = std::mem::take(&mut self.stopped);
        stopped.into_iter().any(|stopped| Some(stopped) == pid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn o2_who_was_collected_is_told_of_in_another_image() {
        let mut old = Reaper::new(Aside::default());
        let (one, other) = (Pid::from_raw(7), Pid::from_raw(8));
        old.ended.push((one, ExitStatus::FAILURE));
        old.stopped.push(other);
        let json = serde_json::to_string(&old.save()).expect("JSON");
        let state = serde_json::from_str(&json).expect("the same");
        let mut new = Reaper::resume(Aside::default(), state);
        assert!(new.take_stopped(Some(other)));
        assert_eq!(new.take(Some(one)), Some(ExitStatus::FAILURE));
    }
}
