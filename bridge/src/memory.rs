//! The return of free memory to the system after many connections have ended (L5): the allocator would keep it.
#![allow(unsafe_code)]

use tracing::debug;

/// Has the allocator return its free memory to the system, in a thread of its own: where there is much, this takes milliseconds.
pub(crate) fn give_back() {
    let thread = std::thread::Builder::new().name("memory".to_owned());
    // If no thread can be started (pthread_create(3), EAGAIN), the memory is returned the next time.
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
