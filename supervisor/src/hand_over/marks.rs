//! Which descriptors go along: each has a mark of its own that exec(2) minds (FD_CLOEXEC).

use std::io;
use std::os::fd::{BorrowedFd, RawFd};

use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};

/// Has them go along.
///
/// # Errors
///
/// One is not open. Then none does.
pub(crate) fn keep(numbers: &[RawFd]) -> io::Result<()> {
    let kept = numbers.iter().try_for_each(|number| set(*number, FdFlags::empty()));
    if kept.is_err() {
        leave(numbers);
    }
    kept
}

/// Has them stay behind. One that was closed meanwhile is no matter: whatever has its number stays behind, too.
pub(crate) fn leave(numbers: &[RawFd]) {
    for number in numbers {
        let _ = set(*number, FdFlags::CLOEXEC);
    }
}

/// Whether it is open, and goes along.
pub(crate) fn is_kept(number: RawFd) -> bool {
    borrow(number).is_some_and(|fd| fcntl_getfd(fd).is_ok_and(|flags| flags.is_empty()))
}

fn set(number: RawFd, flags: FdFlags) -> io::Result<()> {
    let fd = borrow(number).ok_or(rustix::io::Errno::BADF)?;
    Ok(fcntl_setfd(fd, flags)?)
}

#[allow(unsafe_code)]
fn borrow(number: RawFd) -> Option<BorrowedFd<'static>> {
    // SAFETY: it is used for one fcntl(2) that reads or sets a flag, and fails where nothing is open.
    (number >= 0).then(|| unsafe { BorrowedFd::borrow_raw(number) })
}
