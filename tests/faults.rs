//! What goes wrong around websockify: peers that go without a word (L4), what it has none of any more, a program that
//! minds nothing, logs that hang, and itself killed or stopped (L6). Each fault ends as `FAULTS.md` says, and nothing of
//! it is left.

mod blackhole;
mod clock;
mod counted;
mod ourselves;
mod program;
mod resources;
mod table;

use std::time::Duration;

use crate::support::{Footprint, Websockify, wait_for_within};

/// Longer than all limits on the way one after the other, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until this many sessions have begun and ended, and no more is held than `before`.
fn wait_for_the_end(websockify: &Websockify, sessions: usize, before: &Footprint) {
    let count = |what: &str| websockify.logged(&[what]).len();
    wait_for_within(PATIENCE, "the end of all sessions", || {
        (count("session ended") >= sessions).then_some(())
    });
    before.wait_until_back(websockify);
    assert_eq!((count("session started"), count("session ended")), (sessions, sessions));
}
