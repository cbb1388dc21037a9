//! How the program's port is moved to loopback.

pub(crate) mod preload;
pub(crate) mod relocated;
