//! Our memory while another's place is taken: exec(2) has opened it to whoever is our user, and he may be the program's, too.
//! It is closed before anything is read, and opened again where nobody else has been root.

use std::ffi::OsString;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::prctl::{get_dumpable, set_dumpable};
use nix::unistd::geteuid;
use tracing::debug;

use super::image::VARIABLE;
use super::trial::is_tried;

/// Whether we have closed it.
static CLOSED: AtomicBool = AtomicBool::new(false);

/// Before anything else. Nothing is to be seen of root's, who is not traced by others anyway.
pub(crate) fn close_memory(args: &[OsString]) {
    let is_concerned = is_tried(args) || std::env::var_os(VARIABLE).is_some();
    if is_concerned && !geteuid().is_root() && get_dumpable().unwrap_or(false) {
        CLOSED.store(set_dumpable(false).is_ok(), Ordering::Relaxed);
    }
}

/// Where we are who has started us: as it was.
pub(crate) fn open_memory() {
    if CLOSED.swap(false, Ordering::Relaxed)
        && let Err(error) = set_dumpable(true)
    {
        debug!("our memory stays closed: {}", bridge::error_text(&error.into()));
    }
}
