//! Which client certificates are accepted (T3).

use std::process::Command;

use rcgen::ExtendedKeyUsagePurpose as Purpose;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use tempfile::TempDir;
use tokio_rustls::rustls::HandshakeKind;
use tokio_rustls::rustls::pki_types::CertificateDer;

use super::{bridge_in, directory, write};
use crate::support::{
    Authority, Caller, Dates, Identity, Service, Websockify, echo_service, needs, request,
};

/// A websockify that asks for certificates of the authorities in `file`.
fn asking(directory: &TempDir, service: &Service, file: &[String]) -> (Websockify, u16) {
    write(directory, "ca.pem", &file.concat());
    bridge_in(directory, service, &["--verify-client", "--cafile=ca.pem"])
}

/// Checks that a caller gets no session and that the log says why.
fn refused(websockify: &Websockify, port: u16, caller: &Caller, reason: &str) {
    let before = websockify.logged(&["refused", reason]).len();
    let error = caller.session(port, &[]).err().unwrap_or_else(|| panic!("{reason}: let in"));
    assert!(error.contains("alert"), "{reason}: {error}");
    crate::support::wait_until(reason, || websockify.logged(&["refused", reason]).len() > before);
}

#[test]
fn t3_a_certificate_of_the_authority_is_required() {
    let service = echo_service();
    let (directory, _) = directory();
    let authority = Authority::new("authority");
    let (websockify, port) = asking(&directory, &service, &[authority.pem()]);
    let joe = authority.issue("Joe");
    Caller::with(&joe, &[]).session(port, &[]).unwrap().exchange(b"hello");
    Caller::old_with(&joe).session(port, &[]).unwrap().exchange(b"hello");
    let line = websockify.wait_for_log(&["session started"]);
    assert_eq!(crate::support::field(&line, "name"), "Joe");

    assert_eq!(request(port, "/", &[]).0.status, 400, "no plain clients");
    refused(&websockify, port, &Caller::anonymous(), "without a certificate");
    refused(&websockify, port, &Caller::old(), "without a certificate");
    let stranger = Authority::new("stranger").issue("Joe");
    refused(&websockify, port, &Caller::with(&stranger, &[]), "no authority that is trusted");
    // The same name is not the same authority.
    let forged = Authority::new("authority").issue("Joe");
    refused(&websockify, port, &Caller::with(&forged, &[]), "certificate");
    let own = Identity::self_signed("Joe");
    refused(&websockify, port, &Caller::with(&own, &[]), "certificate");
}

#[test]
fn t3_a_certificate_that_was_changed_is_refused() {
    let service = echo_service();
    let (directory, _) = directory();
    let authority = Authority::new("authority");
    let (websockify, port) = asking(&directory, &service, &[authority.pem()]);
    let joe = authority.issue("Joe");
    let mut changed = joe.certificate.der().to_vec();
    let at = changed.windows(3).position(|name| name == b"Joe").unwrap();
    changed[at] = b'M';
    let caller = Caller::showing(vec![CertificateDer::from(changed)], &joe.key);
    refused(&websockify, port, &caller, "signature");
    Caller::with(&joe, &[]).session(port, &[]).unwrap().exchange(b"hello");
}

/// T3: a resumed TLS session would outlive the certificate that it began with.
#[test]
fn t3_no_session_is_resumed_where_certificates_count() {
    let service = echo_service();
    let (directory, _) = directory();
    let authority = Authority::new("authority");
    let joe = authority.issue("Joe");
    let second = |caller: &Caller, port| {
        caller.session(port, &[]).unwrap().exchange(b"hello");
        caller.session(port, &[]).unwrap().0.conn.handshake_kind().unwrap()
    };
    let (_asking, port) = asking(&directory, &service, &[authority.pem()]);
    assert_eq!(second(&Caller::with(&joe, &[]), port), HandshakeKind::Full);
    assert_eq!(second(&Caller::old_with(&joe), port), HandshakeKind::Full);
    let (_not_asking, port) = bridge_in(&directory, &service, &[]);
    assert_eq!(second(&Caller::anonymous(), port), HandshakeKind::Resumed);
    assert_eq!(second(&Caller::old(), port), HandshakeKind::Resumed);
}

#[test]
fn t3_dates_count_all_along_the_chain() {
    let service = echo_service();
    let (directory, _) = directory();
    let (root, old_root, early_root) = (
        Authority::new("root"),
        Authority::dated("old root", Dates::Past),
        Authority::dated("early root", Dates::Future),
    );
    let file = [root.pem(), old_root.pem(), early_root.pem()];
    let (websockify, port) = asking(&directory, &service, &file);
    websockify.assert_logged(&["WARN", "old root", "has expired"], 1);
    Caller::with(&root.issue("Joe"), &[]).session(port, &[]).unwrap().exchange(b"hello");
    for (dates, words) in [(Dates::Past, "has expired"), (Dates::Future, "not valid yet")] {
        let own = root.issue_for("Joe", dates, &[]);
        refused(&websockify, port, &Caller::with(&own, &[]), words);
        let between = root.intermediate("between", dates);
        let joe = between.issue("Joe");
        refused(&websockify, port, &Caller::with(&joe, &[&between]), words);
    }
    for root in [&old_root, &early_root] {
        let words = "authority is not valid now";
        refused(&websockify, port, &Caller::with(&root.issue("Joe"), &[]), words);
        let between = root.intermediate("between", Dates::Now);
        let joe = between.issue("Joe");
        refused(&websockify, port, &Caller::with(&joe, &[&between]), words);
    }
}

#[test]
fn t3_intermediates_come_from_the_client_or_the_file_and_are_no_anchors() {
    let service = echo_service();
    let (directory, _) = directory();
    let root = Authority::new("root");
    let first = root.intermediate("first", Dates::Now);
    let second = first.intermediate("second", Dates::Now);
    let joe = second.issue("Joe");
    {
        let (websockify, port) = asking(&directory, &service, &[root.pem()]);
        let caller = Caller::with(&joe, &[&second, &first]);
        caller.session(port, &[]).unwrap().exchange(b"hello");
        refused(&websockify, port, &Caller::with(&joe, &[&second]), "no authority");
    }
    {
        let (_websockify, port) =
            asking(&directory, &service, &[second.pem(), root.pem(), first.pem()]);
        Caller::with(&joe, &[]).session(port, &[]).unwrap().exchange(b"hello");
        Caller::with(&joe, &[&second]).session(port, &[]).unwrap().exchange(b"hello");
    }
    // Trust begins at self-signed certificates only, as in the Python websockify.
    let other = Authority::new("other");
    let file = [other.pem(), second.pem(), first.pem()];
    let (websockify, port) = asking(&directory, &service, &file);
    refused(&websockify, port, &Caller::with(&joe, &[&second, &first]), "no authority");
}

/// T3: as in the Python websockify, with a certificate that `openssl req -x509` makes.
#[test]
fn t3_a_self_signed_certificate_in_the_file_is_good_itself() {
    let service = echo_service();
    let (directory, _) = directory();
    let joe = Identity::self_signed("Joe");
    let (_websockify, port) = asking(&directory, &service, &[joe.certificate.pem()]);
    Caller::with(&joe, &[]).session(port, &[]).unwrap().exchange(b"hello");
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

/// A certificate for this name, signed with that key as if its owner were an authority.
fn signed(name: &str, issuer: &CertificateParams, issuer_key: &KeyPair) -> Identity {
    let key = KeyPair::generate().unwrap();
    let issuer = Issuer::from_params(issuer, issuer_key);
    Identity { certificate: named(name).signed_by(&key, &issuer).unwrap(), key }
}

/// Jane's self-signed certificate, and one for Joe that Jane has signed.
fn jane_and_joe(change: impl FnOnce(&mut CertificateParams)) -> (Identity, Identity) {
    let mut params = named("jane");
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    let joe = signed("Joe", &params, &key);
    (Identity { certificate: params.self_signed(&key).unwrap(), key }, joe)
}

/// T3: otherwise the client could issue certificates for any name. The certificate is alone in the file, or beside an
/// authority.
#[test]
fn t3_a_clients_own_certificate_in_the_file_makes_it_no_authority() {
    let service = echo_service();
    let (directory, _) = directory();
    let root = Authority::new("root");
    let changes: [fn(&mut CertificateParams); 3] = [
        |params| params.is_ca = IsCa::ExplicitNoCa,
        |params| params.is_ca = IsCa::NoCa,
        |params| {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        },
    ];
    for change in changes {
        let (jane, joe) = jane_and_joe(change);
        for others in [vec![], vec![root.pem()]] {
            let file = [vec![jane.certificate.pem()], others.clone()].concat();
            let (websockify, port) = asking(&directory, &service, &file);
            Caller::with(&jane, &[]).session(port, &[]).unwrap().exchange(b"hello");
            Caller::old_with(&jane).session(port, &[]).unwrap().exchange(b"hello");
            refused(&websockify, port, &Caller::with(&joe, &[]), "no authority");
            let chain = [&joe, &jane].map(|identity| identity.certificate.der().clone());
            let along = Caller::showing(chain.to_vec(), &joe.key);
            refused(&websockify, port, &along, "certificate");
            if !others.is_empty() {
                let joe = root.issue("Joe");
                Caller::with(&joe, &[]).session(port, &[]).unwrap().exchange(b"hello");
            }
        }
    }
    // If Jane may sign, Joe's certificate is accepted: nothing else was the reason for the refusal.
    let (jane, joe) =
        jane_and_joe(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    let (_websockify, port) = asking(&directory, &service, &[jane.certificate.pem()]);
    Caller::with(&joe, &[]).session(port, &[]).unwrap().exchange(b"hello");
}

#[test]
fn t3_a_servers_certificate_is_no_clients() {
    let service = echo_service();
    let (directory, _) = directory();
    let root = Authority::new("root");
    let (websockify, port) = asking(&directory, &service, &[root.pem()]);
    let server = root.issue_for("Joe", Dates::Now, &[Purpose::ServerAuth]);
    refused(&websockify, port, &Caller::with(&server, &[]), "not for TLS clients");
    let client = root.issue_for("Joe", Dates::Now, &[Purpose::ClientAuth]);
    Caller::with(&client, &[]).session(port, &[]).unwrap().exchange(b"hello");
}

#[test]
fn t3_the_systems_authorities_are_the_default() {
    let service = echo_service();
    let (directory, _) = directory();
    let root = Authority::new("root");
    write(&directory, "system.pem", &root.pem());
    let port = crate::support::free_port();
    let start = |store: &str| {
        Websockify::start_with("--verify-client", |command| {
            command.args([&port.to_string(), &service.target()]).current_dir(&directory);
            // Where OpenSSL, and programs that follow it, look for the system's store.
            command
                .env("SSL_CERT_FILE", directory.path().join(store))
                .env("SSL_CERT_DIR", "/nowhere");
        })
    };
    let mut websockify = start("system.pem");
    websockify.wait_until_open();
    Caller::with(&root.issue("Joe"), &[]).session(port, &[]).unwrap().exchange(b"hello");
    let stranger = Authority::new("stranger").issue("Joe");
    refused(&websockify, port, &Caller::with(&stranger, &[]), "no authority");
    assert_eq!(websockify.stop(), 0);
    let output = start("none.pem").output();
    assert_eq!(output.status, 1);
    assert!(output.err[0].contains("the system's certificate authorities"), "{:?}", output.err);
}

#[test]
fn t3_an_x509_v1_certificate_gets_a_precise_message() {
    if !needs(&["openssl"]) {
        return;
    }
    let service = echo_service();
    let (directory, _) = directory();
    let root = Authority::new("root");
    let joe = root.issue("Joe");
    write(&directory, "joe.key", &joe.key.serialize_pem());
    let openssl = |line: &str| {
        Command::new("openssl").current_dir(&directory).args(line.split(' ')).output().unwrap()
    };
    // Since OpenSSL 3.4 version 1 must be asked for; older ones do not know the option.
    let asked = "req -x509 -x509v1 -config /dev/null -new -key joe.key -subj /CN=Joe -out joe.crt";
    if !openssl(asked).status.success() {
        for line in [
            "req -new -key joe.key -subj /CN=Joe -out joe.csr",
            "x509 -req -in joe.csr -signkey joe.key -out joe.crt",
        ] {
            let output = openssl(line);
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
    }
    let (websockify, port) = asking(&directory, &service, &[root.pem()]);
    let address = format!("127.0.0.1:{port}");
    // The certificate is refused, so the status of this command does not matter.
    let _ = Command::new("openssl")
        .current_dir(&directory)
        .args(["s_client", "-connect", &address, "-cert", "joe.crt", "-key", "joe.key"])
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    websockify.wait_for_log(&["refused a client's certificate", "X.509 v1"]);
    drop(websockify);

    // As an authority such a certificate is accepted: authorities were made so once.
    let file = std::fs::read_to_string(directory.path().join("joe.crt")).unwrap();
    let (_websockify, port) = asking(&directory, &service, &[file]);
    let jane = signed("jane", &named("Joe"), &joe.key);
    Caller::with(&jane, &[]).session(port, &[]).unwrap().exchange(b"hello");
}

/// T3, L5: a long chain is accepted, and a request may come with the last message of the handshake.
#[test]
fn l5_t3_a_request_may_come_with_the_end_of_the_handshake_behind_a_long_chain() {
    let service = echo_service();
    let (directory, _) = directory();
    let root = Authority::new("root");
    let (_websockify, port) = asking(&directory, &service, &[root.pem()]);
    let between: Vec<_> =
        (0..24).map(|n| root.intermediate(&format!("no. {n}"), Dates::Now)).collect();
    let joe = between[0].issue("Joe");
    let chain = Caller::with(&joe, &between.iter().collect::<Vec<_>>());
    for caller in [Caller::with(&joe, &[&between[0]]), chain] {
        for length in [200, 6_500, 16_000] {
            let head = head_of(length);
            assert_eq!(caller.call_with(port, head.as_bytes()).status(), Ok(405), "{length}");
        }
    }
}

/// A request of so many bytes.
fn head_of(length: usize) -> String {
    let begin = "GET / HTTP/1.1\r\nHost: localhost\r\nX: ";
    format!("{begin}{}\r\n\r\n", "a".repeat(length - begin.len() - 4))
}

/// T1, L5: the same without client certificates.
#[test]
fn l5_t1_a_request_may_come_with_the_end_of_the_handshake() {
    let service = echo_service();
    let (directory, _) = directory();
    let (_websockify, port) = bridge_in(&directory, &service, &[]);
    for caller in [Caller::anonymous(), Caller::old()] {
        for length in [200, 6_500, 16_000] {
            let head = head_of(length);
            assert_eq!(caller.call_with(port, head.as_bytes()).status(), Ok(405), "{length}");
        }
    }
}
