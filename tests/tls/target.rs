//! Targets that are spoken to in TLS (U5).

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixListener;
use std::sync::mpsc;
use std::thread;

use nix::sys::signal::Signal;
use rcgen::ExtendedKeyUsagePurpose;
use tempfile::TempDir;

use super::write;
use crate::support::{
    Authority, Client, DEADLINE, Dates, Identity, SERVERS, Service, TlsServer, Websockify,
    echo_service, free_port, needs, run, send_close_notify,
};

/// A directory with the servers' authority in `ca.pem`.
fn trusting() -> TempDir {
    let directory = TempDir::new().unwrap();
    write(&directory, "ca.pem", &SERVERS.pem());
    directory
}

/// A websockify in this directory that speaks TLS to its target and is open, and its port.
fn bridge(directory: &TempDir, options: &[&str]) -> (Websockify, u16) {
    let port = free_port();
    let websockify = Websockify::start_with("", |command| {
        command.current_dir(directory).arg(port.to_string()).arg("--ssl-target").args(options);
    });
    websockify.wait_until_open();
    (websockify, port)
}

/// The same to a name that leads to this service.
fn bridge_to(name: &str, service: &Service, directory: &TempDir) -> (Websockify, u16) {
    let target = format!("{name}:{}", service.address.port());
    bridge(directory, &[&target, "--target-cafile=ca.pem"])
}

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|index| u8::try_from(index % 251).unwrap()).collect()
}

/// U5, B4: more than any buffer holds, both ways, and an end in order.
#[test]
fn u5_bytes_pass_to_a_target_that_speaks_tls_and_back() {
    let identity = SERVERS.issue("server");
    let directory = trusting();
    for server in [TlsServer::new(&identity), TlsServer::old(&identity)] {
        let (told, heard) = mpsc::channel();
        let service = server.serve(move |mut stream| {
            let name = stream.conn.server_name().map(str::to_owned);
            let mut all = Vec::new();
            // This fails if the end comes without close_notify.
            let end = stream.read_to_end(&mut all).map_err(|error| error.to_string());
            let _ = stream.write_all(&all);
            send_close_notify(&mut stream);
            told.send((name, end, all)).unwrap();
        });
        let (websockify, port) = bridge_to("localhost", &service, &directory);
        let target = format!("localhost:{}", service.address.port());
        let proxying = format!("proxying from :{port} to {target} (using SSL)");
        websockify.wait_for_log(&[&proxying]);
        let mut client = Client::connect(port);
        let sent = bytes(3_000_000);
        for piece in sent.chunks(50_000) {
            client.send(piece);
        }
        // The client's end reaches the target after its last byte; what the target sends then is read and dropped.
        assert_eq!(client.close().code, 1000);
        let (name, end, all) = heard.recv_timeout(DEADLINE).unwrap();
        assert_eq!((name.as_deref(), end), (Some("localhost"), Ok(sent.len())));
        assert!(all == sent);
        drop(websockify);

        let service = server.serve(move |mut stream| {
            stream.write_all(&bytes(3_000_000)).unwrap();
            send_close_notify(&mut stream);
            let _ = stream.read(&mut [0]);
        });
        let (_websockify, port) = bridge_to("localhost", &service, &directory);
        let closing = Client::connect(port).closing();
        assert_eq!((closing.code, &*closing.reason), (1000, "target closed the connection"));
        assert!(closing.bytes == sent, "{} bytes", closing.bytes.len());

        let (_websockify, port) = bridge_to("localhost", &server.echo(), &directory);
        let mut client = Client::connect(port);
        for piece in sent.chunks(60_000) {
            client.send(piece);
            assert!(client.read(piece.len()) == piece);
        }
        assert_eq!(client.close().code, 1000);
    }
}

#[test]
fn u5_what_is_wrong_with_a_targets_certificate_is_said() {
    let own = Identity::self_signed("localhost");
    let of_past = SERVERS.issue_for("localhost", Dates::Past, &[]);
    let of_future = SERVERS.issue_for("localhost", Dates::Future, &[]);
    let of_client =
        SERVERS.issue_for("localhost", Dates::Now, &[ExtendedKeyUsagePurpose::ClientAuth]);
    let of_stranger = Authority::new("stranger").issue("localhost");
    for (identity, name, why, more) in [
        (&own, "localhost", "it is self-signed, and not in the CA file", ""),
        (&of_past, "localhost", "it, or one that it depends on, has expired", ""),
        (&of_future, "localhost", "it, or one that it depends on, is not valid yet", ""),
        (&of_client, "localhost", "it is not for TLS servers", ""),
        (&of_stranger, "localhost", "no authority that is trusted has issued it", ""),
        (
            &SERVERS.issue("localhost"),
            "127.0.0.1",
            "it is for another name",
            ": for localhost, and not for 127.0.0.1",
        ),
    ] {
        let directory = trusting();
        let service = TlsServer::new(identity).echo();
        let (websockify, port) = bridge_to(name, &service, &directory);
        let closing = Client::connect(port).closing();
        let reason = format!("target cannot be reached: its certificate is refused: {why}");
        assert_eq!((closing.code, closing.reason), (1011, reason));
        let address = service.address.port();
        let line = format!("cannot connect to {name}:{address}: its certificate is refused: {why}");
        websockify.wait_for_log(&["WARN", &format!("{line}{more}")]);
        assert!(closing.bytes.is_empty());
    }
}

#[test]
fn u5_a_target_that_does_not_speak_tls_is_said_to_be_so() {
    let says = |text: &'static [u8]| {
        Service::new(move |mut stream| {
            stream.write_all(text).unwrap();
            let _ = stream.read_to_end(&mut Vec::new());
        })
    };
    let ends = Service::new(|mut stream| drop(stream.read(&mut [0; 4096])));
    for (service, why) in [
        (says(b"RFB 003.008\n"), "what it sends is not TLS, or damaged"),
        (echo_service(), "what it sends is not TLS, or damaged"),
        (ends, "it broke off the TLS handshake, and may not speak TLS"),
    ] {
        let directory = trusting();
        let (websockify, port) = bridge_to("127.0.0.1", &service, &directory);
        let closing = Client::connect(port).closing();
        let reason = format!("target cannot be reached: {why}");
        assert_eq!((closing.code, closing.reason), (1011, reason));
        websockify.wait_for_log(&["WARN", "cannot connect to 127.0.0.1:", why]);
    }
}

/// U5, B4: what the target has sent before such an end arrives.
#[test]
fn u5_an_end_without_tlss_own_is_no_end_in_order() {
    let directory = trusting();
    let server = TlsServer::new(&SERVERS.issue("server"));
    let cut = server.serve(|mut stream| stream.write_all(&bytes(200_000)).unwrap());
    let (_websockify, port) = bridge_to("localhost", &cut, &directory);
    let closing = Client::connect(port).closing();
    let reason = "target ended without closing TLS, its last bytes may be missing";
    assert_eq!((closing.code, &*closing.reason), (1011, reason));
    assert!(closing.bytes == bytes(200_000));
    let reset = server.serve(|mut stream| {
        stream.read_exact(&mut [0]).unwrap();
        let linger = Some(std::time::Duration::ZERO);
        socket2::SockRef::from(&stream.sock).set_linger(linger).unwrap();
    });
    let (_websockify, port) = bridge_to("localhost", &reset, &directory);
    let mut client = Client::connect(port);
    client.send("x");
    let closing = client.closing();
    assert_eq!((closing.code, &*closing.reason), (1011, "target failed: connection reset"));
    let damaged = server.serve(|mut stream| {
        stream.read_exact(&mut [0]).unwrap();
        stream.sock.write_all(b"not TLS at all").unwrap();
        let _ = stream.sock.read(&mut [0; 4096]);
    });
    let (_websockify, port) = bridge_to("localhost", &damaged, &directory);
    let mut client = Client::connect(port);
    client.send("x");
    assert_eq!(client.closing().code, 1011);
}

/// A certificate as `openssl req -x509` makes it: an authority or not, with its name in the subject.
#[test]
fn u5_a_self_signed_certificate_may_stand_in_the_file_itself() {
    if !needs(&["openssl"]) {
        return;
    }
    for extra in ["basicConstraints=critical,CA:TRUE", "basicConstraints=critical,CA:FALSE"] {
        let directory = TempDir::new().unwrap();
        let status = std::process::Command::new("openssl")
            .args(["req", "-new", "-x509", "-days", "9", "-nodes", "-subj", "/CN=localhost"])
            .args(["-newkey", "rsa:2048", "-addext", extra, "-out", "ca.pem", "-keyout", "key.pem"])
            .current_dir(&directory)
            .stderr(std::process::Stdio::null())
            .status();
        assert!(status.unwrap().success());
        let port = free_port();
        // U5, C6: a wrapped program is on this machine, so its certificate must be for localhost, whatever port it is reached by.
        let wrapped =
            format!("{port} --ssl-target --target-cafile=ca.pem -- openssl s_server -quiet");
        let wrapped = format!("{wrapped} -accept {port} -cert ca.pem -key key.pem -rev");
        let websockify = Websockify::start_with(&wrapped, |command| {
            command.current_dir(&directory);
        });
        websockify.wait_until_open();
        let line = websockify.wait_for_log(&["proxying from"]);
        assert!(line.ends_with(&format!("to 'openssl' (port {port}) (using SSL)")), "{line}");
        let mut client = Client::connect(port);
        client.send("olleh\n");
        assert_eq!(client.read_line(), "hello");
        assert_eq!(client.close().code, 1000);
        websockify.assert_alone_on(port);
    }
}

/// U5, U3: a Unix socket has no name in a network; the certificate there must be for localhost.
#[test]
fn u5_a_unix_socket_is_this_machines() {
    let directory = trusting();
    let listener = UnixListener::bind(directory.path().join("socket")).unwrap();
    let server = TlsServer::new(&SERVERS.issue("server"));
    thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            let server = server.clone();
            thread::spawn(move || server.echo_at(socket));
        }
    });
    let (_websockify, port) =
        bridge(&directory, &["--unix-target=socket", "--target-cafile=ca.pem"]);
    let mut client = Client::connect(port);
    client.send(bytes(50_000));
    assert!(client.read(50_000) == bytes(50_000));
    assert_eq!(client.close().code, 1000);
}

/// U5, K7: the certificate must be for the name that the source of tokens gives, and the addresses that were checked are
/// used.
#[test]
fn u5_each_tokens_target_must_have_its_own_name() {
    let directory = trusting();
    let service = TlsServer::new(&SERVERS.issue("server")).echo();
    let port = service.address.port();
    let tokens = format!("name: localhost:{port}\naddress: 127.0.0.1:{port}\n");
    write(&directory, "tokens", &tokens);
    for more in [&["-v"][..], &["--target-allow=127.0.0.0/8"]] {
        let options = ["--target-config=tokens", "--target-cafile=ca.pem"];
        let (websockify, port) = bridge(&directory, &[&options, more].concat());
        websockify.wait_for_log(&["to targets generated by TokenFile (using SSL)"]);
        let mut client = token(port, "name");
        client.send("hello");
        assert_eq!(client.read(5), b"hello");
        let closing = token(port, "address").closing();
        assert_eq!(closing.code, 1011);
        assert!(closing.reason.ends_with("it is for another name"), "{}", closing.reason);
    }
}

fn token(port: u16, token: &str) -> Client {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    Client::dial_path(address, &format!("/?token={token}")).unwrap()
}

/// U5, T5: by a signal or without one; sessions go on.
#[test]
fn u5_the_authorities_are_read_again() {
    let directory = TempDir::new().unwrap();
    let others = Authority::new("others");
    write(&directory, "ca.pem", &others.pem());
    let service = TlsServer::new(&SERVERS.issue("server")).echo();
    let (websockify, port) = bridge_to("localhost", &service, &directory);
    assert_eq!(Client::connect(port).closing().code, 1011);
    write(&directory, "ca.pem", &SERVERS.pem());
    websockify.wait_for_log(&["authorities for targets are reloaded: the file has changed"]);
    let mut early = Client::connect(port);
    early.send("hello");
    assert_eq!(early.read(5), b"hello");
    fs::remove_file(directory.path().join("ca.pem")).unwrap();
    websockify.signal(Signal::SIGHUP);
    websockify.wait_for_log(&["the old authorities for targets stay in use", "ca.pem", "no such"]);
    let mut late = Client::connect(port);
    for client in [&mut early, &mut late] {
        client.send("hello");
        assert_eq!(client.read(5), b"hello");
    }
}

/// U5: as in OpenSSL, the environment may say where the system's authorities are.
#[test]
fn u5_without_a_file_the_systems_authorities_count() {
    let directory = trusting();
    let service = TlsServer::new(&SERVERS.issue("server")).echo();
    let target = format!("localhost:{}", service.address.port());
    let start = |file: &str| {
        let port = free_port();
        let websockify = Websockify::start_with("", |command| {
            command.args([&port.to_string(), &target, "--ssl-target"]).current_dir(&directory);
            command.env("SSL_CERT_FILE", directory.path().join(file)).env_remove("SSL_CERT_DIR");
        });
        (websockify, port)
    };
    let (websockify, port) = start("ca.pem");
    websockify.wait_until_open();
    let mut client = Client::connect(port);
    client.send("hello");
    assert_eq!(client.read(5), b"hello");
    let (mut websockify, _) = start("none.pem");
    assert_eq!(websockify.wait(), 1);
    websockify.wait_for_log(&["cannot find the system's certificate authorities", "none.pem"]);
}

#[test]
fn u5_a_file_that_cannot_be_used_ends_the_start() {
    let directory = TempDir::new().unwrap();
    write(&directory, "empty.pem", "");
    write(&directory, "leaf.pem", &SERVERS.issue("server").certificate.pem());
    for (name, part) in [
        ("none.pem", "no such file"),
        ("empty.pem", "not a PEM file"),
        ("leaf.pem", "no self-signed certificate"),
    ] {
        let path = directory.path().join(name);
        let path = path.display();
        let output = run(&format!("0 a:1 --ssl-target --target-cafile={path}"));
        let said = output.err.join("\n");
        assert_eq!((output.status, output.err.len()), (1, 1), "{said}");
        assert!(said.contains(part) && said.contains(&path.to_string()), "{said}");
    }
}
