//! Where websockify listens, and where it connects to (C2, B6).

use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};
use std::process::Command;

use tempfile::TempDir;

use crate::support::{
    Client, Service, WEBSOCKIFY, Websockify, echo, echo_service, free_port, has_ipv6, is_refused,
    needs_root,
};

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const OTHER_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

fn assert_echoes(address: IpAddr, port: u16) {
    let mut client = Client::dial((address, port)).unwrap();
    client.send("hello");
    assert_eq!(client.read(5), b"hello", "by {address}");
    assert_eq!(client.close().code, 1000);
}

#[test]
fn c2_a_source_is_every_address_or_the_one_that_is_named() {
    let service = echo_service();
    let there_is = |address: &&IpAddr| address.is_ipv4() || has_ipv6();
    for (host, open, closed) in [
        ("", &[V4, OTHER_V4, V6][..], &[][..]),
        (":", &[V4, OTHER_V4, V6], &[]),
        ("127.0.0.1:", &[V4], &[OTHER_V4, V6]),
        ("127.0.0.2:", &[OTHER_V4], &[V4, V6]),
        ("[::1]:", &[V6], &[V4, OTHER_V4]),
        // U1: as in the Python websockify.
        ("[::]:", &[V4, OTHER_V4, V6], &[]),
        ("0.0.0.0:", &[V4, OTHER_V4], &[V6]),
        ("localhost:", &[V4], &[OTHER_V4]),
    ] {
        if host.starts_with('[') && !has_ipv6() {
            continue;
        }
        let port = free_port();
        let websockify = Websockify::start(&format!("{host}{port} {}", service.target()));
        websockify.wait_until_open();
        for address in open.iter().filter(there_is) {
            assert_echoes(*address, port);
        }
        for address in closed.iter().filter(there_is) {
            assert!(is_refused(*address, port), "{host}{port} is open on {address}");
        }
    }
}

#[test]
fn c2_a_target_is_a_name_or_an_address_of_either_family() {
    let port = |service: &Service| service.address.port();
    let v4 = echo_service();
    let mut targets = vec![
        format!("127.0.0.1:{}", port(&v4)),
        format!("localhost:{}", port(&v4)),
        format!("[::ffff:127.0.0.1]:{}", port(&v4)),
    ];
    if has_ipv6() {
        let v6 = Service::at((Ipv6Addr::LOCALHOST, 0), echo);
        targets.push(format!("[::1]:{}", port(&v6)));
    }
    for target in targets {
        let public = free_port();
        let websockify = Websockify::start(&format!("{public} {target}"));
        websockify.wait_until_open();
        assert_echoes(V4, public);
    }
}

/// C2: the name has three addresses; the service is on one of them, then on another; then the name
/// gets a new one. In a mount namespace with its own /etc/hosts, hence for root.
#[test]
fn c2_every_resolved_address_is_tried_anew_for_each_session() {
    if !needs_root() {
        return;
    }
    let directory = TempDir::new().unwrap();
    let hosts = directory.path().join("hosts");
    fs::write(&hosts, "127.0.0.2 many\n127.0.0.1 many\n::1 many\n").unwrap();
    let (public, port) = (free_port(), free_port());
    let script = r#"mount --bind "$1" /etc/hosts && exec "$2" "$3" "$4""#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(&hosts);
    command.args([WEBSOCKIFY, &public.to_string(), &format!("many:{port}")]);
    let websockify = Websockify::launch(&mut command);
    websockify.wait_until_open();
    for address in [V6, V4, OTHER_V4] {
        if address == V6 && !has_ipv6() {
            continue;
        }
        let listener = TcpListener::bind((address, port)).unwrap();
        let client = Client::dial((V4, public)).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"here").unwrap();
        drop((stream, listener));
        let closing = client.closing();
        assert_eq!((closing.code, &closing.bytes[..]), (1000, &b"here"[..]), "at {address}");
    }
    // Written in place: the bind mount holds this inode, and would not see another file of that name.
    fs::write(&hosts, "127.0.0.3 many\n").unwrap();
    let _service = Service::at((Ipv4Addr::new(127, 0, 0, 3), port), echo);
    assert_echoes(V4, public);
}

#[test]
fn b6_an_unreachable_target_is_told_after_the_101_and_tried_again_for_the_next_client() {
    let (public, port) = (free_port(), free_port());
    let websockify = Websockify::start(&format!("{public} 127.0.0.1:{port}"));
    websockify.wait_until_open();
    let closing = Client::connect(public).closing();
    let expected = (1011, "target cannot be reached: connection refused");
    assert_eq!((closing.code, closing.reason.as_str()), expected);
    let _service = Service::at((Ipv4Addr::LOCALHOST, port), echo);
    assert_echoes(V4, public);
}

#[test]
fn b6_a_name_that_does_not_resolve_is_told_after_the_101() {
    let public = free_port();
    // No resolver can be asked for this: a label has at most 63 letters (RFC 1035).
    let name = "x".repeat(64);
    let websockify = Websockify::start(&format!("{public} {name}:80"));
    websockify.wait_until_open();
    let closing = Client::connect(public).closing();
    assert_eq!(closing.code, 1011);
    assert!(!closing.reason.is_empty());
}
