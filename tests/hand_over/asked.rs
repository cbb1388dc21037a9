//! What the administrator asks for while the new binary takes over.

use std::fs;

use super::{Bridge, FAULT};
use crate::admin::{ask, exchange, get, head};
use crate::support::{Client, connect, free_port, wait_until};

/// O2, O3: after the answer, neither binary would do it.
#[test]
fn o3_what_is_asked_for_in_the_last_moment_of_a_hand_over_is_refused() {
    let admin = free_port();
    let mut bridge = Bridge::start_with(&format!("--admin=127.0.0.1:{admin}"), |command| {
        command.env("LD_PRELOAD", &*FAULT).env("FAULT", "wait");
    });
    let mut client = Client::connect(bridge.port);
    let exchange_hello = |client: &mut Client| {
        client.send("hello");
        assert_eq!(client.read(5), b"hello");
    };
    exchange_hello(&mut client);
    let asked = [("POST", "/drain"), ("DELETE", "/sessions/1")];
    let asked = asked.map(|asked| (asked, connect(admin)));
    // These connections were accepted before this one.
    assert_eq!(get(admin, "/livez").status, 200);
    fs::write(bridge.path("hold"), "").unwrap();
    bridge.ask();
    wait_until("the last moment", || bridge.path("waits").exists());
    for ((method, path), connection) in asked {
        let reply = exchange(connection, &head(method, path, ""));
        assert_eq!((reply.status, reply.header("retry-after")), (503, Some("1")), "{path}");
    }
    fs::remove_file(bridge.path("hold")).unwrap();
    wait_until("another image", || !bridge.websockify.logged(&["INFO taken over: 1"]).is_empty());
    exchange_hello(&mut client);
    assert_eq!(ask(admin, "DELETE", "/sessions/1").status, 202);
    assert_eq!(client.closing().code, 1008);
    assert_eq!(ask(admin, "POST", "/drain").status, 202);
    assert_eq!(bridge.websockify.wait(), 0);
}
