//! Memory that many have needed for a while goes back to the system when they are gone (L5): the allocator would keep it.
#![allow(unsafe_code)]

/// Has the allocator give back what it has free. Takes milliseconds where that is much.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) may be called at any time, from any thread.
    unsafe {
        nix::libc::malloc_trim(0);
    }
}
