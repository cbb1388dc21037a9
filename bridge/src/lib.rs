//! The WebSocket bridge: listening sockets in, sessions out.
//!
//! A session goes through these modules, in this order:
//!
//! - `listen` accepts the connection and knows when the bridge is done; while the connection has no session it stands in the
//!   `lobby`, which chooses the connection to close where room or memory is scarce,
//! - `connection` has the order of what is done with one connection; `peer` says who has connected, `proxies` for which client a
//!   trusted proxy speaks, which a `proxy_header` or the headers of a request (`forwarded`) name; `network` is a block of
//!   addresses,
//! - `tls` tells encrypted clients from plain ones, and does the TLS handshake with the encrypted ones,
//! - `http` answers the requests of the connection until one is a WebSocket handshake, which `ws` reads and `admission` admits or
//!   refuses; `unadmitted` logs the clients that get no session; `questions` are what a helper outside of the bridge is asked,
//! - `book` knows the session from then on, and `account` is what the log says of it; `session` takes it to its `destination`:
//!   `net` connects to a service, and `program` holds the clients of the wrapped program until they can be connected; `demand`
//!   says whether there are any,
//! - `pump` moves the bytes between the target and the `client`, in buffers from `buffer`, framed by a codec of `ws`; sessions
//!   with many bytes take `turns`; `standstill` says when a session in which nothing moves is over,
//! - `upkeep` sends heartbeats and ends sessions that last too long, for all sessions of the `book`,
//! - `metrics` counts all of that, and by an `observer` the user of this crate sees the sessions, and ends one,
//! - `tap` copies the traffic of a session to `-v` and to a recording (`record`), where they are asked for.
//!
//! The crate knows sockets and clocks; it must not know the command line, processes or signals.
#![deny(unsafe_code)]

mod account;
mod admission;
mod arrival;
pub mod blocking;
mod book;
mod budget;
mod buffer;
mod client;
mod client_address;
mod clients;
mod config;
mod connection;
mod demand;
mod destination;
mod directory;
mod ending;
mod error_text;
mod forwarded;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod hand_over;
mod http;
mod leg;
mod listen;
mod lobby;
mod login;
mod memory;
mod metrics;
mod net;
mod network;
mod observer;
mod opened;
mod orders;
mod pause;
mod peer;
mod private;
mod program;
mod proxies;
mod proxy_header;
mod pump;
mod questions;
mod record;
mod redact;
mod regular;
mod saved;
mod session;
mod shutdown;
mod silence;
#[cfg(test)]
#[path = "../../tests/support/skip.rs"]
#[allow(dead_code, reason = "other crates skip for other reasons")]
mod skip;
pub mod sock_diag;
mod standstill;
mod stream;
mod tap;
pub mod tls;
mod turns;
mod unadmitted;
mod unreachable;
mod upkeep;
pub mod ws;

use std::collections::HashMap;
use std::sync::Arc;

pub use admission::auth::{Auth, Credentials};
pub use admission::guard::{PasswordCheck, Unproven};
pub use client_address::{ClientAddress, ClientTable, ClientTableState, ShownAs};
pub use clients::ClientId;
pub use config::{Access, Config, Plain, Upkeep};
pub use demand::{Attendance, Counter, Demand};
pub use destination::{Address, Destination, Endpoint};
pub use directory::{
    Allowed, Directory, Kind, Pattern, Ports, RedisServer, Rule, Source, SourceError, TokenPlace,
    Tokens,
};
pub use ending::{Error, Outcome};
pub use error_text::error_text;
pub use hand_over::{BridgeState, Frozen, HandOver, NotFrozen, Rest};
pub use metrics::{Counted, Counts, LOOKUP_SECONDS};
pub use net::{Connection, Listener, zone};
pub use network::{Network, Networks};
pub use observer::{Observer, SessionView};
pub use orders::Orders;
pub use private::Private;
pub use program::{Gate, Program, Readiness};
pub use proxies::{ClientNaming, Proxies};
pub use proxy_header::ProxyVersion;
pub use questions::{
    ClientInfo, NoAnswer, Question, QuestionReceiver, QuestionSender, Rejection, Reply, Verdict,
};
pub use saved::{Descriptors, Invalid, Moment};
pub use shutdown::Shutdown;
pub use tap::{TRAFFIC_LEGEND, Traffic};
pub use unadmitted::UNADMITTED;

/// Bridges sessions from `listeners` to the target until the bridge is told to stop or a limit of its configuration ends it, and
/// every connection has ended.
///
/// The listeners must be listening already; they are made non-blocking, and are closed as soon as
/// no more sessions are wanted. Must be called within a tokio runtime that has time and I/O
/// enabled. After [`Shutdown::Now`] it takes five seconds at most.
///
/// # Errors
/// A listener that is no listening socket, at the start or later; or no threads for recordings. Lack of file descriptors or
/// memory is no error: accepting pauses.
pub async fn serve(
    listeners: Vec<Listener>,
    config: Arc<Config>,
    orders: impl Into<Orders>,
) -> Result<Outcome, Error> {
    listen::Bridge::new(listeners, config, orders.into())?.run().await
}

/// Goes on with a bridge that the old binary has stopped for a hand-over. The caller polls the future to its end, as that of
/// [`serve`]. No bytes move before the [`HandOver`] in `orders` is [released](HandOver::release).
///
/// # Errors
/// The state in `frozen` contradicts itself, or does not fit `descriptors` or `config`.
pub fn resume(
    frozen: Frozen,
    descriptors: &mut Descriptors,
    config: Arc<Config>,
    orders: Orders,
) -> Result<impl Future<Output = Result<Outcome, Error>> + Send + use<>, Invalid> {
    let legs = HashMap::new();
    let bridge = listen::Bridge::resume(frozen, descriptors, legs, config, orders)?;
    Ok(bridge.run())
}

/// Serves one client that has connected already; the bridge ends when its connection has ended.
///
/// # Errors
/// `connection` cannot be used as a connection. One that was closed already is no error.
pub async fn serve_connection(
    connection: Connection,
    config: Arc<Config>,
    orders: impl Into<Orders>,
) -> Result<Outcome, Error> {
    let mut bridge = listen::Bridge::new(Vec::new(), config, orders.into())?;
    bridge.take_one(connection)?;
    bridge.run().await
}
