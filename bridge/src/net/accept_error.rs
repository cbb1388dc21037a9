//! What an error of accept(2) concerns: one connection, the system, or the listening socket.

use std::io;

use nix::errno::Errno;

/// Whose fault a failed `accept(2)` is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum AcceptError {
    /// That connection: the next one may be fine (accept(2), "Error handling").
    Connection,
    /// The system, which may have descriptors or memory again later.
    Resources,
    /// The socket itself.
    Listener,
}

impl AcceptError {
    pub(crate) fn of(error: &io::Error) -> Self {
        match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM) => Self::Resources,
            Some(Errno::EBADF | Errno::EINVAL | Errno::ENOTSOCK | Errno::EOPNOTSUPP) | None => {
                Self::Listener
            }
            Some(_) => Self::Connection,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l1_accept_errors_are_classified() {
        for (errno, kind) in [
            (Errno::EMFILE, AcceptError::Resources),
            (Errno::ENFILE, AcceptError::Resources),
            (Errno::ENOMEM, AcceptError::Resources),
            (Errno::ECONNABORTED, AcceptError::Connection),
            (Errno::EPROTO, AcceptError::Connection),
            (Errno::EPERM, AcceptError::Connection),
            (Errno::EHOSTUNREACH, AcceptError::Connection),
            (Errno::EINVAL, AcceptError::Listener),
        ] {
            assert_eq!(AcceptError::of(&errno.into()), kind, "{errno}");
        }
    }
}
