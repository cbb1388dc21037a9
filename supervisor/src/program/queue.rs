//! The queue of events that have not been handled yet, in their order; but of those that say whether the program is
//! needed, only the newest. Must not know what follows from any of them.

use std::collections::VecDeque;

use bridge::Demand;

use super::state::Event;

/// Events that wait for their turn.
#[derive(Debug, Default)]
pub(super) struct Queue(VecDeque<Event>);

impl Queue {
    /// Adds an event. Whether the program is needed comes before all else: a program may have ended with its last
    /// session, and is not started again for nobody.
    pub(super) fn push(&mut self, event: Event) {
        if matches!(event, Event::Demand(_)) {
            self.forget_demand();
            self.0.push_front(event);
        } else {
            self.0.push_back(event);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Removes what was seen of the listener of the last instance: it is not true of the next.
    pub(super) fn forget_listener(&mut self) {
        self.0.retain(|event| !matches!(event, Event::Listening | Event::ListenerGone));
    }

    /// The next event. If there is `news` of whether the program is needed, that comes first, and older events of that
    /// kind are removed from the queue. Only a deadline comes before the news: when it was put here, there were none.
    pub(super) fn next(&mut self, news: impl FnOnce() -> Option<Demand>) -> Option<Event> {
        if *self.0.front()? != Event::Deadline
            && let Some(demand) = news()
        {
            self.forget_demand();
            return Some(Event::Demand(demand));
        }
        self.0.pop_front()
    }

    fn forget_demand(&mut self) {
        self.0.retain(|event| !matches!(event, Event::Demand(_)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(events: &[Event]) -> Queue {
        let mut queue = Queue::default();
        for event in events {
            queue.push(*event);
        }
        queue
    }

    /// O5: a session that ends while its beginning is still in this queue leaves no client, and the program is stopped.
    #[test]
    fn o5_what_is_known_of_visitors_is_never_taken_back() {
        let (here, gone) = (Event::Demand(Demand::Served), Event::Demand(Demand::Nobody));
        for events in [&[here][..], &[here, Event::TreeEmpty], &[Event::Listening, here, here]] {
            let mut queue = queue(events);
            assert_eq!(queue.next(|| Some(Demand::Nobody)), Some(gone));
            while let Some(event) = queue.next(|| None) {
                assert!(!matches!(event, Event::Demand(_)), "{events:?}: {event:?}");
            }
        }
    }

    #[test]
    fn o5_without_news_events_come_in_their_order() {
        let events = [Event::Listening, Event::ListenerGone, Event::TreeEmpty];
        let mut queue = queue(&events);
        assert_eq!(events.map(Some), std::array::from_fn(|_| queue.next(|| None)));
        assert_eq!(queue.next(|| Some(Demand::Nobody)), None, "it comes by itself");
    }

    /// O5: the client that had the last session of a program that has ended does not have it started again.
    #[test]
    fn o5_who_has_gone_is_known_before_the_program_has_ended() {
        let [waiting, served, nobody] =
            [Demand::Waiting, Demand::Served, Demand::Nobody].map(Event::Demand);
        let mut queue = queue(&[waiting, Event::TreeEmpty, served, Event::ListenerGone, nobody]);
        let found = std::array::from_fn(|_| queue.next(|| None));
        assert_eq!(found, [nobody, Event::TreeEmpty, Event::ListenerGone].map(Some));
        assert!(queue.is_empty());
    }

    #[test]
    fn o5_a_deadline_is_before_what_comes_after_it() {
        let mut queue = queue(&[Event::Deadline]);
        assert_eq!(queue.next(|| Some(Demand::Waiting)), Some(Event::Deadline));
    }

    #[test]
    fn w7_the_listener_of_one_instance_is_not_the_nexts() {
        let mut queue = queue(&[Event::Listening, Event::ListenerGone, Event::Stop]);
        queue.forget_listener();
        assert_eq!(queue.next(|| None), Some(Event::Stop));
        assert!(queue.is_empty());
    }
}
