//! Which client address targets see (A1, A2), and which connections the wrapped program accepts (A6).

mod access;
mod programs;
mod proxied;
mod storm;
mod targets;
mod told;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use crate::support::{Client, DEADLINE, Websockify, dial_from, engine, free_port, wait_for_within};

/// A client that connects from this address of the machine, and the address and port that it connected from.
pub(crate) fn session_from(source: impl Into<IpAddr>, port: u16) -> (Client, SocketAddr) {
    let stream = dial_from(source, port);
    let (from, to) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
    (Client::over(stream, to).unwrap(), from)
}

/// The nth client's address; websockify uses none of these itself.
pub(crate) fn client(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 9, 1, n)
}

/// A Python program that sends each client the address that `accept` and `getpeername` give for it, a line each. Its
/// arguments say how it listens and accepts.
fn address_reporter() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/client_address/address_reporter.py")
}

/// Starts a websockify that wraps an address reporter with these arguments.
pub(crate) fn start_address_reporter(options: &str, words: &str) -> (Websockify, u16) {
    let port = free_port();
    let program = address_reporter();
    let program = program.display();
    let engine = engine_for(options);
    let line = format!("{port} {engine} {options} -- python3 {program} {port} {words}");
    let websockify = Websockify::start(&line);
    wait_for_open(&websockify);
    if words.contains("both") {
        // The port is open as soon as the program listens for one family.
        websockify.wait_for_log(&["listens for both"]);
    }
    (websockify, port)
}

/// Waits longer than usual: on a busy machine an interpreter starts slowly.
fn wait_for_open(websockify: &Websockify) {
    wait_for_within(3 * DEADLINE, "an open port", || {
        (!websockify.logged(&["INFO listening on"]).is_empty()).then_some(())
    });
}

/// The option that chooses rebind.so, where these options need it and this run of the tests uses another engine.
fn engine_for(options: &str) -> &'static str {
    let takes_it = options.contains("=socket") || options.contains("=bridge");
    if takes_it && engine().is_some() { "--rebind-engine=preload" } else { "" }
}

/// The client's address by `accept`, and by `getpeername`, as an address reporter says them.
pub(crate) fn ask(client: &mut Client) -> (String, String) {
    let mut line = || client.read_until("\n").trim_end().to_owned();
    (line(), line())
}
