//! What the new binary keeps of its arrival until it has settled: what is logged then, and what is closed.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use bridge::Moment;
use nix::unistd::Pid;

use super::{cloexec, way_back};
use crate::admin::{SavedStanding, Standing};
use crate::processes::Aside;

/// An arrival that has not settled.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(super) stopped: Moment,
    pub(super) rests: Vec<i32>,
    /// The old binary's descriptors of which we use copies.
    pub(super) originals: Vec<OwnedFd>,
    pub(super) is_ready: bool,
    pub(super) standing: SavedStanding,
    pub(super) serves_tls: bool,
    pub(super) back: Option<String>,
    pub(super) numbers: Vec<RawFd>,
    pub(super) memory: RawFd,
    pub(super) old: RawFd,
}

impl Arrived {
    /// Notes the processes (rests) that go on with sessions of binaries before us.
    pub(crate) fn note_rests(&self, aside: &Aside) {
        self.rests.iter().for_each(|rest| aside.add_rest(Pid::from_raw(*rest)));
    }

    /// Whether the old binary has logged why TLS is off, if it is: clients were let in, and not served by TLS.
    pub(crate) fn has_reported_tls(&self) -> bool {
        self.is_ready && !self.serves_tls
    }

    /// The standing, as the old binary has saved it.
    pub(crate) fn standing(&self) -> Standing {
        Standing::resume(&self.standing)
    }

    /// Closes the way back to the old binary.
    #[allow(unsafe_code)]
    pub(super) fn settle(&self) {
        way_back::close();
        cloexec::leave(&self.numbers);
        for number in [self.memory, self.old] {
            // SAFETY: it was open when we began, and nothing but this closes it.
            drop(unsafe { OwnedFd::from_raw_fd(number) });
        }
    }
}
