//! The TCP sockets as proc(5) lists them: all of them, which takes longer the more there are.

use std::io;

use procfs::net::{TcpNetEntries, TcpNetEntry};
use procfs::{FromReadSI, ProcError, current_system_info};

use super::{Socket, canonical};

/// The tables in the directory of a process: /proc has no others where it is mounted with `subset=pid`. They are this
/// thread's, as it may be in a network namespace of its own.
const TABLES: [&str; 2] = ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"];

/// Every socket, IPv4 and IPv6.
pub(super) fn sockets() -> io::Result<Vec<Socket>> {
    let mut sockets = Vec::new();
    for (table, is_v6) in TABLES.into_iter().zip([false, true]) {
        match TcpNetEntries::from_file(table, current_system_info()).map_err(cause) {
            Ok(entries) => sockets.extend(entries.0.into_iter().map(Socket::from)),
            // A kernel without IPv6 has no table for it.
            Err(error) if is_v6 && error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sockets)
}

impl From<TcpNetEntry> for Socket {
    fn from(entry: TcpNetEntry) -> Self {
        Self {
            local: canonical(entry.local_address),
            peer: canonical(entry.remote_address),
            state: entry.state.to_u8(),
            // The kernel's numbers have 32 bits.
            inode: u32::try_from(entry.inode).unwrap_or(u32::MAX),
            uid: entry.uid,
            unread: entry.rx_queue,
        }
    }
}

fn cause(error: ProcError) -> io::Error {
    match error {
        ProcError::Io(error, _) => error,
        ProcError::NotFound(_) => io::ErrorKind::NotFound.into(),
        ProcError::PermissionDenied(_) => io::ErrorKind::PermissionDenied.into(),
        error => io::Error::other(error),
    }
}
