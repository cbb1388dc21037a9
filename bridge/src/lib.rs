//! The WebSocket bridge: listening sockets in, sessions out.
//!
//! A session goes through these modules, in this order:
//!
//! - `listen` accepts the connection and knows when the bridge is done; in the `lobby` it gives way where room is scarce,
//! - `connection` has the way of one connection on one screen; `peer` says who it is, `proxies` whom a proxy
//!   speaks for, by a `proxy_header` or as the request is `forwarded`; `network` is a block of addresses,
//! - `tls` tells encrypted clients from plain ones, and shakes hands with the former,
//! - `http` answers its requests until one is a handshake, which `ws` reads and `admission` lets in;
//!   `unadmitted` records who was turned away; `questions` are what a helper outside of the bridge is asked,
//! - `book` knows it from then on, and `account` is what the log says of it; `session` takes it to its `destination`: `net` connects to a service,
//!   and `program` holds and lets through those who go to the wrapped program; `demand` says whether there are any,
//! - `pump` moves the bytes between that and the `client`, in buffers from `buffer`,
//!   framed by a codec of `ws`, and in `turns` where there is much of them; `standstill` says when
//!   one that does not move is over,
//! - `upkeep` sends heartbeats and ends sessions that last too long, by the `book` of them,
//! - `metrics` is what is counted of all that, and an `observer` whoever looks at it from outside,
//! - `tap` lets `-v` and a recording (`record`) watch, where they are asked for.
//!
//! The crate knows sockets and clocks; no command line, no process, no signal.
#![deny(unsafe_code)]

mod account;
mod admission;
mod arrival;
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
pub use admission::guard::{Guard, Unproven};
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
pub use proxies::{Proxies, Word};
pub use proxy_header::ProxyVersion;
pub use questions::{Asked, NoAnswer, Question, Questions, Rejection, Reply, Shown, Verdict};
pub use saved::{Descriptors, Invalid, Moment};
pub use shutdown::Shutdown;
pub use tap::{TRAFFIC_LEGEND, Traffic};
pub use unadmitted::UNADMITTED;

/// Bridges sessions from `listeners` to the target until told to stop or done by its
/// configuration, and every connection has ended.
///
/// The listeners must be listening already; they are made non-blocking, and are closed as soon as
/// no more sessions are wanted. Must be called within a tokio runtime that has time and I/O
/// enabled. After [`Shutdown::Now`] it takes five seconds at most.
///
/// # Errors
/// A listening socket that is none, at the start or later. Lack of descriptors or memory is no
/// error: accepting pauses.
pub async fn serve(
    listeners: Vec<Listener>,
    config: Arc<Config>,
    orders: impl Into<Orders>,
) -> Result<Outcome, Error> {
    listen::Bridge::new(listeners, config, orders.into())?.run().await
}

/// Goes on with a bridge that has stood still in another image of this program. What it gives is to be polled to the end, as
/// [`serve`]. Nothing moves before the [`HandOver`] of its orders is [released](HandOver::release).
///
/// # Errors
/// What it says of itself cannot be.
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

/// The same for one client that is there already; the bridge has ended when it has.
///
/// # Errors
/// A connection that is none.
pub async fn serve_connection(
    connection: Connection,
    config: Arc<Config>,
    orders: impl Into<Orders>,
) -> Result<Outcome, Error> {
    let mut bridge = listen::Bridge::new(Vec::new(), config, orders.into())?;
    bridge.take_one(connection)?;
    bridge.run().await
}
