//! Moves the port by `rebind.so`, which the dynamic linker loads into the program and whatever that
//! starts.

pub(crate) mod environment;
pub(crate) mod library;
#[path = "../../../rebind/src/names.rs"]
pub(crate) mod names;
pub(crate) mod notifications;
pub(crate) mod obstacle;
mod remains;
mod unpacked;
pub(crate) mod variable;
