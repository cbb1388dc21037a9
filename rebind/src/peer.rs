//! The program's `accept()` and `getpeername()`: which connections it gets, and which client's address it is told.
//! Knows what the kernel answers for which buffer, errno included; must not know where the clients are looked up.
//!
//! The program is told an address only where the kernel tells one, and as much of it as the kernel does. An accepted
//! connection of the bridge whose client is not known is closed, whether or not the program has asked for the
//! address: the bridge connects from a loopback address, which the program might trust.

use core::ffi::{c_int, c_void};

use crate::address::{self, AF_INET};
use crate::clients::{Clients, Peer};
use crate::row::Row;
use crate::settings;
use crate::socket::local_port;
use crate::strangers::Strangers;
use crate::sys;

/// The kernel's call with all its arguments but those that say where it writes.
type Real<'a> = &'a dyn Fn(*mut c_void, *mut u32) -> c_int;

/// Room for an address of either family.
const FULL: u32 = 28;

/// Where the program wants an address to be written.
#[derive(Clone, Copy)]
struct AddressBuffer {
    address: *mut c_void,
    length: *mut u32,
    /// How many bytes there is room for; 0 if the program does not want the address.
    bytes: u32,
}

/// `accept(2)`: `real` is the kernel's, and `known` its `getpeername(2)`.
///
/// # Safety
///
/// As for `accept(2)`: where `address` and `length` are not null they are what that takes.
pub(crate) unsafe fn accept(
    listener: c_int,
    address: *mut c_void,
    length: *mut u32,
    real: Real<'_>,
    known: &dyn Fn(c_int, *mut c_void, *mut u32) -> c_int,
) -> c_int {
    let clients = settings::settings().and_then(|settings| settings.clients.as_ref());
    let Some(clients) = clients else { return real(address, length) };
    // SAFETY: the caller's promise is passed on.
    let Some(room) = (unsafe { AddressBuffer::of(address, length) }) else {
        return real(address, length);
    };
    let errno = sys::errno();
    let mut strangers = clients.bridge_only.then(|| Strangers::at(listener));
    loop {
        // SAFETY: as above.
        let (fd, peer) = unsafe { room.ask(real, &|fd, to, length| known(fd, to, length)) };
        if fd < 0 {
            return fd;
        }
        let answer = match peer.who(clients) {
            Peer::Known(row) => Ok(Some(row)),
            Peer::Stranger if clients.bridge_only && is_of_program(fd) => Err(None),
            Peer::Stranger => Ok(None),
            Peer::Unknown if clients.bridge_only => Err(None),
            Peer::Unknown => Err(Some(sys::ECONNABORTED)),
        };
        match answer {
            Ok(row) => {
                // SAFETY: as above.
                row.into_iter().for_each(|row| unsafe { room.tell(&peer, row) });
                sys::set_errno(errno);
                return fd;
            }
            Err(error) => {
                sys::close(fd);
                // SAFETY: as above.
                unsafe { room.reset() };
                let is_enough = || strangers.as_mut().and_then(Strangers::is_enough);
                if let Some(error) = error.or_else(is_enough) {
                    sys::set_errno(error);
                    return -1;
                }
            }
        }
    }
}

/// `getpeername(2)`: `real` is the kernel's.
///
/// # Safety
///
/// As for [`accept`].
pub(crate) unsafe fn name(address: *mut c_void, length: *mut u32, real: Real<'_>) -> c_int {
    let clients = settings::settings().and_then(|settings| settings.clients.as_ref());
    let Some(clients) = clients else { return real(address, length) };
    // SAFETY: the caller's promise is passed on.
    let room = unsafe { AddressBuffer::of(address, length) }.filter(|room| !room.address.is_null());
    let Some(room) = room else { return real(address, length) };
    let errno = sys::errno();
    // SAFETY: as above.
    let (result, peer) = unsafe { room.ask(real, &|_, to, length| real(to, length)) };
    if result == 0 {
        if let Peer::Known(row) = peer.who(clients) {
            // SAFETY: as above.
            unsafe { room.tell(&peer, row) };
        }
        sys::set_errno(errno);
    }
    result
}

/// Whether a connection came to the program's relocated port, and not to another port that the program listens on.
fn is_of_program(fd: c_int) -> bool {
    settings::settings().is_some_and(|settings| local_port(fd) == Some(settings.ports.new))
}

/// The address that the kernel has said.
struct KernelAddress {
    bytes: [u8; FULL as usize],
    /// How long the address is, which may be more than `bytes` has.
    length: u32,
}

impl KernelAddress {
    const NOTHING: KernelAddress = KernelAddress { bytes: [0; FULL as usize], length: 0 };

    fn who(&self, clients: &Clients) -> Peer {
        let length = self.length.min(FULL) as usize;
        let address = self.bytes.get(..length).and_then(address::decode);
        address.map_or(Peer::Stranger, |address| clients.who(address))
    }

    /// The same structure with the client's address in place of the bridge's.
    fn with(&self, row: Row) -> [u8; FULL as usize] {
        let mut bytes = [0; FULL as usize];
        put(&mut bytes, 0, self.bytes.get(..2).unwrap_or(&[]));
        put(&mut bytes, 2, &row.port.to_be_bytes());
        if self.is_v4() {
            put(&mut bytes, 4, &row.v4);
        } else {
            put(&mut bytes, 8, &row.v6);
            put(&mut bytes, 24, &row.scope.to_ne_bytes());
        }
        bytes
    }

    fn is_v4(&self) -> bool {
        let [low, high] = AF_INET.to_ne_bytes();
        self.bytes.starts_with(&[low, high])
    }
}

impl AddressBuffer {
    /// `None`: the arguments are unusual, and the kernel alone answers the call.
    unsafe fn of(address: *mut c_void, length: *mut u32) -> Option<AddressBuffer> {
        if address.is_null() {
            return Some(AddressBuffer { address, length, bytes: 0 });
        }
        // No program has memory in the first page: the kernel refuses such a pointer.
        if length.addr() < 4096 {
            return None;
        }
        // SAFETY: the caller promises that `length` is what the kernel takes: a number that can be read, aligned or not.
        let bytes = unsafe { length.read_unaligned() };
        i32::try_from(bytes).is_ok().then_some(AddressBuffer { address, length, bytes })
    }

    /// Calls the kernel. The kernel writes into the program's own room, so that the kernel itself reports what is
    /// wrong with that. Where the address is cut for want of room, `rest` is called for the whole address.
    unsafe fn ask(
        self,
        real: Real<'_>,
        rest: &dyn Fn(c_int, *mut c_void, *mut u32) -> c_int,
    ) -> (c_int, KernelAddress) {
        let mut said = KernelAddress { length: FULL, ..KernelAddress::NOTHING };
        let KernelAddress { bytes, length } = &mut said;
        let own = bytes.as_mut_ptr();
        if self.address.is_null() {
            let result = real(own.cast(), length);
            return (result, said);
        }
        let result = real(self.address, self.length);
        if result < 0 {
            return (result, KernelAddress::NOTHING);
        }
        // SAFETY: the kernel has just written it.
        let whole = unsafe { self.length.read_unaligned() };
        if whole <= self.bytes.min(FULL) {
            *length = whole;
            // SAFETY: the kernel has just written as many bytes there.
            unsafe { core::ptr::copy_nonoverlapping(self.address.cast(), own, whole as usize) };
        } else if whole > FULL || rest(result, own.cast(), length) != 0 {
            *length = 0;
        }
        (result, said)
    }

    /// Writes the client's address in place of the bridge's, cut to the length that the kernel has written.
    unsafe fn tell(self, said: &KernelAddress, row: Row) {
        if self.address.is_null() {
            return;
        }
        let length = said.length.min(self.bytes).min(FULL) as usize;
        let bytes = said.with(row);
        // SAFETY: the kernel has just written as many bytes there.
        unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), self.address.cast(), length) };
    }

    /// Restores the length that the program has passed, for the next call of the kernel.
    unsafe fn reset(self) {
        if !self.address.is_null() {
            // SAFETY: the caller has promised accept(2) a length that may be written.
            unsafe { self.length.write_unaligned(self.bytes) };
        }
    }
}

fn put(bytes: &mut [u8], from: usize, value: &[u8]) {
    for (to, from) in bytes.iter_mut().skip(from).zip(value) {
        *to = *from;
    }
}
