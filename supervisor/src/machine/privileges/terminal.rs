//! A filter of the kernel's (seccomp(2)) against typing into the terminal that we were started from. A process that we
//! give another user keeps that terminal open: it may read and write there, but not type with TIOCSTI, as what it types
//! would be read by root's shell after our end. Knows nothing of users.

use std::fs::File;
use std::io;

use rustix::thread::{CapabilitySet, capabilities};

/// Where `struct seccomp_data` has the number of the call, the architecture, and the lower half of the second argument.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const REQUEST: u32 = if cfg!(target_endian = "little") { 24 } else { 28 };

/// The kernel's numbers of architectures (linux/audit.h), and the number of ioctl(2) in each. One kernel has several: a
/// program may be of 32 bits. On other architectures nothing is refused.
const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;
const AARCH64: u32 = 0xc000_00b7;
const ARM: u32 = 0x4000_0028;
const IOCTL_X86_64: u32 = 16;
const IOCTL_X32: u32 = 514;
const IOCTL_AARCH64: u32 = 29;
const IOCTL_32: u32 = 54;

/// Clears the bit that marks the number of a call of x32.
const NO_X32: u32 = !0x4000_0000;

/// The request that types a byte. The kernel looks at the lower half of the request alone, and so does the filter.
const TIOCSTI: u32 = 0x5412;
/// The request that pastes what is selected, in a virtual console.
const TIOCLINUX: u32 = 0x541c;

/// Has the kernel refuse both requests, with EPERM, to the calling thread and whatever it starts, for good. Takes
/// CAP_SYS_ADMIN, or no_new_privs. Allocates nothing: it is called between fork and exec.
pub(super) fn refuse_typing() -> io::Result<()> {
    // SPEC_ALLOW: before Linux 5.16 a filter slows the whole program down otherwise (speculative store bypass).
    match set_filter(libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => set_filter(0),
        done => done,
    }
}

/// Whether we have a terminal, and typing into it cannot be refused to a process that shares it. `is_sealed`: with
/// no_new_privs.
pub(crate) fn is_open_to_typing(is_sealed: bool) -> bool {
    let may_filter = is_sealed
        || capabilities(None).is_ok_and(|ours| ours.effective.contains(CapabilitySet::SYS_ADMIN));
    File::open("/dev/tty").is_ok() && !(may_filter && knows_filters())
}

/// Sets the filter. A jump says how many instructions it leaves out: if the value is equal, and if not.
#[expect(clippy::cast_possible_truncation, reason = "what BPF's header says fits 16 bits")]
fn set_filter(flags: libc::c_ulong) -> io::Result<()> {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
    const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    const REFUSE: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    let plain = |code, k| libc::sock_filter { code, jt: 0, jf: 0, k };
    let jump = |k, jt, jf| libc::sock_filter { code: JUMP_IF_EQUAL, jt, jf, k };
    let mut instructions = [
        plain(LOAD, ARCH),
        jump(X86_64, 4, 0),
        jump(AARCH64, 7, 0),
        jump(I386, 8, 0),
        jump(ARM, 7, 0),
        plain(RETURN, libc::SECCOMP_RET_ALLOW),
        // x86-64, and x32.
        plain(LOAD, NUMBER),
        plain(AND, NO_X32),
        jump(IOCTL_X86_64, 5, 0),
        jump(IOCTL_X32, 4, 7),
        // aarch64.
        plain(LOAD, NUMBER),
        jump(IOCTL_AARCH64, 2, 5),
        // The architectures of 32 bits.
        plain(LOAD, NUMBER),
        jump(IOCTL_32, 0, 3),
        // ioctl(2).
        plain(LOAD, REQUEST),
        jump(TIOCSTI, 2, 0),
        jump(TIOCLINUX, 1, 0),
        plain(RETURN, libc::SECCOMP_RET_ALLOW),
        plain(RETURN, REFUSE),
    ];
    let program =
        libc::sock_fprog { len: instructions.len() as u16, filter: instructions.as_mut_ptr() };
    seccomp(flags, &raw const program)
}

/// Whether the kernel takes filters. It reads the filter, here at a null pointer, before it checks our rights.
fn knows_filters() -> bool {
    seccomp(0, std::ptr::null()).is_err_and(|error| error.raw_os_error() == Some(libc::EFAULT))
}

#[allow(unsafe_code)]
fn seccomp(flags: libc::c_ulong, program: *const libc::sock_fprog) -> io::Result<()> {
    // SAFETY: the kernel reads the program and its instructions during the call, and nothing else.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, program) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
