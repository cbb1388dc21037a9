//! `rebind.so`: moves the port that a program binds to a loopback port, tells the
//! supervisor when the program listens there, and the program who its clients are.
//!
//! It is loaded into every program that is wrapped, before the program's own
//! code, so it needs nothing but the C library that is there already, neither
//! allocates nor panics, and keeps no state beyond what it read at the start:
//! `fork()`, threads and `exec()` need no care. Knows what travels in the
//! environment; must not know who reads the notices, or why.
//!
//! The supervisor's build script compiles it with `panic = "abort"` and without
//! the standard library. A workspace build unwinds; it links the standard
//! library, which has the panic handler for that.

#![cfg_attr(panic = "abort", no_std)]

mod address;
mod clients;
mod moved;
mod names;
mod notice;
mod peer;
#[allow(dead_code, reason = "the bridge writes")]
mod row;
mod settings;
mod socket;
mod strangers;
mod sys;
mod text;

use core::ffi::{c_int, c_void};
use core::net::{IpAddr, SocketAddr};

use address::{Encoded, Stack};
use moved::Move;
use socket::{local_port, stack};

/// `bind(2)`, with the address replaced where the rules say so.
///
/// # Safety
///
/// As for `bind(2)`: `address` is null or points to `length` readable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bind(fd: c_int, address: *const c_void, length: u32) -> c_int {
    let errno = sys::errno();
    // SAFETY: the caller's promise is passed on.
    let wanted = unsafe { to_move(fd, address, length) };
    let moved = wanted.and_then(|(wanted, was)| {
        let result = wanted.bind(bind_to, ask_for);
        // The program may bind another port next, which is not moved: so the option is set back to what it was.
        if result != Some(Ok(())) && was == Stack::V6Only {
            sys::set_option(fd, sys::IPPROTO_IPV6, sys::IPV6_V6ONLY, 1);
        }
        result
    });
    sys::set_errno(errno);
    match moved {
        Some(Ok(())) => 0,
        Some(Err(errno)) => {
            sys::set_errno(errno);
            -1
        }
        // SAFETY: the caller's promise is passed on.
        None => unsafe { next_bind(fd, address, length) },
    }
}

/// `listen(2)`, with a notice to the supervisor once a moved socket listens.
///
/// # Safety
///
/// None beyond that of every foreign function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn listen(fd: c_int, backlog: c_int) -> c_int {
    let errno = sys::errno();
    let settings = settings::settings()
        .filter(|settings| stack(fd).is_some() && local_port(fd) == Some(settings.ports.new));
    sys::set_errno(errno);
    // SAFETY: listen() takes no pointers.
    let real = |fd| unsafe { next_listen(fd, backlog) };
    let Some(settings) = settings else { return real(fd) };
    let result = moved::listen(fd, settings.ports.new, bind_to, real);
    if result == 0 {
        notice::listens();
        sys::set_errno(errno);
    }
    result
}

/// `accept(2)`, with the client's address in place of the bridge's.
///
/// # Safety
///
/// As for `accept(2)`: `address` is null, or `address` and `length` point to what that takes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn accept(fd: c_int, address: *mut c_void, length: *mut u32) -> c_int {
    // SAFETY: the caller's promise is passed on.
    let real = |address, length| unsafe { next_name(&NEXT_ACCEPT, fd, address, length) };
    // SAFETY: as above.
    unsafe { peer::accept(fd, address, length, &real, &known) }
}

/// `accept4(2)`, likewise.
///
/// # Safety
///
/// As for [`accept`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn accept4(
    fd: c_int,
    address: *mut c_void,
    length: *mut u32,
    flags: c_int,
) -> c_int {
    // SAFETY: the caller's promise is passed on.
    let real = |address, length| unsafe { next_accept4(fd, address, length, flags) };
    // SAFETY: as above.
    unsafe { peer::accept(fd, address, length, &real, &known) }
}

/// `getpeername(2)`, likewise.
///
/// # Safety
///
/// As for [`accept`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getpeername(fd: c_int, address: *mut c_void, length: *mut u32) -> c_int {
    // SAFETY: the caller's promise is passed on.
    let real = |address, length| unsafe { next_name(&NEXT_NAME, fd, address, length) };
    // SAFETY: as above.
    unsafe { peer::name(address, length, &real) }
}

static NEXT_ACCEPT: sys::Next = sys::Next::new(c"accept");
static NEXT_ACCEPT4: sys::Next = sys::Next::new(c"accept4");
static NEXT_NAME: sys::Next = sys::Next::new(c"getpeername");
static NEXT_BIND: sys::Next = sys::Next::new(c"bind");
static NEXT_LISTEN: sys::Next = sys::Next::new(c"listen");

#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = {
    extern "C" fn constructor() {
        settings::read();
        NEXT_BIND.address();
        NEXT_LISTEN.address();
        NEXT_ACCEPT.address();
        NEXT_ACCEPT4.address();
        NEXT_NAME.address();
    }
    constructor
};

/// What the socket asks for, if its bind is to be moved; and over which families it could be reached before this call.
///
/// # Safety
///
/// As for [`bind`].
unsafe fn to_move(fd: c_int, address: *const c_void, length: u32) -> Option<(Move, Stack)> {
    // The kernel refuses an address that is longer than a sockaddr_storage, without reading it.
    if address.is_null() || length > 128 {
        return None;
    }
    // SAFETY: the caller promises `length` readable bytes.
    let bytes = unsafe { core::slice::from_raw_parts(address.cast::<u8>(), length as usize) };
    let wanted = address::decode(bytes)?;
    let settings = settings::settings()?;
    let ports = settings.ports;
    if !ports.concern(wanted.port()) {
        return None;
    }
    let was = stack(fd)?;
    let known = settings.clients.is_some().then(|| for_both(fd, wanted.ip(), was)).flatten();
    let (wanted, stack) = known.map_or((wanted.ip(), was), |ip| (ip, Stack::Dual));
    Some((Move { fd, wanted, stack, port: ports.new }, was))
}

/// The address that a socket for IPv6 alone is bound to, so that its clients can be told apart; see
/// [`row::V6_ONLY`]. Makes it a socket for both families.
fn for_both(fd: c_int, wanted: IpAddr, was: Stack) -> Option<IpAddr> {
    let IpAddr::V6(ip) = wanted else { return None };
    let is_for_both = was == Stack::Dual && ip.is_unspecified();
    if was == Stack::V4 || is_for_both || ip.to_ipv4_mapped().is_some() {
        return None;
    }
    if was == Stack::V6Only {
        sys::set_option(fd, sys::IPPROTO_IPV6, sys::IPV6_V6ONLY, 0);
    }
    (stack(fd)? == Stack::Dual).then(|| row::V6_ONLY.to_ipv6_mapped().into())
}

/// Has the supervisor bind a socket whose own user may not bind the port. True: the socket is bound.
fn ask_for(fd: c_int, address: SocketAddr) -> bool {
    notice::refused(fd, address.ip()) && local_port(fd) == Some(address.port())
}

fn bind_to(fd: c_int, address: &Encoded) -> Result<(), c_int> {
    let (bytes, length) = address.parts();
    // SAFETY: the bytes outlive the call and are as many as said.
    match unsafe { next_bind(fd, bytes.as_ptr().cast(), length) } {
        0 => Ok(()),
        _ => Err(sys::errno()),
    }
}

/// # Safety
///
/// As for [`bind`].
unsafe fn next_bind(fd: c_int, address: *const c_void, length: u32) -> c_int {
    // SAFETY: it is null or a function of this type, which POSIX says bind() is.
    match unsafe { core::mem::transmute::<*mut c_void, Option<sys::Bind>>(NEXT_BIND.address()) } {
        // SAFETY: the caller's promise is passed on.
        Some(bind) => unsafe { bind(fd, address, length) },
        None => missing(),
    }
}

/// # Safety
///
/// As for [`listen`].
unsafe fn next_listen(fd: c_int, backlog: c_int) -> c_int {
    // SAFETY: it is null or a function of this type, which POSIX says listen() is.
    match unsafe { core::mem::transmute::<*mut c_void, Option<sys::Listen>>(NEXT_LISTEN.address()) }
    {
        // SAFETY: the caller's promise is passed on.
        Some(listen) => unsafe { listen(fd, backlog) },
        None => missing(),
    }
}

/// The kernel's `getpeername()`, of a connection that the program has accepted.
fn known(fd: c_int, address: *mut c_void, length: *mut u32) -> c_int {
    // SAFETY: `peer::accept`, the only caller, passes a buffer of its own and the length of that.
    unsafe { next_name(&NEXT_NAME, fd, address, length) }
}

/// # Safety
///
/// As for [`accept`].
unsafe fn next_name(next: &sys::Next, fd: c_int, address: *mut c_void, length: *mut u32) -> c_int {
    // SAFETY: it is null or a function of this type, which POSIX says both are.
    match unsafe { core::mem::transmute::<*mut c_void, Option<sys::Name>>(next.address()) } {
        // SAFETY: the caller's promise is passed on.
        Some(name) => unsafe { name(fd, address, length) },
        None => missing(),
    }
}

/// # Safety
///
/// As for [`accept4`].
unsafe fn next_accept4(fd: c_int, address: *mut c_void, length: *mut u32, flags: c_int) -> c_int {
    // SAFETY: it is null or a function of this type, as accept4(2) has it.
    match unsafe {
        core::mem::transmute::<*mut c_void, Option<sys::Accept4>>(NEXT_ACCEPT4.address())
    } {
        // SAFETY: the caller's promise is passed on.
        Some(accept4) => unsafe { accept4(fd, address, length, flags) },
        None => missing(),
    }
}

/// What a C library without sockets would answer.
fn missing() -> c_int {
    sys::set_errno(sys::ENOSYS);
    -1
}

#[cfg(panic = "abort")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Nothing here panics; a loop needs no symbol of another library.
    loop {}
}
