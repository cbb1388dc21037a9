//! Programs as Debian has them (R6, W13): what they do under websockify, and what is left of them.

mod des;
mod servers;
mod telnet;
mod vnc;

pub(crate) use des::vnc_response;
