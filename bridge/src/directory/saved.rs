//! The destination of a session, for the new binary of a hand-over, whose configuration may have another. Must not know in which
//! form that is written.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Directory;
use crate::destination::{Address, Destination, Endpoint, OpenedSocket};
use crate::saved::Invalid;

/// The destination of a session.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum SavedDestination {
    Program,
    Tcp {
        host: String,
        port: u16,
    },
    Resolved {
        host: String,
        port: u16,
        addresses: Vec<SocketAddr>,
    },
    Unix(PathBuf),
    /// A Unix socket that was opened to be checked: how the log shows it, and its path.
    Opened {
        shown: String,
        path: PathBuf,
    },
}

impl SavedDestination {
    pub(crate) fn of(destination: &Destination) -> Self {
        let named = |address: &Address| (address.host.clone(), address.port);
        match destination {
            Destination::Program(_) => Self::Program,
            Destination::Service(Endpoint::Tcp(address)) => {
                let (host, port) = named(address);
                Self::Tcp { host, port }
            }
            Destination::Service(Endpoint::Resolved(address, addresses)) => {
                let ((host, port), addresses) = (named(address), addresses.clone());
                Self::Resolved { host, port, addresses }
            }
            Destination::Service(Endpoint::Unix(path)) => Self::Unix(path.clone()),
            Destination::Service(Endpoint::Opened(socket)) => {
                Self::Opened { shown: socket.shown().to_owned(), path: socket.path().to_owned() }
            }
        }
    }

    /// The destination that was saved. If it is the only one of `directory`, that one is shared.
    pub(crate) fn resume(&self, directory: &Directory) -> Result<Arc<Destination>, Invalid> {
        let endpoint = match self {
            Self::Program => {
                let only =
                    directory.shared().filter(|only| matches!(**only, Destination::Program(_)));
                let none = || Invalid("a session goes to a program, and there is none".to_owned());
                return only.ok_or_else(none);
            }
            Self::Tcp { host, port } => Endpoint::Tcp(Address { host: host.clone(), port: *port }),
            Self::Resolved { host, port, addresses } => {
                Endpoint::Resolved(Address { host: host.clone(), port: *port }, addresses.clone())
            }
            Self::Unix(path) => Endpoint::Unix(path.clone()),
            Self::Opened { shown, path } => {
                Endpoint::Opened(OpenedSocket::used(path.clone(), shown.as_str()))
            }
        };
        let is_same = |only: &Arc<Destination>| matches!(&**only, Destination::Service(other) if *other == endpoint);
        let shared = directory.shared().filter(is_same);
        Ok(shared.unwrap_or_else(|| Arc::new(Destination::Service(endpoint))))
    }
}
