//! The filter that stops bind(2) and listen(2) of the program until we have answered (seccomp(2)), how a process is put
//! under it, and whether that is possible here. Knows no answer.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};

use nix::sys::prctl;
use rustix::io::IoSlice;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde::{Deserialize, Serialize};

use super::hand::LISTENER;

/// What the kernel calls our architecture (linux/audit.h). Calls of other architectures have other numbers, and pass.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;
/// No process has this one.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const ARCHITECTURE: u32 = 0;

/// Where the number of the call and the architecture stand in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;

/// Since Linux 5.19: a signal that does not kill waits until the call is answered.
const WAIT_KILLABLE: libc::c_ulong = libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;

/// Whether what the program starts keeps the rights that a file gives (setuid, capabilities). Without
/// CAP_SYS_ADMIN a filter costs them (PR_SET_NO_NEW_PRIVS).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum NewPrivileges {
    Kept,
    Lost,
}

/// Puts the calling thread, and whatever it starts, under the filter. Gives the listener, where their calls are told
/// from then on. Allocates nothing: it is called between fork and exec.
pub(super) fn install(privileges: NewPrivileges) -> io::Result<OwnedFd> {
    if privileges == NewPrivileges::Lost {
        prctl::set_no_new_privs()?;
    }
    // SPEC_ALLOW: before Linux 5.16 a filter slows the whole program down otherwise (speculative store bypass).
    let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    match set_filter(flags | WAIT_KILLABLE) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => set_filter(flags),
        installed => installed,
    }
}

/// Installs the filter. In its program (linux/filter.h), each instruction that jumps says how many it leaves out.
#[expect(
    clippy::cast_possible_truncation,
    reason = "what BPF's header says fits 16 bits; numbers of calls are small"
)]
fn set_filter(flags: libc::c_ulong) -> io::Result<OwnedFd> {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let plain = |code, k| libc::sock_filter { code, jt: 0, jf: 0, k };
    let jump = |k, jt, jf| libc::sock_filter { code: JUMP_IF_EQUAL, jt, jf, k };
    let mut instructions = [
        plain(LOAD, ARCH),
        jump(ARCHITECTURE, 0, 3),
        plain(LOAD, NUMBER),
        jump(libc::SYS_bind as u32, 2, 0),
        jump(libc::SYS_listen as u32, 1, 0),
        plain(RETURN, libc::SECCOMP_RET_ALLOW),
        plain(RETURN, libc::SECCOMP_RET_USER_NOTIF),
    ];
    seccomp(flags, &mut instructions)
}

#[allow(unsafe_code)]
fn seccomp(flags: libc::c_ulong, instructions: &mut [libc::sock_filter]) -> io::Result<OwnedFd> {
    let program = libc::sock_fprog {
        len: u16::try_from(instructions.len()).expect("there are few"),
        filter: instructions.as_mut_ptr(),
    };
    // SAFETY: the kernel reads the program and its instructions during the call.
    let result = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program)
    };
    match i32::try_from(result) {
        // SAFETY: with NEW_LISTENER the result is a new descriptor, which nothing else owns yet.
        Ok(listener) if listener >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(listener) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether signals that do not kill wait for the answer. The kernel looks at the flags before it reads the filter.
#[allow(unsafe_code)]
pub(super) fn has_signals_wait() -> bool {
    let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | WAIT_KILLABLE;
    let none = std::ptr::null::<libc::sock_fprog>();
    // SAFETY: there is no filter to be read, so nothing is installed.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, none) };
    result == -1 && io::Error::last_os_error().raw_os_error() == Some(libc::EFAULT)
}

/// Sends the listener through this socket, and fails if nobody can take it at the other end. Allocates nothing, as
/// [`install`].
pub(super) fn hand_over(listener: &OwnedFd, to: impl AsFd) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut rights = SendAncillaryBuffer::new(&mut space);
    let listener = [listener.as_fd()];
    rights.push(SendAncillaryMessage::ScmRights(&listener));
    sendmsg(to, &[IoSlice::new(LISTENER)], &mut rights, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?;
    Ok(())
}

/// Tries the filter, in a thread that ends at once. Gives the best way that works.
///
/// # Errors
///
/// None works: what the kernel, or a container, says to seccomp(2).
pub(super) fn try_out() -> io::Result<NewPrivileges> {
    if ARCHITECTURE == 0 {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let attempt = || match install(NewPrivileges::Kept) {
        Ok(_) => Ok(NewPrivileges::Kept),
        Err(error) if error.raw_os_error() == Some(libc::EACCES) => {
            install(NewPrivileges::Lost).map(|_| NewPrivileges::Lost)
        }
        Err(error) => Err(error),
    };
    let thread = std::thread::Builder::new().name("seccomp".to_owned()).spawn(attempt)?;
    thread.join().unwrap_or_else(|_| Err(io::Error::other("the attempt has failed")))
}
