//! Where we have begun in another's place: what of that is told, or undone, when we have settled.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use bridge::Moment;
use nix::unistd::Pid;

use super::{marks, way_back};
use crate::admin::{SavedStanding, Standing};
use crate::processes::Aside;

/// All of it.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(super) stopped: Moment,
    pub(super) rests: Vec<i32>,
    /// Of which there are copies.
    pub(super) originals: Vec<OwnedFd>,
    pub(super) is_ready: bool,
    pub(super) standing: SavedStanding,
    pub(super) back: Option<String>,
    pub(super) numbers: Vec<RawFd>,
    pub(super) memory: RawFd,
    pub(super) old: RawFd,
}

impl Arrived {
    /// Notes what is left of us before.
    pub(crate) fn note_rests(&self, aside: &Aside) {
        self.rests.iter().for_each(|rest| aside.add_rest(Pid::from_raw(*rest)));
    }

    /// Whether clients were let in by then.
    pub(crate) fn was_open(&self) -> bool {
        self.is_ready
    }

    /// How we stand, as it was noted before.
    pub(crate) fn standing(&self) -> Standing {
        Standing::resume(&self.standing)
    }

    /// There is no way back any more.
    #[allow(unsafe_code)]
    pub(super) fn settle(&self) {
        way_back::close();
        marks::leave(&self.numbers);
        for number in [self.memory, self.old] {
            // SAFETY: it was open when we began, and is nobody's but ours to close.
            drop(unsafe { OwnedFd::from_raw_fd(number) });
        }
    }
}
