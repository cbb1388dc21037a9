//! A connection that has asked for a session and gets one, whether `first` or hyper has read its head.

use crate::admission::Ticket;
use crate::stream::Stream;
use crate::ws::Upgrade;

/// A connection that was answered with 101.
pub(crate) struct Upgraded {
    pub(crate) stream: Stream,
    pub(crate) upgrade: Upgrade,
    pub(crate) ticket: Ticket,
}
