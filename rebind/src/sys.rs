//! The C library as this crate sees it: declared here, because `rebind.so` is
//! also compiled by `rustc` alone, without the `libc` crate. Knows the calling
//! conventions and no rule.

use core::ffi::{CStr, c_char, c_int, c_void};
use core::sync::atomic::{AtomicPtr, Ordering};

#[cfg(not(all(
    target_os = "linux",
    any(
        target_arch = "x86_64",
        target_arch = "x86",
        target_arch = "aarch64",
        target_arch = "arm",
        target_arch = "riscv64",
        target_arch = "powerpc64",
        target_arch = "s390x",
    )
)))]
compile_error!("rebind knows the socket constants of Linux's generic architectures only");

pub(crate) type Bind = unsafe extern "C" fn(c_int, *const c_void, u32) -> c_int;
pub(crate) type Listen = unsafe extern "C" fn(c_int, c_int) -> c_int;

pub(crate) const ENOSYS: c_int = 38;
pub(crate) const EADDRINUSE: c_int = 98;
pub(crate) const EADDRNOTAVAIL: c_int = 99;

pub(crate) const AF_UNIX: u16 = 1;
pub(crate) const AF_INET: c_int = 2;
pub(crate) const AF_INET6: c_int = 10;
pub(crate) const SOCK_STREAM: c_int = 1;
pub(crate) const SOCK_DGRAM: c_int = 2;
pub(crate) const SOCK_CLOEXEC: c_int = 0o2_000_000;
pub(crate) const SOL_SOCKET: c_int = 1;
pub(crate) const SO_REUSEADDR: c_int = 2;
pub(crate) const SO_TYPE: c_int = 3;
pub(crate) const SO_BINDTODEVICE: c_int = 25;
pub(crate) const SO_PROTOCOL: c_int = 38;
pub(crate) const SO_DOMAIN: c_int = 39;
pub(crate) const IPPROTO_TCP: c_int = 6;
pub(crate) const IPPROTO_IPV6: c_int = 41;
pub(crate) const IPPROTO_MPTCP: c_int = 262;
pub(crate) const IPV6_V6ONLY: c_int = 26;
pub(crate) const MSG_DONTWAIT: c_int = 0x40;
pub(crate) const MSG_NOSIGNAL: c_int = 0x4000;

// Before glibc 2.34 dlsym() lived in a library of its own; later ones and musl
// have an empty one for the linker. A musl target names no library at all: the
// program that loads us has brought its C library.
#[cfg_attr(target_env = "gnu", link(name = "c"))]
#[cfg_attr(target_env = "gnu", link(name = "dl"))]
unsafe extern "C" {
    fn __errno_location() -> *mut c_int;
    fn dlsym(handle: *mut c_void, symbol: *const c_char) -> *mut c_void;
    fn getsockname(fd: c_int, address: *mut c_void, length: *mut u32) -> c_int;
    fn getsockopt(
        fd: c_int,
        level: c_int,
        name: c_int,
        value: *mut c_void,
        length: *mut u32,
    ) -> c_int;
    fn setsockopt(fd: c_int, level: c_int, name: c_int, value: *const c_void, length: u32)
    -> c_int;
    fn sendto(
        fd: c_int,
        message: *const c_void,
        size: usize,
        flags: c_int,
        address: *const c_void,
        length: u32,
    ) -> isize;
    fn getenv(name: *const c_char) -> *const c_char;
    safe fn getpid() -> c_int;
    safe fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int;
    safe fn close(fd: c_int) -> c_int;
}

/// A function that the next object in the search order defines: the C library,
/// or another preloaded library behind us.
pub(crate) struct Next {
    name: &'static CStr,
    address: AtomicPtr<c_void>,
}

impl Next {
    pub(crate) const fn new(name: &'static CStr) -> Next {
        Next { name, address: AtomicPtr::new(core::ptr::null_mut()) }
    }

    /// The function's address; null if nobody defines it. It is looked up once,
    /// by our constructor: later a lock of the dynamic linker could be held by a
    /// thread that `fork()` left behind.
    pub(crate) fn address(&self) -> *mut c_void {
        let known = self.address.load(Ordering::Acquire);
        if !known.is_null() {
            return known;
        }
        let rtld_next = core::ptr::without_provenance_mut(usize::MAX);
        // SAFETY: the handle is RTLD_NEXT, the name is NUL-terminated.
        let found = unsafe { dlsym(rtld_next, self.name.as_ptr()) };
        self.address.store(found, Ordering::Release);
        found
    }
}

pub(crate) fn errno() -> c_int {
    // SAFETY: the C library gives each thread a valid location.
    unsafe { *__errno_location() }
}

pub(crate) fn set_errno(value: c_int) {
    // SAFETY: as in errno(); no other thread uses this location.
    unsafe { *__errno_location() = value };
}

/// A variable's value. It lies in the environment, which the program may change
/// at any time: copy it at once.
pub(crate) fn variable(name: &CStr) -> Option<&CStr> {
    // SAFETY: the name is NUL-terminated.
    let value = unsafe { getenv(name.as_ptr()) };
    // SAFETY: getenv() returns null or a NUL-terminated string.
    (!value.is_null()).then(|| unsafe { CStr::from_ptr(value) })
}

pub(crate) fn process_id() -> u32 {
    getpid().unsigned_abs()
}

/// An integer option of a socket; `None` if the descriptor has no such option.
pub(crate) fn option(fd: c_int, level: c_int, name: c_int) -> Option<c_int> {
    let mut value: c_int = 0;
    let mut length = INT_LENGTH;
    // SAFETY: value is writable and length says how large it is.
    let result = unsafe { getsockopt(fd, level, name, (&raw mut value).cast(), &raw mut length) };
    (result == 0).then_some(value)
}

/// Sets an integer option of a socket. A failure shows in the call after it.
pub(crate) fn set_option(fd: c_int, level: c_int, name: c_int, value: c_int) {
    // SAFETY: value is readable and as large as said.
    unsafe { setsockopt(fd, level, name, (&raw const value).cast(), INT_LENGTH) };
}

/// Whether a socket is restricted to one network device, or may be.
pub(crate) fn has_device(fd: c_int) -> bool {
    // IFNAMSIZ; the kernel takes no less.
    let mut name = [0u8; 16];
    let mut length: u32 = 16;
    // SAFETY: name is writable and length says how large it is.
    let result = unsafe {
        getsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, name.as_mut_ptr().cast(), &raw mut length)
    };
    result != 0 || length != 0
}

/// Restricts a socket to one network device, or to none if the name is empty.
pub(crate) fn set_device(fd: c_int, name: &CStr) -> bool {
    let bytes = name.to_bytes_with_nul();
    let Ok(length) = u32::try_from(bytes.len()) else { return false };
    // SAFETY: the name is readable and as long as said.
    unsafe { setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, bytes.as_ptr().cast(), length) == 0 }
}

/// Writes a socket's own address into `buffer` and returns what was written.
pub(crate) fn local_address(fd: c_int, buffer: &mut [u8; 28]) -> Option<&[u8]> {
    let mut length: u32 = 28;
    // SAFETY: buffer is writable for as many bytes as length says.
    let result = unsafe { getsockname(fd, buffer.as_mut_ptr().cast(), &raw mut length) };
    // A longer address than the buffer (AF_UNIX) is cut, and length says the full one.
    if result == 0 { buffer.get(..length as usize) } else { None }
}

/// Sends a datagram to an address without ever waiting; nobody is told if it
/// could not be sent.
pub(crate) fn send(fd: c_int, message: &[u8], address: &[u8]) {
    let Ok(length) = u32::try_from(address.len()) else { return };
    // SAFETY: both slices are readable for the lengths passed with them.
    unsafe {
        sendto(
            fd,
            message.as_ptr().cast(),
            message.len(),
            MSG_DONTWAIT | MSG_NOSIGNAL,
            address.as_ptr().cast(),
            length,
        )
    };
}

/// A datagram socket of the local domain; negative if there is none to be had.
pub(crate) fn datagram_socket() -> c_int {
    socket(AF_UNIX.into(), SOCK_DGRAM | SOCK_CLOEXEC, 0)
}

/// Closes a descriptor of our own.
pub(crate) fn close_socket(fd: c_int) {
    close(fd);
}

/// `sizeof(int)` on every Linux architecture.
const INT_LENGTH: u32 = 4;
