//! The C library as this crate sees it: declared here, because `rebind.so` is
//! also compiled by `rustc` alone, without the `libc` crate. Knows the calling
//! conventions; must not know the rules by which a port is moved.

use core::ffi::{CStr, c_char, c_int, c_short, c_ulong, c_void};
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

/// `accept4(2)`; `accept(2)` has no flags.
pub(crate) type Accept4 = unsafe extern "C" fn(c_int, *mut c_void, *mut u32, c_int) -> c_int;
/// `accept(2)`, and `getpeername(2)`.
pub(crate) type Name = unsafe extern "C" fn(c_int, *mut c_void, *mut u32) -> c_int;

pub(crate) const EINTR: c_int = 4;
pub(crate) const EAGAIN: c_int = 11;
pub(crate) const ENOSYS: c_int = 38;
pub(crate) const EADDRINUSE: c_int = 98;
pub(crate) const EADDRNOTAVAIL: c_int = 99;
pub(crate) const ECONNABORTED: c_int = 103;

pub(crate) const AF_UNIX: u16 = 1;
pub(crate) const AF_INET: c_int = 2;
pub(crate) const AF_INET6: c_int = 10;
pub(crate) const SOCK_STREAM: c_int = 1;
pub(crate) const SOCK_DGRAM: c_int = 2;
pub(crate) const SOCK_CLOEXEC: c_int = 0o2_000_000;
pub(crate) const SOL_SOCKET: c_int = 1;
pub(crate) const SO_REUSEADDR: c_int = 2;
pub(crate) const SO_TYPE: c_int = 3;
pub(crate) const SO_REUSEPORT: c_int = 15;
pub(crate) const SO_BINDTODEVICE: c_int = 25;
pub(crate) const SO_PROTOCOL: c_int = 38;
pub(crate) const SO_DOMAIN: c_int = 39;
const SO_RCVTIMEO: c_int = if cfg!(target_arch = "powerpc64") { 18 } else { 20 };
const TCP_INFO: c_int = 11;
pub(crate) const IPPROTO_TCP: c_int = 6;
pub(crate) const IPPROTO_IPV6: c_int = 41;
pub(crate) const IPPROTO_MPTCP: c_int = 262;
pub(crate) const IPV6_V6ONLY: c_int = 26;
const MSG_DONTWAIT: c_int = 0x40;
const MSG_NOSIGNAL: c_int = 0x4000;
const SCM_RIGHTS: c_int = 1;
const F_GETFL: c_int = 3;
const O_NONBLOCK: c_int = 0o4_000;
const O_RDONLY_CLOEXEC: c_int = 0o2_000_000;
const SEEK_END: c_int = 2;
const PROT_READ: c_int = 1;
const MAP_SHARED: c_int = 1;
const POLLIN: c_short = 1;

/// `off_t`: 64 bits wide in musl, whatever the machine.
#[cfg(target_env = "musl")]
type Offset = i64;
#[cfg(not(target_env = "musl"))]
type Offset = core::ffi::c_long;

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
    fn sendmsg(fd: c_int, message: *const MessageHeader, flags: c_int) -> isize;
    fn poll(of: *mut Polled, number: c_ulong, milliseconds: c_int) -> c_int;
    fn socketpair(domain: c_int, kind: c_int, protocol: c_int, pair: *mut [c_int; 2]) -> c_int;
    fn getenv(name: *const c_char) -> *const c_char;
    fn open(path: *const c_char, flags: c_int, ...) -> c_int;
    fn mmap(
        at: *mut c_void,
        length: usize,
        protection: c_int,
        flags: c_int,
        fd: c_int,
        from: Offset,
    ) -> *mut c_void;
    safe fn lseek(fd: c_int, by: Offset, from: c_int) -> Offset;
    safe fn fcntl(fd: c_int, command: c_int, ...) -> c_int;
    safe fn getpid() -> c_int;
    safe fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int;
    #[link_name = "close"]
    safe fn libc_close(fd: c_int) -> c_int;
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
    /// by our constructor: after a `fork()`, a lock of the dynamic linker might be
    /// held by a thread that the child process does not have.
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

/// Sets an integer option of a socket. A failure shows in the bind() or listen() that follows.
pub(crate) fn set_option(fd: c_int, level: c_int, name: c_int, value: c_int) {
    // SAFETY: value is readable and as large as said.
    unsafe { setsockopt(fd, level, name, (&raw const value).cast(), INT_LENGTH) };
}

/// Whether a socket is restricted to one network device, or the kernel does not say.
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

/// Sends a datagram to an address of the local domain, and two descriptors with
/// it, if there are any to send (unix(7), `SCM_RIGHTS`). Never waits.
pub(crate) fn send(
    fd: c_int,
    message: &[u8],
    address: &[u8],
    descriptors: Option<[c_int; 2]>,
) -> Result<(), c_int> {
    let part = Part { start: message.as_ptr().cast(), length: message.len() };
    let rights = descriptors.map(|descriptors| Rights {
        length: size_of::<Rights>(),
        level: SOL_SOCKET,
        kind: SCM_RIGHTS,
        descriptors,
    });
    let header = MessageHeader {
        name: address.as_ptr().cast(),
        name_length: u32::try_from(address.len()).unwrap_or(0),
        parts: &raw const part,
        number_of_parts: 1,
        control: rights.as_ref().map_or(core::ptr::null(), |rights| (&raw const *rights).cast()),
        control_length: rights.as_ref().map_or(0, size_of_val),
        flags: 0,
    };
    // SAFETY: all that the header points to is readable for the lengths in it.
    match unsafe { sendmsg(fd, &raw const header, MSG_DONTWAIT | MSG_NOSIGNAL) } {
        -1 => Err(errno()),
        _ => Ok(()),
    }
}

/// A TCP socket over IPv4.
pub(crate) fn tcp_socket() -> Option<c_int> {
    descriptor(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0))
}

/// A datagram socket of the local domain.
pub(crate) fn datagram_socket() -> Option<c_int> {
    descriptor(socket(AF_UNIX.into(), SOCK_DGRAM | SOCK_CLOEXEC, 0))
}

/// Two sockets that are connected to each other.
pub(crate) fn socket_pair() -> Option<[c_int; 2]> {
    let mut pair = [-1; 2];
    // SAFETY: the pair is writable.
    let result =
        unsafe { socketpair(AF_UNIX.into(), SOCK_STREAM | SOCK_CLOEXEC, 0, &raw mut pair) };
    (result == 0).then_some(pair)
}

/// Waits until the other end of a socket pair is closed, at most so many
/// milliseconds; longer if signals arrive.
pub(crate) fn wait_for_end(fd: c_int, milliseconds: c_int) -> bool {
    let mut polled = Polled { fd, events: 0, happened: 0 };
    loop {
        // SAFETY: it is one entry, and writable.
        match unsafe { poll(&raw mut polled, 1, milliseconds) } {
            -1 if errno() == EINTR => {}
            ready => return ready > 0,
        }
    }
}

/// Whether a connection waits to be accepted, or accept() would return at once for another reason.
pub(crate) fn is_readable(fd: c_int) -> bool {
    let mut polled = Polled { fd, events: POLLIN, happened: 0 };
    // SAFETY: it is one entry, and writable.
    unsafe { poll(&raw mut polled, 1, 0) != 0 }
}

/// How many connections wait to be accepted, if the kernel says so (`tcpi_unacked` of a listening socket).
pub(crate) fn waiting(listener: c_int) -> Option<u32> {
    // The beginning of struct tcp_info; it is the seventh word.
    let mut words = [0u32; 7];
    let mut length: u32 = 28;
    // SAFETY: words are writable and length says how many bytes they are.
    let result = unsafe {
        getsockopt(listener, IPPROTO_TCP, TCP_INFO, words.as_mut_ptr().cast(), &raw mut length)
    };
    (result == 0 && length == 28).then_some(words[6])
}

/// Whether an accept() that waits for a connection ends by itself after some time (`SO_RCVTIMEO` in socket(7)).
pub(crate) fn has_timeout(fd: c_int) -> bool {
    // struct timeval: two longs.
    let mut time = [0usize; 2];
    let mut length: u32 = if cfg!(target_pointer_width = "64") { 16 } else { 8 };
    // SAFETY: time is writable and length says how large it is.
    let result = unsafe {
        getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, time.as_mut_ptr().cast(), &raw mut length)
    };
    result == 0 && time != [0; 2]
}

/// Whether a descriptor is non-blocking.
pub(crate) fn is_nonblocking(fd: c_int) -> bool {
    // On an error fcntl() returns -1, which has all bits set: the descriptor counts as non-blocking.
    fcntl(fd, F_GETFL) & O_NONBLOCK != 0
}

/// Maps a file of exactly this length for reading. It stays mapped.
pub(crate) fn map(path: &CStr, length: usize) -> Option<*mut c_void> {
    // SAFETY: the path is NUL-terminated.
    let fd = descriptor(unsafe { open(path.as_ptr(), O_RDONLY_CLOEXEC) })?;
    let is_whole = Offset::try_from(length) == Ok(lseek(fd, 0, SEEK_END));
    // SAFETY: the kernel chooses an unused address, and the mapping is only read.
    let start = is_whole
        .then(|| unsafe { mmap(core::ptr::null_mut(), length, PROT_READ, MAP_SHARED, fd, 0) });
    close(fd);
    // MAP_FAILED is the last address.
    start.filter(|start| start.addr() != usize::MAX)
}

/// Does nothing for so many milliseconds, or until a signal arrives.
pub(crate) fn pause(milliseconds: c_int) {
    // SAFETY: no entry is read.
    unsafe { poll(core::ptr::null_mut(), 0, milliseconds) };
}

/// Closes a descriptor of our own.
pub(crate) fn close(fd: c_int) {
    libc_close(fd);
}

fn descriptor(result: c_int) -> Option<c_int> {
    (result >= 0).then_some(result)
}

/// `struct msghdr` as the kernel reads it.
#[repr(C)]
struct MessageHeader {
    name: *const c_void,
    name_length: u32,
    parts: *const Part,
    number_of_parts: usize,
    control: *const c_void,
    control_length: usize,
    flags: c_int,
}

/// `struct iovec`.
#[repr(C)]
struct Part {
    start: *const c_void,
    length: usize,
}

/// `struct cmsghdr` and what stands behind it. Two descriptors need no padding.
#[repr(C)]
struct Rights {
    length: usize,
    level: c_int,
    kind: c_int,
    descriptors: [c_int; 2],
}

/// `struct pollfd`.
#[repr(C)]
struct Polled {
    fd: c_int,
    events: c_short,
    happened: c_short,
}

/// `sizeof(int)` on every Linux architecture.
const INT_LENGTH: u32 = 4;
