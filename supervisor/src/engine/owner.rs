//! The owner of the relocated port in one instance: whether a process of the program has listened there as the port's own
//! user, or websockify has given the port to a process of another user. Who logs in through a program that has its own
//! socket is a process of the program too, and must not get the port when the program has closed that socket.

use serde::{Deserialize, Serialize};

/// Which of the two was first: it holds for the whole instance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Owner {
    /// Nobody has listened yet.
    #[default]
    Open,
    /// A process has listened on a socket that the port's own user has made.
    Own,
    /// The port was given to a process of another user, as which the program runs.
    Given,
}

impl Owner {
    /// For an instance that an earlier version has started, and that may have been given its port.
    pub(crate) fn unknown() -> Self {
        Self::Given
    }

    pub(crate) fn listens(&mut self) {
        self.begin(Self::Own);
    }

    pub(crate) fn is_given(&mut self) {
        self.begin(Self::Given);
    }

    /// Whether the port may be given to a process of another user.
    pub(crate) fn may_give(self) -> bool {
        self != Self::Own
    }

    fn begin(&mut self, owner: Self) {
        if *self == Self::Open {
            *self = owner;
        }
    }
}
