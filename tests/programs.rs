//! Programs from Debian's packages (R6, W13): what they do under websockify, and what is left of them.

mod des;
mod on_demand;
mod out_of_reach;
mod servers;
mod telnet;
mod vnc;

pub(crate) use des::vnc_response;
pub(crate) use telnet::Telnet;
