//! How many sessions are bound for the wrapped program, for whoever starts and stops it by that. Knows a
//! number; neither the sessions nor the program.

use tokio::sync::watch;

/// Counts the sessions from their admission to their end. Whoever watches is woken when the first begins and
/// when the last has ended.
#[derive(Debug)]
pub struct Demand(watch::Sender<usize>);

impl Demand {
    /// Nobody is there yet; the receiver has the number of sessions.
    pub fn new() -> (Self, watch::Receiver<usize>) {
        let (sender, receiver) = watch::channel(0);
        (Self(sender), receiver)
    }

    /// A session begins. Before it looks whether the program listens: whoever has the program stop, and then
    /// finds nobody here, has cut nobody off.
    pub(crate) fn begin(&self) {
        self.0.send_if_modified(|sessions| {
            *sessions += 1;
            *sessions == 1
        });
    }

    /// One has ended.
    pub(crate) fn end(&self) {
        self.0.send_if_modified(|sessions| {
            *sessions -= 1;
            *sessions == 0
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn o5_the_first_session_and_the_last_are_news() {
        let (demand, mut seen) = Demand::new();
        let mut news = || {
            let is_news = seen.has_changed().unwrap();
            (is_news, *seen.borrow_and_update())
        };
        assert_eq!(news(), (false, 0));
        demand.begin();
        assert_eq!(news(), (true, 1));
        demand.begin();
        assert_eq!(news(), (false, 2));
        demand.end();
        assert_eq!(news(), (false, 1));
        demand.end();
        assert_eq!(news(), (true, 0));
    }
}
