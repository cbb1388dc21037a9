//! The bridge over real sockets, with tungstenite's client and with hand-made ones.
#![expect(clippy::unwrap_used, reason = "all of it is a test")]

mod ends;
mod handshake;
mod harness;
mod hixie;
mod limits;
mod panic;
mod pings;
mod program;
mod records;
mod respawn;
mod session;
mod slow;
mod stuck;
mod turns;
mod web;
