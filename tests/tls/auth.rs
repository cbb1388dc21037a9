//! Who gets a session (T4).

use std::io::Write;

use tempfile::TempDir;

use super::{bridge_in, directory, write};
use crate::support::{
    Authority, Caller, Client, Head, connect, echo_service, read_to_end, request, run, text_of,
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

/// T4: the manual page's last example, but for the program.
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
        websockify.wait_for_log(&["session started", name]);
    }
    for name in ["joe", "Jo", "Joe ", "jane@example.com Joe User9824510", ""] {
        let caller = Caller::with(&authority.issue(name), &[]);
        assert_eq!(caller.session(port, &[]).err().as_deref(), Some("403"), "{name:?}");
    }
    websockify.wait_for_log(&["denied a client", "name"]);
}

/// T4: in upstream a client can lend itself a name by a header.
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
    // Every casing of each word's first letter, both separators, and the usual spellings.
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
    let (_websockify, port) = bridge_in(&directory, &service, &options);
    let good = "Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==";
    let wrong = "Authorization: Basic QWxhZGRpbjpvcGVuLXNlc2FtZQ==";
    for version in [7, 8, 13] {
        assert_eq!(handshake(port, version, &[good]).status, 101, "version {version}");
        for headers in [&[][..], &[wrong], &[good, good]] {
            let head = handshake(port, version, headers);
            assert_eq!(head.status, 401, "version {version}: {headers:?}");
            let challenge = head.header("www-authenticate").unwrap();
            assert!(challenge.starts_with("Basic realm="), "{challenge}");
        }
    }
    assert_eq!(request(port, "/", &[]).0.status, 405, "web requests are not asked");
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

/// A browser hides the status of a handshake that failed, and forbids pages the headers of one.
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

#[test]
fn t4_what_does_not_fit_together_is_a_usage_error() {
    for (options, part) in [
        ("--auth-plugin=ClientCertCNAuth --auth-source=Joe", "--verify-client"),
        ("--auth-plugin=BasicHTTPAuth", "--auth-source"),
        ("--auth-source=a:b", "--auth-plugin"),
        ("--auth-plugin=Magic --auth-source=x", "BasicHTTPAuth, ClientCertCNAuth or ExpectOrigin"),
        ("--auth-plugin=BasicHTTPAuth --auth-source=nocolon", "user:password"),
        ("--cafile=x", "--verify-client"),
        ("--web-auth", "--auth-plugin"),
    ] {
        let output = run(&format!("1 127.0.0.1:1 {options}"));
        assert_eq!((output.status, output.err.len()), (2, 1), "{options}: {:?}", output.err);
        assert!(output.err[0].contains(part), "{options}: {:?}", output.err);
        assert!(!output.err[0].contains("nocolon"), "a password is not repeated");
    }
}
