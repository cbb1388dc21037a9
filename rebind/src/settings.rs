//! What the environment said when the program started. Knows the variables and
//! their limits; it must be read before `main()`, since a program may clear its
//! environment (R3), or write its title over it.

use core::cell::UnsafeCell;
use core::ffi::CStr;
use core::sync::atomic::{AtomicBool, Ordering};

use crate::address::Ports;
use crate::clients::{Clients, MAX_PATH};
use crate::names;
use crate::sys;
use crate::text::Text;

/// What there is to do in this process.
pub(crate) struct Settings {
    pub(crate) ports: Ports,
    /// Where notices are sent, and with which token; `None` if nobody wants them.
    pub(crate) notify: Option<Notify>,
    /// The clients' addresses; `None` if the program is to be told only what the kernel says.
    pub(crate) clients: Option<Clients>,
}

/// Where notices are sent, and the token by which the supervisor believes them.
pub(crate) struct Notify {
    /// An abstract address' name, without the leading NUL.
    pub(crate) name: Text<MAX_NAME>,
    pub(crate) token: Text<MAX_TOKEN>,
}

/// `sizeof(sun_path)` without the leading NUL.
pub(crate) const MAX_NAME: usize = 107;
pub(crate) const MAX_TOKEN: usize = 64;

/// Reads the environment. Only for our constructor, which runs once.
pub(crate) fn read() {
    if READ.load(Ordering::Acquire) {
        return;
    }
    // SAFETY: the dynamic linker runs constructors one after the other, and
    // nobody looks at the cell before READ is set.
    unsafe { *SETTINGS.0.get() = from_environment() };
    READ.store(true, Ordering::Release);
}

/// What was read; `None` if the environment asks for nothing, or before the
/// constructor has run.
pub(crate) fn settings() -> Option<&'static Settings> {
    if !READ.load(Ordering::Acquire) {
        return None;
    }
    // SAFETY: nobody writes the cell once READ is set.
    unsafe { (*SETTINGS.0.get()).as_ref() }
}

static READ: AtomicBool = AtomicBool::new(false);
static SETTINGS: Cell = Cell(UnsafeCell::new(None));

struct Cell(UnsafeCell<Option<Settings>>);

// SAFETY: written once, before READ is set; only read afterwards.
unsafe impl Sync for Cell {}

fn from_environment() -> Option<Settings> {
    let ports = Ports { old: port(names::OLD_PORT)?, new: port(names::NEW_PORT)? };
    let clients = variable::<{ MAX_PATH + 32 }>(names::CLIENTS);
    let clients = clients.and_then(|value| Clients::read(value.bytes()));
    Some(Settings { ports, notify: notify(), clients })
}

fn notify() -> Option<Notify> {
    Some(Notify { name: variable(names::NOTIFY)?, token: variable(names::TOKEN)? })
}

/// Port 0 asks the kernel for any port: it cannot be moved, nor moved to.
fn port(name: &str) -> Option<u16> {
    let value = variable::<8>(name)?;
    core::str::from_utf8(value.bytes()).ok()?.parse().ok().filter(|port| *port != 0)
}

/// A variable's value, unless it is longer than it may be.
fn variable<const N: usize>(name: &str) -> Option<Text<N>> {
    let terminated = Text::<32>::EMPTY.with(name.as_bytes()).with(b"\0");
    let name = CStr::from_bytes_with_nul(terminated.bytes()).ok()?;
    Text::copy(sys::variable(name)?.to_bytes())
}
