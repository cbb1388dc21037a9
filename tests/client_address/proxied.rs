//! Clients that a trusted proxy names (A3) are shown to targets with the address that the proxy gives.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use super::{ask, start_address_reporter};
use crate::support::{Client, DEADLINE, Websockify, free_port, needs};

const TRUSTED: &str = "--trusted-proxy=127.0.0.1 --proxy-protocol";

/// A client with this address, whose connection comes through a proxy.
fn passed_on(client: &str, port: u16) -> Client {
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut proxy = TcpStream::connect(to).unwrap();
    let family = if client.contains(':') { "TCP6 {} 2001:db8::1" } else { "TCP4 {} 192.0.2.1" };
    let line = format!("PROXY {} 4711 80\r\n", family.replace("{}", client));
    proxy.write_all(line.as_bytes()).unwrap();
    Client::over(proxy, to).unwrap()
}

#[test]
fn a1_a3_a_header_goes_on_to_the_target() {
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free_port();
    let service = target.local_addr().unwrap();
    let options = format!("{port} {TRUSTED} --client-address=proxy-v1 {service}");
    let websockify = Websockify::start(&options);
    websockify.wait_until_open();
    for (client, begin) in
        [("198.51.100.7", "PROXY TCP4 198.51.100.7 "), ("2001:db8::7", "PROXY TCP6 2001:db8::7 ")]
    {
        let _client = passed_on(client, port);
        let (mut stream, _) = target.accept().unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut seen = vec![0; begin.len()];
        stream.read_exact(&mut seen).unwrap();
        assert_eq!(String::from_utf8(seen).unwrap(), begin);
    }
}

#[test]
fn a1_a3_clients_of_one_proxy_have_an_address_each() {
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free_port();
    let service = target.local_addr().unwrap();
    let options = format!("{port} {TRUSTED} --client-address=loopback {service}");
    let websockify = Websockify::start(&options);
    websockify.wait_until_open();
    let seen = ["198.51.100.7", "198.51.100.8", "198.51.100.7"].map(|client| {
        let _client = passed_on(client, port);
        target.accept().unwrap().1.ip()
    });
    assert_eq!(seen[0], seen[2]);
    assert_ne!(seen[0], seen[1]);
    assert!(seen.iter().all(|address| *address != Ipv4Addr::LOCALHOST));
}

#[test]
fn a1_a3_the_wrapped_program_sees_whom_the_proxy_names() {
    if !needs(&["python3"]) {
        return;
    }
    let (_websockify, port) =
        start_address_reporter(&format!("{TRUSTED} --client-address=socket"), "");
    let expected = "198.51.100.7 4711".to_owned();
    assert_eq!(ask(&mut passed_on("198.51.100.7", port)), (expected.clone(), expected));
}

/// A1, A3: programs may trust the proxy's own address, and a client could get that by a malformed header: so a client
/// that the proxy has not named is shown with another address.
#[test]
fn a1_a3_whom_the_proxy_has_not_named_is_not_shown_as_the_proxy() {
    if !needs(&["python3"]) {
        return;
    }
    let options = format!("{TRUSTED} --client-address=socket");
    for words in ["", "dual"] {
        let (websockify, port) = start_address_reporter(&options, words);
        let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut proxy = TcpStream::connect(to).unwrap();
        proxy.write_all(b"PROXY UNKNOWN\r\n").unwrap();
        let (accepted, known) = ask(&mut Client::over(proxy, to).unwrap());
        assert_eq!(accepted, known);
        let ip = accepted.split(' ').next().unwrap().trim_start_matches("::ffff:");
        assert_eq!(ip.parse::<Ipv4Addr>().unwrap().octets()[0] & 0xf0, 0xf0, "{words}: {ip}");
        websockify.wait_for_log(&[&format!("127.0.0.1 is shown as {ip}")]);
    }
}

/// A1, A3: nor does the header to the target give the proxy's address for such a client; it says that the client is
/// unknown. For the proxy's own checks (`LOCAL`) it does give the proxy's address.
#[test]
fn a1_a3_whom_the_proxy_has_not_named_is_unknown_to_the_target() {
    const BEGIN: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
    let (unknown, local) = (&b"PROXY UNKNOWN\r\n"[..], [BEGIN, b"\x20\0\0\0"].concat());
    for (version, said, expected) in [
        ("proxy-v1", unknown, b"PROXY UNKNOWN\r\nhello".to_vec()),
        ("proxy-v2", unknown, [BEGIN, b"\x21\0\0\0hello"].concat()),
        ("proxy-v1", &local, b"PROXY TCP4 127.0.0.1 127.0.0.1 ".to_vec()),
    ] {
        let target = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free_port();
        let service = target.local_addr().unwrap();
        let websockify =
            Websockify::start(&format!("{port} {TRUSTED} --client-address={version} {service}"));
        websockify.wait_until_open();
        let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut proxy = TcpStream::connect(to).unwrap();
        proxy.write_all(said).unwrap();
        let mut client = Client::over(proxy, to).unwrap();
        client.send("hello");
        let (mut stream, _) = target.accept().unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut seen = vec![0; expected.len()];
        stream.read_exact(&mut seen).unwrap();
        assert_eq!(String::from_utf8_lossy(&seen), String::from_utf8_lossy(&expected), "{version}");
    }
}
