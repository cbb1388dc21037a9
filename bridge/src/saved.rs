//! The parts of which the state of a hand-over is made, with which the new binary goes on (O2): points in time, bytes,
//! and sockets and files by their descriptors. What a part of the bridge saves of itself is in a file `saved.rs` below
//! that part, or in its own file. Must not know what any of it means.
//!
//! The code that writes a state adds its version; a field that a later version adds must have a default where the state
//! is read.

mod descriptors;
pub(crate) mod error_kind;
mod invalid;
mod moment;
mod place;

pub use descriptors::Descriptors;
pub use invalid::Invalid;
pub use moment::Moment;
pub(crate) use place::Place;
