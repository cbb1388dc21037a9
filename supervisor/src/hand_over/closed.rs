//! Who may look into our memory in a hand-over: after exec(2) every process of our user may (ptrace(2)), and the
//! program may run as that user, too. So our memory is closed to them before anything is read, and opened again where
//! we have not changed from root to that user.

use std::ffi::OsString;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::prctl::{get_dumpable, set_dumpable};
use nix::unistd::geteuid;
use tracing::debug;

use super::image::VARIABLE;
use super::trial::is_tried;

/// Whether we have closed our memory.
static CLOSED: AtomicBool = AtomicBool::new(false);

/// Closes it. To be called before anything else. If we are root, there is nothing to do: other users cannot trace
/// root's processes.
pub(crate) fn close_memory(args: &[OsString]) {
    let is_concerned = is_tried(args) || std::env::var_os(VARIABLE).is_some();
    if is_concerned && !geteuid().is_root() && get_dumpable().unwrap_or(false) {
        CLOSED.store(set_dumpable(false).is_ok(), Ordering::Relaxed);
    }
}

/// Opens it again as it was, where we are the user who has started us.
pub(crate) fn open_memory() {
    if CLOSED.swap(false, Ordering::Relaxed)
        && let Err(error) = set_dumpable(true)
    {
        debug!("our memory stays closed: {}", bridge::error_text(&error.into()));
    }
}
