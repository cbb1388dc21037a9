//! Which versions and cipher suites of TLS are offered (U6).

use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::{bridge_in, directory};
use crate::support::{Caller, Websockify, echo_service, free_port, needs};

/// What openssl negotiates with these options, version and cipher suite; `None`: nothing.
fn negotiated(port: u16, options: &str) -> Option<String> {
    let mut client = Command::new("openssl");
    client.args(["s_client", "-brief", "-connect", &format!("127.0.0.1:{port}")]);
    client.args(options.split_whitespace()).stdin(Stdio::null());
    let output = client.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let value = |name| said.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    Some(format!("{} {}", value("Protocol version:")?, value("Ciphersuite:")?))
        .filter(|_| output.status.success())
}

fn attempt(directory: &TempDir, options: &[&str]) -> (i32, String) {
    let output = Websockify::start_with("", |command| {
        command
            .current_dir(directory)
            .args([&free_port().to_string(), "127.0.0.1:9"])
            .args(options);
    })
    .output();
    (output.status, output.err.join("\n"))
}

#[test]
fn u6_the_least_version_is_kept() {
    if !needs(&["openssl"]) {
        return;
    }
    let service = echo_service();
    let (directory, _) = directory();
    for (version, has_old) in
        [("default", true), ("tlsv1_1", true), ("tlsv1_2", true), ("tlsv1_3", false)]
    {
        let option = format!("--ssl-version={version}");
        let (websockify, port) = bridge_in(&directory, &service, &[&option]);
        assert!(negotiated(port, "-tls1_3").is_some(), "{version}");
        assert_eq!(negotiated(port, "-tls1_2").is_some(), has_old, "{version}");
        let said = websockify.logged(&["WARN option '--ssl-version=tlsv1_1' gives TLS 1.2"]);
        assert_eq!(said.len(), usize::from(version == "tlsv1_1"), "{version}");
    }
    let (status, said) = attempt(&directory, &["--ssl-version=sslv3"]);
    assert!(status == 2 && said.contains("'sslv3'") && said.contains("--ssl-version"), "{said}");
}

#[test]
fn u6_the_suites_are_those_of_the_list() {
    if !needs(&["openssl"]) {
        return;
    }
    let service = echo_service();
    let (directory, _) = directory();
    let (websockify, port) =
        bridge_in(&directory, &service, &["--ssl-ciphers=ECDHE+AES128:AES128-SHA:nonsense"]);
    let suite = |name: &str| negotiated(port, &format!("-tls1_2 -cipher {name}"));
    let expected = "TLSv1.2 ECDHE-ECDSA-AES128-GCM-SHA256";
    assert_eq!(suite("ALL").as_deref(), Some(expected));
    assert_eq!(suite("ECDHE-ECDSA-AES256-GCM-SHA384"), None);
    assert!(negotiated(port, "-tls1_3").is_some(), "the list is about TLS 1.2");
    websockify.assert_logged(&["WARN", "--ssl-ciphers", "AES128-SHA, nonsense"], 1);
    assert_eq!(websockify.warnings().iter().filter(|line| line.contains("ciphers")).count(), 1);

    // The list's order counts.
    let list = "--ssl-ciphers=ECDHE+CHACHA20:HIGH:!aNULL:!MD5";
    let (websockify, port) = bridge_in(&directory, &service, &[list]);
    let client = "-tls1_2 -cipher ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305";
    let expected = "TLSv1.2 ECDHE-ECDSA-CHACHA20-POLY1305";
    assert_eq!(negotiated(port, client).as_deref(), Some(expected));
    assert_eq!(websockify.warnings(), Vec::<String>::new());

    let list = "--ssl-ciphers=TLS_AES_128_GCM_SHA256";
    let (_websockify, port) = bridge_in(&directory, &service, &[list]);
    let expected = "TLSv1.3 TLS_AES_128_GCM_SHA256";
    assert_eq!(negotiated(port, "").as_deref(), Some(expected));
    assert_eq!(negotiated(port, "-ciphersuites TLS_AES_256_GCM_SHA384"), None);
}

#[test]
fn u6_a_list_that_leaves_none_ends_the_start() {
    let (directory, _) = directory();
    for list in ["AES128-SHA:RC4", "ALL:!ALL", ":"] {
        let (status, said) = attempt(&directory, &[&format!("--ssl-ciphers={list}")]);
        assert_eq!(status, 1, "{said}");
        assert!(said.contains("no cipher suite is left of") && said.contains(list), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

/// L5: however a `ClientHello` is cut into records.
#[test]
fn l5_u6_a_hello_of_many_records_is_understood() {
    let service = echo_service();
    let (directory, _) = directory();
    let (_websockify, port) = bridge_in(&directory, &service, &[]);
    for caller in [Caller::anonymous(), Caller::old()] {
        let caller = caller.in_records_of(512).offering(40);
        caller.session(port, &[]).unwrap().exchange(b"hello");
    }
}
