//! How many sessions are bound for the wrapped program, and how many of these wait for it. By these numbers the
//! supervisor starts and stops the program. Knows numbers; neither the sessions nor the program.

use tokio::sync::watch;

/// Whether the program is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Demand {
    /// There is no session.
    Nobody,
    /// There are sessions, each of which has had its connection to the program.
    Served,
    /// A session waits for a connection.
    Waiting,
}

/// How many sessions are bound for the program, and how many of them wait.
#[derive(Debug, Clone, Copy, Default)]
pub struct Attendance {
    sessions: usize,
    waiting: usize,
}

/// Counts these sessions. The receiver is woken when the [`Demand`] changes.
#[derive(Debug)]
pub struct Counter(watch::Sender<Attendance>);

/// A session that waits for a connection to the program, until this is dropped.
#[derive(Debug)]
pub(crate) struct Waiting<'a>(&'a Counter);

impl Attendance {
    /// How many wait for a connection to the program.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Whether the program is needed, by these numbers.
    pub fn demand(&self) -> Demand {
        match self {
            Self { waiting: 1.., .. } => Demand::Waiting,
            Self { sessions: 1.., .. } => Demand::Served,
            Self { .. } => Demand::Nobody,
        }
    }
}

impl Counter {
    /// There is no session yet. The receiver has the numbers.
    pub fn new() -> (Self, watch::Receiver<Attendance>) {
        let (sender, receiver) = watch::channel(Attendance::default());
        (Self(sender), receiver)
    }

    /// A session begins. This is called before the session looks whether the program listens: if the supervisor first
    /// has all clients held, and then finds no session here, stopping the program cuts no session off.
    pub(crate) fn begin(&self) {
        self.change(|attendance| attendance.sessions += 1);
    }

    /// A session has ended.
    pub(crate) fn end(&self) {
        self.change(|attendance| attendance.sessions -= 1);
    }

    /// A session waits for the program, until the result is dropped.
    pub(crate) fn wait(&self) -> Waiting<'_> {
        self.change(|attendance| attendance.waiting += 1);
        Waiting(self)
    }

    fn change(&self, change: impl FnOnce(&mut Attendance)) {
        self.0.send_if_modified(|attendance| {
            let before = attendance.demand();
            change(attendance);
            attendance.demand() != before
        });
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.change(|attendance| attendance.waiting -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn o5_a_change_of_the_demand_is_news() {
        let (counter, mut seen) = Counter::new();
        let mut news = || {
            let is_news = seen.has_changed().unwrap();
            (is_news, seen.borrow_and_update().demand())
        };
        assert_eq!(news(), (false, Demand::Nobody));
        counter.begin();
        assert_eq!(news(), (true, Demand::Served));
        let first = counter.wait();
        assert_eq!(news(), (true, Demand::Waiting));
        counter.begin();
        let second = counter.wait();
        drop(first);
        assert_eq!(news(), (false, Demand::Waiting));
        drop(second);
        assert_eq!(news(), (true, Demand::Served));
        counter.end();
        assert_eq!(news(), (false, Demand::Served));
        counter.end();
        assert_eq!(news(), (true, Demand::Nobody));
    }
}
