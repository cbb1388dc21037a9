//! What those share who say what they are, for another image of this program to go on with (O2): points in time, bytes,
//! sockets by their descriptors. What each of them says is in a file `saved.rs` below it, or in its own. Must not know what any
//! of it means.
//!
//! Whoever writes a state down says its version; what a later version adds must have a default where it is read.

mod descriptors;
pub(crate) mod error_kind;
mod invalid;
mod moment;
mod place;

pub use descriptors::Descriptors;
pub use invalid::Invalid;
pub use moment::Moment;
pub(crate) use place::Place;
