//! The clients whom the bridge's connections are from, as written in the file that the supervisor has named. Knows where
//! the file is and how its rows are read while the bridge writes them; must not know what a program is told of the clients.

use core::ffi::CStr;
use core::net::{SocketAddr, SocketAddrV4};
use core::sync::atomic::{AtomicU32, Ordering};

use crate::row::{self, ROWS, Row, Sources, WORDS};
use crate::sys;
use crate::text::Text;

/// The longest path of the file that is accepted, bytes.
pub(crate) const MAX_PATH: usize = 255;

/// Who a connection is from.
pub(crate) enum Peer {
    /// It is not the bridge's.
    Stranger,
    /// It is the bridge's, but its client is not known: the connection is over, or the file could not be read.
    Unknown,
    /// It is the bridge's, and from this client.
    Known(Row),
}

/// The file as it is mapped into memory.
type Table = [[AtomicU32; WORDS]; ROWS];

/// The file, and how it is used.
pub(crate) struct Clients {
    sources: Sources,
    /// Whether the program gets no other connections than the bridge's.
    pub(crate) bridge_only: bool,
    table: Option<&'static Table>,
}

impl Clients {
    /// Reads the value of [`crate::names::CLIENTS`]. If the file cannot be read, the bridge's connections are
    /// [unknown](Peer::Unknown), and no strangers'.
    pub(crate) fn read(value: &[u8]) -> Option<Clients> {
        let mut words = value.splitn(4, |byte| *byte == b' ');
        let mut number = || core::str::from_utf8(words.next()?).ok();
        let sources = Sources { second: number()?.parse().ok()?, port: number()?.parse().ok()? };
        let bridge_only = number()? == "bridge";
        let path = Text::<{ MAX_PATH + 1 }>::copy(words.next()?)?.with(b"\0");
        let path = CStr::from_bytes_with_nul(path.bytes()).ok()?;
        // SAFETY: atomics may be read while another process writes them, and any four bytes are a valid one. The file
        // is as long as a `Table`, and is neither truncated nor unmapped while this process lives.
        let table =
            sys::map(path, ROWS * row::LENGTH).map(|start| unsafe { &*start.cast::<Table>() });
        Some(Clients { sources, bridge_only, table })
    }

    /// Who has connected from this address.
    pub(crate) fn who(&self, address: SocketAddr) -> Peer {
        let Some(address) = of_v4(address) else { return Peer::Stranger };
        let Some(row) = self.sources.row(address) else { return Peer::Stranger };
        let shared = self.table.and_then(|table| table.get(usize::from(row)));
        let Some(shared) = shared else { return Peer::Unknown };
        let mut words = [0; WORDS];
        for (word, shared) in words.iter_mut().zip(shared) {
            *word = shared.load(Ordering::Relaxed);
        }
        Row::decode(&words, row).map_or(Peer::Unknown, Peer::Known)
    }
}

/// The IPv4 address, which a socket for both families has as an IPv4-mapped one.
fn of_v4(address: SocketAddr) -> Option<SocketAddrV4> {
    match address {
        SocketAddr::V4(v4) => Some(v4),
        SocketAddr::V6(v6) => Some(SocketAddrV4::new(v6.ip().to_ipv4_mapped()?, v6.port())),
    }
}
