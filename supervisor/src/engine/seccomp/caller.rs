//! The caller: the thread whose call waits, with the address in its memory and the socket that it means. The thread
//! itself stands still meanwhile, but other threads of its process may write to the same memory: so only what was read
//! here counts.

use std::fs;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::{Pid, getpid};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use crate::machine::proc_text;

/// The longest address that bind(2) reads, `struct sockaddr_storage`, bytes.
const ADDRESS_MAX: usize = 128;

/// The address at this place of a thread's memory. None: the kernel will refuse it.
pub(super) fn address_at(
    thread: Pid,
    place: u64,
    length: u64,
) -> io::Result<Option<([u8; ADDRESS_MAX], usize)>> {
    // bind(2) takes an int.
    #[expect(clippy::cast_possible_truncation, reason = "the kernel takes the lower half")]
    let length = usize::try_from(length as u32).unwrap_or(usize::MAX);
    if length > ADDRESS_MAX {
        return Ok(None);
    }
    let mut bytes = [0; ADDRESS_MAX];
    let base = usize::try_from(place).map_err(io::Error::other)?;
    let from = [RemoteIoVec { base, len: length }];
    match process_vm_readv(thread, &mut [IoSliceMut::new(&mut bytes[..length])], &from) {
        Ok(read) if read == length => Ok(Some((bytes, length))),
        Ok(_) | Err(Errno::EFAULT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A copy of a thread's descriptor: the socket itself is the same. None: it has no such descriptor.
pub(super) fn socket_of(thread: Pid, descriptor: i32) -> io::Result<Option<OwnedFd>> {
    let process = process_of(thread)?;
    match pidfd_getfd(process, descriptor, PidfdGetfdFlags::empty()) {
        Ok(copy) => Ok(Some(copy)),
        Err(rustix::io::Errno::BADF) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A pidfd of the thread itself: its descriptors may be others than those of its process's leader, which may even have
/// ended. Before Linux 6.9 only leaders have a pidfd, and that one must do.
fn process_of(thread: Pid) -> io::Result<OwnedFd> {
    const OF_THREAD: PidfdFlags = PidfdFlags::from_bits_retain(libc::PIDFD_THREAD);
    let open = |thread: Pid, flags| {
        let pid = rustix::process::Pid::from_raw(thread.as_raw()).ok_or(rustix::io::Errno::SRCH)?;
        pidfd_open(pid, flags)
    };
    match open(thread, OF_THREAD) {
        Err(rustix::io::Errno::INVAL) => Ok(open(leader_of(thread)?, PidfdFlags::empty())?),
        opened => Ok(opened?),
    }
}

fn leader_of(thread: Pid) -> io::Result<Pid> {
    let group = proc_text::status(thread, "Tgid")?;
    group.parse().map(Pid::from_raw).map_err(io::Error::other)
}

/// Whether memory can be read and sockets copied here at all: kernels before 5.6 and some containers refuse it.
pub(super) fn try_out() -> io::Result<()> {
    let (ours, word) = (fs::File::open("/dev/null")?, [0_u8; 1]);
    address_at(getpid(), word.as_ptr().addr() as u64, 1)?;
    socket_of(getpid(), ours.as_raw_fd()).map(drop)
}
