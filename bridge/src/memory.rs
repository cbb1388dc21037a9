//! Memory that many have needed for a while goes back to the system when they are gone (L5): the allocator would keep it.
#![allow(unsafe_code)]

use tracing::debug;

/// Has the allocator give back what it has free, in a thread of its own: it takes milliseconds where that is much.
pub(crate) fn give_back() {
    let thread = std::thread::Builder::new().name("memory".to_owned());
    // Without a thread for it (pthread_create(3), EAGAIN), the next time may find one.
    if let Err(error) = thread.spawn(trim) {
        debug!("cannot give memory back: {error}");
    }
}

fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) may be called at any time, from any thread.
    unsafe {
        nix::libc::malloc_trim(0);
    }
}
