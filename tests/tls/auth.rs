//! Which clients get a session (T4).

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{bridge_in, directory, write};
use crate::support::{
    Authority, Caller, Client, Head, Websockify, connect, echo_service, free_port, read_to_end,
    request, run, text_of, wait_until,
};

/// An upgrade request in the clear, with these headers.
fn handshake(port: u16, version: u8, headers: &[&str]) -> Head {
    let version = format!("Sec-WebSocket-Version: {version}");
    let mut all = vec![
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        &version,
    ];
    all.extend(headers);
    request(port, "/", &all).0
}

/// T4: the manual page's example with client certificates, but for the program, and with one name more.
#[test]
fn t4_certificates_of_the_listed_names_get_a_session() {
    let service = echo_service();
    let (directory, _) = directory();
    let authority = Authority::new("authority");
    write(&directory, "ca.pem", &authority.pem());
    let (websockify, port) = bridge_in(
        &directory,
        &service,
        &[
            "--ssl-only",
            "--verify-client",
            "--cafile=ca.pem",
            "--auth-plugin=ClientCertCNAuth",
            "--auth-source=jane@example.com Joe User9824510",
        ],
    );
    for name in ["jane@example.com", "Joe", "User9824510"] {
        let identity = authority.issue(name);
        Caller::with(&identity, &[]).session(port, &[]).unwrap().exchange(b"hello");
        // A5: both records have the name.
        for record in ["session started", "session ended"] {
            websockify.wait_for_log(&[record, &format!(", name {name:?}")]);
        }
    }
    for name in ["joe", "Jo", "Joe ", "jane@example.com Joe User9824510", ""] {
        let caller = Caller::with(&authority.issue(name), &[]);
        assert_eq!(caller.session(port, &[]).err().as_deref(), Some("403"), "{name:?}");
    }
    websockify.wait_for_log(&["denied a client", "name"]);
}

/// T4: in the Python websockify a client can give itself a name by a header.
#[test]
fn t4_no_header_lends_a_name() {
    let service = echo_service();
    let (directory, _) = directory();
    let authority = Authority::new("authority");
    write(&directory, "ca.pem", &authority.pem());
    let options = [
        "--verify-client",
        "--cafile=ca.pem",
        "--auth-plugin=websockify.auth_plugins.ClientCertCNAuth",
        "--auth-source=Joe",
    ];
    let (_websockify, port) = bridge_in(&directory, &service, &options);
    let caller = Caller::with(&authority.issue("Mallory"), &[]);
    let name = "ssl_client_s_dn_cn";
    let capitalized = |part: &str| part[..1].to_uppercase() + &part[1..];
    let words = |separator: &str| {
        let parts: Vec<_> = name.split('_').map(capitalized).collect();
        parts.join(separator)
    };
    // Each word in lower or in upper case; before that, the usual spellings with both separators.
    let mut spellings =
        vec![name.to_owned(), name.to_uppercase(), words("_"), words("-"), name.replace('_', "-")];
    for bits in 0..32_u32 {
        let parts: Vec<_> = name
            .split('_')
            .enumerate()
            .map(
                |(index, part)| {
                    if bits >> index & 1 == 1 { part.to_uppercase() } else { part.to_owned() }
                },
            )
            .collect();
        spellings.push(parts.join("_"));
    }
    for spelling in spellings {
        for header in [format!("{spelling}: Joe"), format!("X-{spelling}: Joe")] {
            let answer = caller.session(port, &[&header]).err();
            assert_eq!(answer.as_deref(), Some("403"), "{header}");
        }
    }
    Caller::with(&authority.issue("Joe"), &[]).session(port, &[]).unwrap().exchange(b"hello");
}

#[test]
fn t4_basic_credentials_are_asked_for_in_every_version() {
    let service = echo_service();
    let directory = TempDir::new().unwrap();
    let options = ["--auth-plugin=BasicHTTPAuth", "--auth-source=Aladdin:open sesame"];
    let good = "Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==";
    let wrong = "Authorization: Basic QWxhZGRpbjpvcGVuLXNlc2FtZQ==";
    for version in [7, 8, 13] {
        // A new websockify each time: after a wrong password, the next answer comes late.
        let (_websockify, port) = bridge_in(&directory, &service, &options);
        assert_eq!(handshake(port, version, &[good]).status, 101, "version {version}");
        for headers in [&[][..], &[wrong], &[good, good]] {
            let head = handshake(port, version, headers);
            assert_eq!(head.status, 401, "version {version}: {headers:?}");
            let challenge = head.header("www-authenticate").unwrap();
            assert!(challenge.starts_with("Basic realm="), "{challenge}");
        }
        assert_eq!(request(port, "/", &[]).0.status, 405, "web requests are not asked");
    }
}

/// The headers of a handshake of today, and of one of the old drafts; a web request has neither.
const NEW: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const OLD: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\nOrigin: http://x\r\n";
/// The password of `--auth-source=a:b`, and a wrong one.
const GOOD: &str = "Authorization: Basic YTpi";
const WRONG: &str = "Authorization: Basic YTpj";

/// Sends a request, and does not wait for the answer.
fn begin(port: u16, kind: &str, credentials: &str) -> TcpStream {
    let mut stream = connect(port);
    write!(stream, "GET / HTTP/1.1\r\nHost: x\r\n{kind}{credentials}\r\n\r\n").unwrap();
    stream
}

/// The status of the answer.
fn status(stream: &mut TcpStream) -> u16 {
    let mut head = [0; 12];
    stream.read_exact(&mut head).unwrap();
    std::str::from_utf8(&head[9..]).unwrap().parse().unwrap()
}

/// F11: in requests of every kind, and over however many connections.
#[test]
fn f11_wrong_passwords_are_answered_late_one_after_the_other_and_right_ones_at_once() {
    let service = echo_service();
    let directory = TempDir::new().unwrap();
    let options = ["--auth-plugin=BasicHTTPAuth", "--auth-source=a:b", "--web-auth"];
    let (websockify, port) = bridge_in(&directory, &service, &options);
    let began = Instant::now();
    let mut guesses = [NEW, "", OLD, NEW].map(|kind| begin(port, kind, WRONG));
    websockify.wait_for_log(&["denied a client", "wrong credentials", "401 for \"/\""]);
    for kind in [NEW, "", OLD] {
        let expected = if kind.is_empty() { 405 } else { 101 };
        assert_eq!(status(&mut begin(port, kind, GOOD)), expected, "a right one: {kind}");
        assert_eq!(status(&mut begin(port, kind, "X: y")), 401, "none: {kind}");
    }
    assert!(began.elapsed() < Duration::from_secs(7), "at once");
    let mut times = Vec::new();
    for guess in &mut guesses {
        assert_eq!(status(guess), 401);
        times.push(began.elapsed());
        let rest = text_of(&read_to_end(guess));
        assert!(rest.contains("connection: close"), "{rest}");
    }
    times.sort();
    for (time, least) in times.iter().zip([1, 3, 7, 15]) {
        assert!(*time >= Duration::from_secs(least), "{times:?}");
    }
}

/// F11: a client that does not wait for the answers has no more guesses.
#[test]
fn f11_beyond_some_guesses_an_addresss_passwords_are_not_looked_at() {
    let service = echo_service();
    let directory = TempDir::new().unwrap();
    let options = ["--auth-plugin=BasicHTTPAuth", "--auth-source=a:b"];
    let (websockify, port) = bridge_in(&directory, &service, &options);
    for guess in 1..=5 {
        // The client closes at once.
        drop(begin(port, NEW, WRONG));
        wait_until("the guess is counted", || {
            websockify.logged(&["denied a client", "wrong credentials"]).len() == guess
        });
    }
    for kind in [NEW, OLD] {
        for credentials in [WRONG, GOOD] {
            let answer = text_of(&read_to_end(&mut begin(port, kind, credentials)));
            assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
            let (_, time) = answer.split_once("retry-after: ").unwrap();
            let time: u64 = time.lines().next().unwrap().parse().unwrap();
            assert!((1..=6).contains(&time), "{answer}");
        }
    }
    websockify.wait_for_log(&["denied a client", "not looked at", "(429 for"]);
    wait_until("passwords are looked at again", || status(&mut begin(port, NEW, GOOD)) == 101);
}

/// F27: origins as people type them match those that browsers send.
#[test]
fn f27_origins_match_however_they_are_typed_and_the_record_names_the_other() {
    let service = echo_service();
    let directory = TempDir::new().unwrap();
    let source = "--auth-source=https://A.example https://b/ https://c:443 http://d:80/";
    let options = ["--auth-plugin=ExpectOrigin", source];
    let (websockify, port) = bridge_in(&directory, &service, &options);
    for origin in ["https://a.example", "https://b", "https://c", "http://d"] {
        assert_eq!(handshake(port, 13, &[&format!("Origin: {origin}")]).status, 101, "{origin}");
    }
    assert_eq!(handshake(port, 13, &["Origin: https://e"]).status, 403);
    websockify.wait_for_log(&["denied a client", "its origin \"https://e\" is none", "403"]);
    let long = format!("Sec-WebSocket-Origin: https://{}", "f".repeat(10_000));
    assert_eq!(handshake(port, 8, &[&long]).status, 403);
    let line = websockify.wait_for_log(&["denied a client", "https://ffff"]);
    assert!(line.len() < 1000, "{line}");
    for entry in ["a", "*", "https://a/page"] {
        let output =
            run(&format!("1 127.0.0.1:1 --auth-plugin=ExpectOrigin --auth-source={entry}"));
        assert_eq!((output.status, output.err.len()), (2, 1), "{entry}: {:?}", output.err);
        assert!(output.err[0].contains(&format!("'{entry}'")), "{:?}", output.err);
    }
}

#[test]
fn t4_an_origin_is_read_where_its_version_has_it() {
    let service = echo_service();
    let directory = TempDir::new().unwrap();
    let source = "--auth-source=https://a.example http://b.example:8080";
    let options = ["--auth-plugin=ExpectOrigin", source];
    let (websockify, port) = bridge_in(&directory, &service, &options);
    for (version, header) in
        [(7, "Sec-WebSocket-Origin"), (8, "Sec-WebSocket-Origin"), (13, "Origin")]
    {
        for origin in ["https://a.example", "http://b.example:8080"] {
            let header = format!("{header}: {origin}");
            assert_eq!(handshake(port, version, &[&header]).status, 101, "{version} {header}");
        }
        for origin in ["http://a.example", "https://a.example.evil.example", "null"] {
            let header = format!("{header}: {origin}");
            assert_eq!(handshake(port, version, &[&header]).status, 403, "{version} {header}");
        }
        assert_eq!(handshake(port, version, &[]).status, 403);
    }
    assert_eq!(handshake(port, 13, &["Sec-WebSocket-Origin: https://a.example"]).status, 403);
    websockify.wait_for_log(&["denied a client", "origin", ": 127.0.0.1:"]);
    assert!(Client::dial(([127, 0, 0, 1], port)).is_err());
}

#[test]
fn t4_web_auth_asks_at_web_requests_too() {
    let service = echo_service();
    let directory = TempDir::new().unwrap();
    let options = ["--auth-plugin=BasicHTTPAuth", "--auth-source=a:b", "--web-auth"];
    let (_websockify, port) = bridge_in(&directory, &service, &options);
    assert_eq!(request(port, "/", &[]).0.status, 401);
    assert_eq!(request(port, "/", &["Authorization: Basic YTpi"]).0.status, 405);
}

/// A browser hides the status of a failed handshake from its page, and lets the page send no headers of a handshake. So the
/// page sends an OPTIONS request, which gets the status.
#[test]
fn t4_a_page_may_ask_why_its_handshake_failed() {
    let asked = |port: u16, header: &str| {
        let mut stream = connect(port);
        let head =
            format!("OPTIONS /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{header}\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let answer = text_of(&read_to_end(&mut stream));
        answer.split(' ').nth(1).unwrap().parse::<u16>().unwrap()
    };
    let service = echo_service();
    let directory = TempDir::new().unwrap();
    for (options, good, bad, status) in [
        (["BasicHTTPAuth", "a:b"], "Authorization: Basic YTpi", "Authorization: Basic YTpj", 401),
        (["ExpectOrigin", "http://a"], "Origin: http://a", "Origin: http://b", 403),
    ] {
        let [plugin, source] = options;
        let options = [format!("--auth-plugin={plugin}"), format!("--auth-source={source}")];
        let options = options.each_ref().map(String::as_str);
        let (_websockify, port) = bridge_in(&directory, &service, &options);
        assert_eq!(asked(port, good), 405, "{plugin}");
        assert_eq!(asked(port, bad), status, "{plugin}");
    }
}

/// T3, U1: the Python websockify accepts this too, and does not read the file either.
#[test]
fn t3_u1_authorities_without_a_demand_for_certificates_change_nothing() {
    let (service, port) = (echo_service(), free_port());
    let websockify = Websockify::start(&format!("--cafile=nope.pem {port} {}", service.target()));
    let mut client = Client::connect_once_open(port);
    client.send("hello");
    assert_eq!(client.read(5), b"hello");
    websockify.assert_logged(&["WARN", "'--cafile' changes nothing without '--verify-client'"], 1);
}

#[test]
fn t4_what_does_not_fit_together_is_a_usage_error() {
    for (options, part) in [
        ("--auth-plugin=ClientCertCNAuth --auth-source=Joe", "--verify-client"),
        ("--auth-plugin=BasicHTTPAuth", "--auth-source"),
        ("--auth-source=a:b", "--auth-plugin"),
        (
            "--auth-plugin=Magic --auth-source=x",
            "BasicHTTPAuth, ClientCertCNAuth, ExpectOrigin or Helper",
        ),
        ("--auth-plugin=BasicHTTPAuth --auth-source=nocolon", "user:password"),
        ("--web-auth", "--auth-plugin"),
    ] {
        let output = run(&format!("1 127.0.0.1:1 {options}"));
        assert_eq!((output.status, output.err.len()), (2, 1), "{options}: {:?}", output.err);
        assert!(output.err[0].contains(part), "{options}: {:?}", output.err);
        assert!(!output.err[0].contains("nocolon"), "a password is not repeated");
    }
}
