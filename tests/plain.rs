//! The bridge without a program: `websockify 8080 localhost:80`.

mod addresses;
mod flow;
mod limits;
mod names;
mod old;
mod protocol;
mod records;
mod watched;

use crate::support::{Service, Websockify, free_port};

/// A websockify that bridges to `service` and is open, and its port.
fn bridge_to(service: &Service, options: &str) -> (Websockify, u16) {
    let port = free_port();
    let websockify = Websockify::start(&format!("{port} {} {options}", service.target()));
    websockify.wait_until_open();
    (websockify, port)
}
