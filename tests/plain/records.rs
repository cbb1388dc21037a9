//! What the log says of a session (B10).

use super::bridge_to;
use crate::support::{Client, echo_service, field, request};

#[test]
fn b10_a_session_has_a_record_when_it_starts_and_one_when_it_ends() {
    let service = echo_service();
    let (websockify, port) = bridge_to(&service, "");
    assert_eq!(request(port, "/", &[]).0.status, 405);
    for _ in 0..2 {
        let mut client = Client::connect(port);
        client.send("hello");
        assert_eq!(client.read(5), b"hello");
        client.send("!");
        client.close();
    }
    let ended: Vec<_> = (1..=2)
        .map(|session| websockify.wait_for_log(&["session ended", &format!("session={session}")]))
        .collect();
    for (line, session) in ended.iter().zip(["1", "2"]) {
        assert_eq!(field(line, "session"), session);
        assert_eq!(field(line, "received"), "6");
        assert!(["5", "6"].contains(&field(line, "sent")), "{line}");
        assert_eq!(field(line, "code"), "1000");
        field(line, "duration_ms").parse::<u64>().unwrap();
        field(line, "reason");
    }
    let started = websockify.logged(&["session started"]);
    assert_eq!(started.len(), 2, "a web request is no session");
    for (line, session) in started.iter().zip(["1", "2"]) {
        assert_eq!(field(line, "session"), session);
        assert_eq!(field(line, "client"), "127.0.0.1");
        assert_ne!(field(line, "port").parse(), Ok(port), "the client's own");
        assert_eq!(field(line, "version"), "13");
        assert_eq!(field(line, "path"), "/");
        assert_eq!(field(line, "target"), service.target());
    }
}
