//! The names of the environment variables by which the supervisor speaks to
//! `rebind.so`. Both sides include this file, so it knows nothing else.
//!
//! The two port names are those of the Python websockify; a wrapper script
//! written for its `rebind.so` may read or set them.

/// The port that the program asks for, in decimal.
pub(crate) const OLD_PORT: &str = "REBIND_OLD_PORT";

/// The loopback port that it gets instead, in decimal.
pub(crate) const NEW_PORT: &str = "REBIND_NEW_PORT";

/// The supervisor's datagram socket: the name of an abstract `AF_UNIX` address
/// without the leading NUL, at most 107 bytes of ASCII.
pub(crate) const NOTIFY: &str = "REBIND_NOTIFY";

/// Which clients the bridge's connections are from. Four parts with spaces between them: the second byte of the
/// addresses that the bridge connects from, and its port, both in decimal; `anyone` or `bridge`, for whose connections
/// the program's `accept()` may return; and the absolute path, of at most 255 bytes, of the file that has each
/// connection's client. Not set: the program is told only what the kernel says.
pub(crate) const CLIENTS: &str = "REBIND_CLIENTS";

/// What a notice must begin with to be believed, at most 64 bytes of ASCII. A
/// space and the sender's process id in decimal follow it. In a notice of a
/// refused port, a space and the 4 or 16 bytes of an IP address follow that.
pub(crate) const TOKEN: &str = "REBIND_TOKEN";
