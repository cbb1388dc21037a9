//! Ways to show a target its clients that need no library in the target: a loopback address for each client, and the
//! PROXY header.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use super::{ask, client, session_from, start_address_reporter};
use crate::support::{
    Client, DEADLINE, Lan, SERVERS, TlsServer, Websockify, free_port, has_ipv6, needs, wait_for,
};

/// A websockify whose target is a listener of this test; gives websockify, its port and the listener.
fn bridging(options: &str) -> (Websockify, u16, TcpListener) {
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free_port();
    let websockify =
        Websockify::start(&format!("{port} {options} {}", target.local_addr().unwrap()));
    websockify.wait_until_open();
    (websockify, port, target)
}

fn accept(target: &TcpListener) -> (TcpStream, SocketAddr) {
    let (stream, from) = target.accept().unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    (stream, from)
}

#[test]
fn a1_hidden_is_as_ever() {
    for options in ["", "--client-address=hidden"] {
        let (_websockify, port, target) = bridging(options);
        let _client = session_from(client(1), port);
        assert_eq!(accept(&target).1.ip(), Ipv4Addr::LOCALHOST);
    }
}

#[test]
fn a1_with_loopback_each_client_has_an_address_of_its_own() {
    let (_websockify, port, target) = bridging("--client-address=loopback");
    let mut seen = Vec::new();
    for n in [1, 2, 3, 1, 2] {
        let _client = session_from(client(n), port);
        let (_stream, from) = accept(&target);
        let IpAddr::V4(ip) = from.ip() else { panic!("{from}") };
        assert!(ip.is_loopback() && ip.octets()[1] != 0, "{from}");
        seen.push(ip);
    }
    assert_eq!((seen[0], seen[1]), (seen[3], seen[4]));
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 3);
}

/// All sessions of one client come from its one address.
#[test]
fn a1_with_loopback_a_client_may_have_many_sessions() {
    let (_websockify, port, target) = bridging("--client-address=loopback");
    let kept: Vec<_> = (0..300).map(|_| (session_from(client(1), port), accept(&target))).collect();
    let one = kept[0].1.1.ip();
    assert!(kept.iter().all(|(_, (_, from))| from.ip() == one));
}

#[test]
fn a1_with_loopback_a_local_name_is_tried_where_clients_differ() {
    if !has_ipv6() {
        return;
    }
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let number = target.local_addr().unwrap().port();
    let _other = TcpListener::bind(("::1", number)).unwrap();
    let port = free_port();
    let websockify =
        Websockify::start(&format!("{port} --client-address=loopback localhost:{number}"));
    websockify.wait_until_open();
    let _client = session_from(client(1), port);
    assert_ne!(accept(&target).1.ip(), Ipv4Addr::LOCALHOST);
    assert_eq!(websockify.warnings(), Vec::<String>::new());
}

/// A target on this machine at another address than loopback, and a target on another machine.
#[test]
fn a1_with_loopback_a_target_may_be_at_any_address_of_the_machine() {
    let Some(lan) = Lan::new() else { return };
    let (there, from) = lan.there.run(|| {
        let target = TcpListener::bind((Lan::THERE, 0)).unwrap();
        let port = free_port();
        let websockify = Websockify::start(&format!(
            "{port} --client-address=loopback {}",
            target.local_addr().unwrap()
        ));
        websockify.wait_until_open();
        let _client = session_from(client(1), port);
        (websockify.warnings(), accept(&target).1.ip())
    });
    assert_eq!(there, Vec::<String>::new());
    assert!(from.is_loopback() && from != Ipv4Addr::LOCALHOST, "{from}");
    let target = lan.there.run(|| TcpListener::bind((Lan::THERE, 0)).unwrap());
    lan.here.run(|| {
        let port = free_port();
        let websockify = Websockify::start(&format!(
            "{port} --client-address=loopback {}",
            target.local_addr().unwrap()
        ));
        websockify.wait_until_open();
        let _client = session_from(client(1), port);
        assert_eq!(accept(&target).1.ip(), Lan::HERE);
        websockify.wait_for_log(&["WARN", "is at no IPv4 address of this machine"]);
        let _client = session_from(client(2), port);
        assert_eq!(accept(&target).1.ip(), Lan::HERE);
        assert_eq!(websockify.warnings().len(), 1);
    });
}

#[test]
fn a1_with_loopback_the_wrapped_program_sees_it_too() {
    if !needs(&["python3"]) {
        return;
    }
    let (_websockify, port) = start_address_reporter("--client-address=loopback", "");
    let mut seen = [1, 2, 1].map(|n| ask(&mut session_from(client(n), port).0).0);
    for line in &mut seen {
        line.truncate(line.find(' ').unwrap());
    }
    assert_eq!(seen[0], seen[2]);
    assert_ne!(seen[0], seen[1]);
    assert!(seen.iter().all(|line| line.starts_with("127.") && line != "127.0.0.1"), "{seen:?}");
}

/// A program that listens for IPv6 alone is at `::1`, the only loopback address of IPv6: all clients have that
/// address, and a warning says so.
#[test]
fn a1_with_loopback_a_wrapped_program_of_ipv6_alone_is_warned_of() {
    if !needs(&["python3"]) || !has_ipv6() {
        return;
    }
    let (websockify, port) = start_address_reporter("--client-address=loopback", "v6");
    for n in [1, 2] {
        let (accepted, _) = ask(&mut session_from(client(n), port).0);
        assert!(accepted.starts_with("::1 "), "{accepted}");
    }
    websockify
        .assert_logged(&["WARN", "target [::1]:", "is at no IPv4 address of this machine"], 1);
}

#[test]
fn a1_the_proxy_header_goes_first() {
    let (_websockify, port, target) = bridging("--client-address=proxy-v1");
    let (mut one, from) = session_from(client(1), port);
    one.send("hello");
    let (mut stream, at) = accept(&target);
    assert_eq!(at.ip(), Ipv4Addr::LOCALHOST);
    let expected = format!("PROXY TCP4 {} 127.0.0.1 {} {port}\r\nhello", from.ip(), from.port());
    let mut seen = vec![0; expected.len()];
    stream.read_exact(&mut seen).unwrap();
    assert_eq!(String::from_utf8(seen).unwrap(), expected);

    let (_websockify, port, target) = bridging("--client-address=proxy-v2");
    let (mut one, from) = session_from(client(1), port);
    one.send("hello");
    let mut seen = [0; 16 + 12 + 5];
    accept(&target).0.read_exact(&mut seen).unwrap();
    assert_eq!(&seen[..16], b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c");
    assert_eq!(seen[16..20], client(1).octets());
    assert_eq!(seen[24..26], from.port().to_be_bytes());
    assert_eq!(seen[26..28], port.to_be_bytes());
    assert_eq!(&seen[28..], b"hello");
}

/// A1, U5: the header comes before the TLS handshake, so that a server that terminates TLS for the target can read
/// it.
#[test]
fn a1_the_proxy_header_goes_before_the_tls_of_the_target() {
    let directory = tempfile::TempDir::new().unwrap();
    let authority = directory.path().join("ca.pem");
    std::fs::write(&authority, SERVERS.pem()).unwrap();
    let server = TlsServer::new(&SERVERS.issue("localhost"));
    for version in ["proxy-v1", "proxy-v2"] {
        let target = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, to) = (free_port(), target.local_addr().unwrap().port());
        let websockify = Websockify::start(&format!(
            "{port} --client-address={version} --ssl-target --target-cafile={} localhost:{to}",
            authority.display()
        ));
        websockify.wait_until_open();
        let (mut one, from) = session_from(client(1), port);
        one.send("hello");
        let (mut stream, _) = accept(&target);
        let line = format!("PROXY TCP4 {} 127.0.0.1 {} {port}\r\n", from.ip(), from.port());
        let length = if version == "proxy-v1" { line.len() } else { 16 + 12 };
        let mut header = vec![0; length];
        stream.read_exact(&mut header).unwrap();
        if version == "proxy-v1" {
            assert_eq!(String::from_utf8(header).unwrap(), line);
        } else {
            assert_eq!(header[..16], *b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c");
            assert_eq!(header[16..20], client(1).octets());
        }
        let mut encrypted = server.accept(stream).expect("a handshake");
        let mut said = [0; 5];
        encrypted.read_exact(&mut said).unwrap();
        assert_eq!(&said, b"hello");
    }
}

/// A client at a Unix socket has no internet address; the header says so, and does not give websockify's own address.
#[test]
fn a1_the_header_of_a_client_at_a_unix_socket_names_nobody() {
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("socket");
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let line = format!(
        "--unix-listen={} --client-address=proxy-v1 {}",
        path.display(),
        target.local_addr().unwrap()
    );
    let _websockify = Websockify::start(&line);
    let mut client = wait_for("a socket", || Client::at(&path).ok());
    client.send("hello");
    let mut seen = [0; 20];
    accept(&target).0.read_exact(&mut seen).unwrap();
    assert_eq!(&seen, b"PROXY UNKNOWN\r\nhello");
}

/// A1: where the target can see no address a warning says so, once.
#[test]
fn a1_with_loopback_a_target_at_a_unix_socket_is_named() {
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("target");
    let target = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let port = free_port();
    let websockify = Websockify::start(&format!(
        "{port} --client-address=loopback --unix-target={}",
        path.display()
    ));
    websockify.wait_until_open();
    for n in [1, 2] {
        let _client = session_from(client(n), port);
        target.accept().unwrap();
    }
    let warning = format!("target unix:{} is at no IPv4 address of this machine", path.display());
    websockify.wait_for_log(&[&warning]);
    websockify.assert_logged(&["is at no IPv4 address"], 1);
}
