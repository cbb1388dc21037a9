//! Close-on-exec: which descriptors stay open over exec(2), by the flag FD_CLOEXEC of each.

use std::io;
use std::os::fd::{BorrowedFd, RawFd};

use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};

/// Has these descriptors stay open over exec(2).
///
/// # Errors
///
/// One of them is not open. Then exec(2) closes all.
pub(crate) fn keep(numbers: &[RawFd]) -> io::Result<()> {
    let kept = numbers.iter().try_for_each(|number| set(*number, FdFlags::empty()));
    if kept.is_err() {
        leave(numbers);
    }
    kept
}

/// Has exec(2) close these descriptors. One that was closed meanwhile does no harm: if its number is used again,
/// exec(2) is to close that descriptor, too.
pub(crate) fn leave(numbers: &[RawFd]) {
    let mut numbers = numbers.to_vec();
    numbers.sort_unstable();
    // With thousands of sessions, most numbers follow one another.
    for run in numbers.chunk_by(|one, next| one.checked_add(1) == Some(*next)) {
        if !leave_range(run) {
            for number in run {
                let _ = set(*number, FdFlags::CLOEXEC);
            }
        }
    }
}

/// The same by one system call. False: the kernel has none for that (before 5.11), or it is refused.
#[allow(unsafe_code)]
fn leave_range(run: &[RawFd]) -> bool {
    let &[first, .., last] = run else { return false };
    let (Ok(first), Ok(last)) = (u32::try_from(first), u32::try_from(last)) else { return false };
    // SAFETY: close_range(2) with CLOSE_RANGE_CLOEXEC only sets a flag on descriptors.
    let left =
        unsafe { libc::syscall(libc::SYS_close_range, first, last, libc::CLOSE_RANGE_CLOEXEC) };
    left == 0
}

/// Whether it is open, and stays open over exec(2).
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

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn o2_descriptors_go_along_or_stay_and_those_between_them_are_left_alone() {
        let files: Vec<_> = (0..6).map(|_| tempfile::tempfile().unwrap()).collect();
        let numbers: Vec<_> = files.iter().map(AsRawFd::as_raw_fd).collect();
        keep(&numbers).unwrap();
        assert!(numbers.iter().all(|number| is_kept(*number)));
        // All but the second, from the last on; one of them is closed.
        let mut left: Vec<_> = numbers.iter().rev().copied().collect();
        left.retain(|number| *number != numbers[1]);
        left.push(RawFd::MAX);
        leave(&left);
        let kept: Vec<_> = numbers.iter().map(|number| is_kept(*number)).collect();
        assert_eq!(kept, [false, true, false, false, false, false]);
        leave(&numbers);
        assert!(!numbers.iter().any(|number| is_kept(*number)));
        assert!(keep(&[numbers[0], RawFd::MAX]).is_err() && !is_kept(numbers[0]));
    }
}
