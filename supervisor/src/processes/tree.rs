//! The tree of processes below us: all that the program has started, however deep, found by their parents in proc(5).
//! As a child subreaper we become the parent of every orphan among them, so a walk that begins at us finds all.
//!
//! Two kinds of processes below us are set apart, with all that descends from them: those *inherited*, which were our
//! children before we began (`helper & exec websockify`), and *leftovers* of earlier instances. Helpers count as
//! inherited, whenever they were started. The process groups of such processes are set apart as well: an orphan still
//! shows its group when its parent is not known any more, and an instance begins with a group of its own. So are their
//! sessions, except ours, as an instance begins in that. Of the launcher, the process alone is set apart.

use std::collections::{HashMap, HashSet};
use std::io;

use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::aside::Aside;
use super::process::{Process, has_open};
use super::reap::Reaper;
use super::table::{ProcessTable, Seen};

/// How often we look once more, at most, as processes have ended while we looked. Processes that are set apart may fork
/// without pause.
const PASSES: usize = 20;

/// The processes below us.
#[derive(Debug)]
pub(crate) struct Tree {
    us: i32,
    our_session: i32,
    table: ProcessTable,
    aside: Aside,
    /// By pid.
    apart: HashMap<i32, Apart>,
    groups_apart: HashMap<i32, Relation>,
    sessions_apart: HashMap<i32, Relation>,
    /// The launcher. It is known by its process id alone, and not by its group: it has the program's user, whose
    /// processes may enter that group.
    launcher: Option<i32>,
    /// The groups of the processes that are not below us, as of the last look.
    groups_of_others: HashSet<i32>,
}

/// What the new binary needs to know of them.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct TreeState {
    apart: HashMap<i32, Apart>,
    groups_apart: HashMap<i32, Relation>,
    sessions_apart: HashMap<i32, Relation>,
}

/// A process that is set apart.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Apart {
    /// As in [`Seen::start`]: `None` if it was hidden all along.
    #[serde(default)]
    start: Option<u64>,
    relation: Relation,
}

/// What a process is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Relation {
    /// Of the present instance.
    Instance,
    /// Of an earlier instance.
    Leftover,
    /// Our child before we began, or a helper, or a descendant of one.
    Inherited,
    /// Not below us.
    Unrelated,
    /// Its parent has ended while we looked.
    Unknown,
}

impl Tree {
    /// Notes the children that we already have: they are inherited.
    ///
    /// # Errors
    ///
    /// /proc does not show who we are, or cannot be read.
    pub(crate) fn new(aside: Aside, launcher: Option<Pid>) -> io::Result<Self> {
        let mut tree = Self::resume(aside, launcher, TreeState::default())?;
        tree.set_apart(Relation::Inherited)?;
        Ok(tree)
    }

    /// Goes on with what the old binary has noted.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub(crate) fn resume(
        aside: Aside,
        launcher: Option<Pid>,
        state: TreeState,
    ) -> io::Result<Self> {
        let us = nix::unistd::getpid().as_raw();
        if std::fs::read_link("/proc/self")?.to_str() != Some(&us.to_string()) {
            return Err(io::Error::other("it belongs to another PID namespace"));
        }
        let TreeState { apart, mut groups_apart, sessions_apart } = state;
        let launcher = launcher.map(Pid::as_raw);
        // Another version may have set apart the group that the launcher leads, too.
        launcher.map(|launcher| groups_apart.remove(&launcher));
        Ok(Self {
            us,
            our_session: nix::unistd::getsid(None)?.as_raw(),
            table: ProcessTable::new(us),
            aside,
            apart,
            groups_apart,
            sessions_apart,
            launcher,
            groups_of_others: HashSet::new(),
        })
    }

    pub(crate) fn save(&self) -> TreeState {
        TreeState {
            apart: self.apart.clone(),
            groups_apart: self.groups_apart.clone(),
            sessions_apart: self.sessions_apart.clone(),
        }
    }

    /// Notes that an instance begins: the processes below us now are leftovers.
    pub(crate) fn begin_instance(&mut self) -> io::Result<()> {
        self.set_apart(Relation::Leftover)
    }

    /// The living processes of the present instance.
    pub(crate) fn instance(&mut self, reaper: &mut Reaper) -> io::Result<Vec<Process>> {
        self.living(reaper, |relation| relation == Relation::Instance)
    }

    /// The living processes of every instance.
    pub(crate) fn everyone(&mut self, reaper: &mut Reaper) -> io::Result<Vec<Process>> {
        self.living(reaper, |relation| relation != Relation::Inherited)
    }

    fn set_apart(&mut self, relation: Relation) -> io::Result<()> {
        for (seen, found) in self.below()? {
            if found == Relation::Instance {
                self.note_apart(&seen, relation);
            }
        }
        Ok(())
    }

    fn note_apart(&mut self, seen: &Seen, relation: Relation) {
        let known = self.apart.get(&seen.pid).and_then(|apart| apart.start);
        self.apart.insert(seen.pid, Apart { start: seen.start.or(known), relation });
        if self.launcher == Some(seen.pid) {
            return;
        }
        self.groups_apart.insert(seen.group, relation);
        if seen.session != self.our_session {
            self.sessions_apart.insert(seen.session, relation);
        }
    }

    /// One pass may miss a process that is forked while the pass goes on, by a parent that ends before it is read
    /// itself. That parent, or a process above it, is then a child of ours that has ended. So we believe that no
    /// process is left only after a pass during which no child has ended. If there is no such pass, we cannot say.
    fn living(
        &mut self,
        reaper: &mut Reaper,
        wanted: impl Fn(Relation) -> bool,
    ) -> io::Result<Vec<Process>> {
        at_rest(|| {
            let alive = self.below()?.into_iter().filter(|(seen, _)| seen.alive);
            let (those, others): (Vec<_>, Vec<_>) =
                alive.partition(|(_, relation)| wanted(*relation));
            let others = others.iter().map(|(seen, _)| seen.group);
            let others = others.chain(self.groups_of_others.iter().copied()).collect();
            let wanted: Vec<_> =
                those.into_iter().map(|(seen, _)| Process::from(seen).among(&others)).collect();
            Ok((!wanted.is_empty() || !reaper.collect()).then_some(wanted))
        })
    }

    /// All processes below us, zombies included. A process that descends from one that is set apart is set apart too,
    /// and stays so when its parent ends.
    fn below(&mut self) -> io::Result<Vec<(Seen, Relation)>> {
        let all = self.table.read()?;
        self.apart.retain(|pid, apart| all.get(pid).is_some_and(|seen| apart.is(seen)));
        let helpers = self.aside.all();
        for helper in helpers.iter().filter_map(|helper| all.get(&helper.as_raw())) {
            self.note_apart(helper, Relation::Inherited);
        }
        let mut found = Vec::new();
        self.groups_of_others.clear();
        for seen in all.values() {
            match self.relation(seen, &all) {
                Relation::Unrelated if seen.alive => {
                    self.groups_of_others.insert(seen.group);
                }
                Relation::Unrelated | Relation::Unknown => {}
                relation => found.push((seen.clone(), relation)),
            }
        }
        if found.is_empty() {
            self.table.check_for_nameless()?;
        }
        for (seen, relation) in &found {
            if *relation != Relation::Instance {
                self.note_apart(seen, *relation);
            }
        }
        let groups: HashSet<_> = found.iter().map(|(seen, _)| seen.group).collect();
        self.groups_apart.retain(|group, _| groups.contains(group));
        let sessions: HashSet<_> = found.iter().map(|(seen, _)| seen.session).collect();
        self.sessions_apart.retain(|session, _| sessions.contains(session));
        Ok(found)
    }

    fn relation(&self, seen: &Seen, all: &HashMap<i32, Seen>) -> Relation {
        let mut relation = Relation::Instance;
        let mut at = seen;
        // The processes are read one after the other, so the chain of parents could in theory be a circle; no real
        // chain is longer than there are processes.
        for _ in 0..all.len() {
            if relation == Relation::Instance {
                let apart = self.apart.get(&at.pid).filter(|apart| apart.is(at));
                let apart = apart.map(|apart| &apart.relation);
                let by_group = || self.groups_apart.get(&at.group);
                let by_session = || self.sessions_apart.get(&at.session);
                relation = *apart.or_else(by_group).or_else(by_session).unwrap_or(&relation);
            }
            if at.ppid == self.us {
                return relation;
            }
            match all.get(&at.ppid) {
                Some(parent) => at = parent,
                None if at.ppid == 0 => return Relation::Unrelated,
                None => return Relation::Unknown,
            }
        }
        Relation::Unknown
    }

    /// Whether a process that certainly is none of the instance's has the socket with this inode open.
    pub(crate) fn is_held_outside(&self, inode: u64) -> io::Result<bool> {
        let all = self.table.read()?;
        let is_outside = |seen: &&Seen| {
            !matches!(self.relation(seen, &all), Relation::Instance | Relation::Unknown)
        };
        Ok(all.values().filter(is_outside).any(|seen| has_open(seen.pid, inode)))
    }
}

/// What the first pass sees that counts.
fn at_rest<T>(mut pass: impl FnMut() -> io::Result<Option<T>>) -> io::Result<T> {
    for _ in 0..PASSES {
        if let Some(seen) = pass()? {
            return Ok(seen);
        }
    }
    Err(io::Error::other("they end faster than they can be looked at"))
}

impl Apart {
    /// Whether `seen` is this process, and not a later one with its id. A process that /proc hides is our child, or is
    /// in the list of a living parent: no other can have got its id.
    fn is(&self, seen: &Seen) -> bool {
        self.start.is_none() || seen.start.is_none() || self.start == seen.start
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;
    use nix::sys::signal::{Signal, kill};
    use nix::sys::wait::waitpid;

    fn sleeper() -> (i32, Child) {
        use std::os::unix::process::CommandExt;
        let child = Command::new("sleep").arg("1000").process_group(0).spawn().expect("started");
        (child.id().try_into().expect("a pid"), child)
    }

    /// A process that an earlier instance has left may fork without pause, so that at each pass some orphan has ended.
    #[test]
    fn w8_orphans_that_end_all_the_time_do_not_hold_up_a_look() {
        let mut passes = 0;
        let seen = at_rest(|| {
            passes += 1;
            assert!(passes < 1000, "it looks without end");
            Ok(None::<()>)
        });
        let error = seen.expect_err("nothing can be said").to_string();
        assert_eq!(error, "they end faster than they can be looked at");
        let mut later = [None, None, Some(7)].into_iter();
        assert_eq!(at_rest(|| Ok(later.next().flatten())).expect("seen"), 7);
    }

    /// After a hand-over a process is what it was before: inherited, a leftover, or the program's.
    #[test]
    fn o2_whose_a_process_is_does_not_change_with_the_image() {
        let (inherited, _one) = sleeper();
        let mut old = Tree::new(Aside::default(), None).expect("/proc");
        let (leftover, _other) = sleeper();
        old.begin_instance().expect("/proc");
        let (program, _third) = sleeper();
        let json = serde_json::to_string(&old.save()).expect("JSON");
        let state = serde_json::from_str(&json).expect("the same");
        let mut new = Tree::resume(Aside::default(), None, state).expect("/proc");
        let found = |below: Vec<(Seen, Relation)>| {
            [inherited, leftover, program].map(|pid| {
                let seen = below.iter().find(|(seen, _)| seen.pid == pid);
                seen.map(|(_, relation)| *relation)
            })
        };
        let expected = [Relation::Inherited, Relation::Leftover, Relation::Instance].map(Some);
        assert_eq!(found(new.below().expect("/proc")), expected);
        for pid in [inherited, leftover, program].map(Pid::from_raw) {
            kill(pid, Signal::SIGKILL).expect("killed");
            waitpid(pid, None).expect("waited for");
        }
    }
}
