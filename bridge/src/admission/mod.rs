//! Who gets a session.
//!
//! - `auth` knows what a client must show, `penalty` makes those wait who guess.

pub(crate) mod auth;
pub(crate) mod penalty;

pub use auth::{Auth, Credentials};
