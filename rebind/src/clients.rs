//! Who the bridge's connections are from, as the file says that the supervisor has named. Knows where it is and how
//! its rows are read while they are written; must not know what a program is told of them.

use core::ffi::CStr;
use core::net::{SocketAddr, SocketAddrV4};
use core::sync::atomic::{AtomicU32, Ordering};

use crate::row::{self, ROWS, Row, Sources, WORDS};
use crate::sys;
use crate::text::Text;

/// The longest path of the file that is taken.
pub(crate) const MAX_PATH: usize = 255;

/// What a connection is.
pub(crate) enum Peer {
    /// Not the bridge's.
    Stranger,
    /// The bridge's, and nobody says who it is from: it is over, or the file could not be read.
    Unknown,
    /// The bridge's, from there.
    Known(Row),
}

/// The file as it lies in memory.
type Table = [[AtomicU32; WORDS]; ROWS];

/// The file, and what it is for.
pub(crate) struct Clients {
    sources: Sources,
    /// Whether others than the bridge get no connection.
    pub(crate) are_all: bool,
    table: Option<&'static Table>,
}

impl Clients {
    /// As [`crate::names::CLIENTS`] says it. A file that cannot be read makes no client a stranger.
    pub(crate) fn read(value: &[u8]) -> Option<Clients> {
        let mut words = value.splitn(4, |byte| *byte == b' ');
        let mut number = || core::str::from_utf8(words.next()?).ok();
        let sources = Sources { second: number()?.parse().ok()?, port: number()?.parse().ok()? };
        let are_all = number()? == "bridge";
        let path = Text::<{ MAX_PATH + 1 }>::copy(words.next()?)?.with(b"\0");
        let path = CStr::from_bytes_with_nul(path.bytes()).ok()?;
        // SAFETY: atomics may be read whoever writes, and any four bytes are one; the file is as long, and
        // neither truncated nor unmapped while we live.
        let table =
            sys::map(path, ROWS * row::LENGTH).map(|start| unsafe { &*start.cast::<Table>() });
        Some(Clients { sources, are_all, table })
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

/// A socket for both families has it mapped.
fn of_v4(address: SocketAddr) -> Option<SocketAddrV4> {
    match address {
        SocketAddr::V4(v4) => Some(v4),
        SocketAddr::V6(v6) => Some(SocketAddrV4::new(v6.ip().to_ipv4_mapped()?, v6.port())),
    }
}
