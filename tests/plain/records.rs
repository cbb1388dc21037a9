//! What the log says of a session (B10).

use super::bridge_to;
use std::io::Write;

use tempfile::TempDir;

use crate::support::{
    Client, UPGRADE, Websockify, echo_service, frame, free_port, request, wait_until,
};

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
        .map(|session| websockify.wait_for_log(&[&format!("session ended: {session}, ")]))
        .collect();
    for line in &ended {
        let (_, said) = line.split_once(" after ").unwrap();
        let (duration, said) = said.split_once(" s, ").unwrap();
        duration.parse::<f64>().unwrap();
        let (sent, said) = said.split_once(" bytes sent, ").unwrap();
        assert!(["5", "6"].contains(&sent), "{line}");
        assert_eq!(said, "6 received, code 1000");
    }
    let started = websockify.logged(&["session started"]);
    assert_eq!(started.len(), 2, "a web request is no session");
    for (line, (session, ended)) in started.iter().zip((1..=2).zip(&ended)) {
        let (_, said) = line.split_once(&format!("started: {session}, 127.0.0.1:")).unwrap();
        let (client, said) = said.split_once(" to ").unwrap();
        assert_ne!(client.parse(), Ok(port), "the client's own");
        let both = format!("127.0.0.1:{client} to {}", service.target());
        assert!(ended.contains(&format!("ended: {session}, {both} after ")), "{ended}");
        assert_eq!(said, format!("{}, version 13, path \"/\"", service.target()));
    }
}

/// A record is the same in a file and at a terminal. Only the journal has fields (tests/service/journal.rs).
#[test]
fn f51_a_record_says_everything_once() {
    let directory = TempDir::new().unwrap();
    let log = directory.path().join("log");
    let service = echo_service();
    let port = free_port();
    let line = format!("--log-file={} {port} {}", log.display(), service.target());
    let _websockify = Websockify::start(&line);
    Client::connect_once_open(port).close();
    let lines = || std::fs::read_to_string(&log).unwrap_or_default();
    wait_until("the end of a session", || lines().contains("session ended"));
    let text = lines();
    let records: Vec<_> = text.lines().filter(|line| line.contains(" session ")).collect();
    assert_eq!(records.len(), 2, "{text}");
    for record in records {
        assert!(record.len() < 150, "{} characters: {record}", record.len());
        assert!(!record.contains('='), "no fields: {record}");
        assert_eq!(record.matches("127.0.0.1:").count(), 1 + record.matches(" to ").count());
    }
    // A line break in a client's close reason begins no new line in the log.
    let mut client = Client::connect(port);
    client.stream().write_all(&frame(0x88, b"\x0f\xa0so\nlong")).unwrap();
    wait_until("its record", || lines().contains(r#"code 4000 "so\nlong""#));
}

/// A5: the target's name, and the address where it was reached unless the target is given as an address.
#[test]
fn a5_both_records_name_the_target_and_its_address() {
    let service = echo_service();
    let port = free_port();
    let target = service.target();
    let (_, number) = target.rsplit_once(':').unwrap();
    let websockify = Websockify::start(&format!("{port} localhost:{number}"));
    let mut client = Client::connect_once_open(port);
    client.send("hello");
    assert_eq!(client.read(5), b"hello");
    client.close();
    let reached = format!(" to localhost:{number} (127.0.0.1:{number})");
    websockify.wait_for_log(&["session started: 1, 127.0.0.1:", &format!("{reached}, version 13")]);
    websockify.wait_for_log(&["session ended: 1, 127.0.0.1:", &format!("{reached} after ")]);
    // Nothing listens at this target.
    let (port, nobody) = (free_port(), free_port());
    let websockify = Websockify::start(&format!("{port} localhost:{nobody}"));
    assert_eq!(Client::connect_once_open(port).closing().code, 1011);
    for record in ["session started: 1, 127.0.0.1:", "session ended: 1, 127.0.0.1:"] {
        let line = websockify.wait_for_log(&[record, &format!(" to localhost:{nobody}")]);
        assert!(!line.contains('('), "{line}");
    }
}

/// A5, K8: the user in full, and of the token the beginning only.
#[test]
fn a5_both_records_name_the_user_and_the_beginning_of_the_token() {
    let service = echo_service();
    let directory = TempDir::new().unwrap();
    let tokens = directory.path().join("tokens");
    std::fs::write(&tokens, format!("desk-one: {}\n", service.target())).unwrap();
    let port = free_port();
    let options = "--auth-plugin=BasicHTTPAuth --auth-source=Aladdin:open-sesame --target-config=";
    let websockify = Websockify::start(&format!("{port} {options}{}", tokens.display()));
    websockify.wait_until_open();
    let headers = [&UPGRADE[..], &["Authorization: Basic QWxhZGRpbjpvcGVuLXNlc2FtZQ=="]].concat();
    let (head, stream) = request(port, "/?token=desk-one", &headers);
    assert_eq!(head.status, 101);
    drop(stream);
    for record in ["session started", "session ended"] {
        websockify.wait_for_log(&[record, r#", user "Aladdin", token "desk…""#]);
    }
    for secret in ["desk-", "sesame", "QWxh"] {
        assert_eq!(websockify.logged(&[secret]), Vec::<String>::new());
    }
    // Where neither user nor token is asked for, the records do not have what the client sends of them.
    let (websockify, port) = bridge_to(&service, "");
    assert_eq!(request(port, "/?token=desk-one", &headers).0.status, 101);
    let line = websockify.wait_for_log(&["session ended"]);
    assert!(!line.contains("Aladdin") && !line.contains("token"), "{line}");
}
