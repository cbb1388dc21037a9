//! Sockets, and how to get one that is connected to an address.
//!
//! Knows the kernel and the resolver, and nothing of sessions.

mod accept_error;
mod connect;
mod heard;
mod listener;
mod lookup;
mod options;
mod peek;
mod race;
mod socket;
mod unsent;
pub mod zone;

pub(crate) use accept_error::AcceptError;
pub(crate) use connect::{CONNECT, connect, connect_from, connect_unix};
pub(crate) use heard::Heard;
pub(crate) use listener::Accepting;
pub(crate) use listener::SavedListener;
pub use listener::{Connection, Listener};
pub(crate) use lookup::Lookups;
pub(crate) use options::tune;
pub(crate) use peek::{PEEK_MAX, Unread};
pub(crate) use race::first;
pub(crate) use socket::{PeerStatus, SavedSocket, Socket};
