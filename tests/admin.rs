//! The admin address (O3): health, metrics, the open sessions and their end, by plain HTTP.

mod access;
mod counted;
mod floods;
mod standing;

use std::io::Write;
use std::net::{Ipv4Addr, TcpStream};

use crate::support::{Service, Websockify, connect, echo_service, free_port, read_to_end};

/// The answer to a request.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

impl Reply {
    /// A header's value; its name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// Sends these bytes, and reads the answer to its end.
pub(crate) fn exchange(mut stream: TcpStream, request: &str) -> Reply {
    stream.write_all(request.as_bytes()).unwrap();
    let text = String::from_utf8(read_to_end(&mut stream)).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Reply { status, head: head.to_owned(), body: body.to_owned() }
}

/// The head of a request; `headers` are further header lines, each with its CRLF.
pub(crate) fn head(method: &str, path: &str, headers: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n")
}

/// Sends a request without a body to the admin port on loopback, and reads the answer.
pub(crate) fn ask(admin: u16, method: &str, path: &str) -> Reply {
    exchange(connect(admin), &head(method, path, ""))
}

pub(crate) fn get(admin: u16, path: &str) -> Reply {
    ask(admin, "GET", path)
}

/// The value of one metric, which must be on the page; `name` is written as there: `name` or `name{label="value"}`.
pub(crate) fn metric(page: &str, name: &str) -> f64 {
    let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {name} in {page}")).parse().unwrap()
}

/// Starts websockify with an admin address in front of an echo service; gives the service, websockify, its port and
/// the admin port.
pub(crate) fn echo_bridge(options: &str) -> (Service, Websockify, u16, u16) {
    let (service, port, admin) = (echo_service(), free_port(), free_port());
    let target = service.target();
    let line = format!("{port} --admin=127.0.0.1:{admin} {options} {target}");
    let websockify = Websockify::start(&line);
    websockify.wait_until_open();
    (service, websockify, port, admin)
}

/// An address that a client of this machine may have, beside the usual one.
pub(crate) const ANOTHER: Ipv4Addr = Ipv4Addr::new(127, 7, 7, 7);
