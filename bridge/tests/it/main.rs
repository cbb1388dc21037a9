//! The bridge over real sockets, with tungstenite's client and with hand-made ones.
#![expect(clippy::unwrap_used, reason = "all of it is a test")]

mod alive;
mod certified;
mod early_data;
mod ends;
#[path = "../../../tests/support/frame.rs"]
mod frame;
mod hand_over;
mod handshake;
mod harness;
mod hixie;
mod limits;
mod memory;
#[path = "../../src/fuzzing/numbers.rs"]
mod numbers;
mod panic;
mod pings;
mod program;
mod records;
mod respawn;
mod rest;
mod session;
#[path = "../../../tests/support/skip.rs"]
#[allow(dead_code, reason = "other crates skip for other reasons")]
mod skip;
mod slow;
mod stuck;
mod turns;
mod web;
mod whole;
