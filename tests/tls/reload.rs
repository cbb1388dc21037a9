//! Certificates that are replaced while sessions go on (T5).

use std::fs;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::{bridge_in, directory, write};
use crate::support::{Authority, Caller, SERVERS, echo_service, wait_until};

#[test]
fn t5_a_new_certificate_is_for_the_clients_to_come() {
    let service = echo_service();
    let (directory, old) = directory();
    let (websockify, port) = bridge_in(&directory, &service, &[]);
    let mut early = Caller::anonymous().session(port, &[]).unwrap();
    assert_eq!(early.certificate(), *old.certificate.der());
    let new = SERVERS.issue("localhost");
    write(&directory, "self.pem", &new.pem());
    websockify.signal(Signal::SIGHUP);
    websockify.wait_for_log(&["certificates are reloaded"]);
    let mut late = Caller::anonymous().session(port, &[]).unwrap();
    assert_eq!(late.certificate(), *new.certificate.der());
    early.exchange(b"still here");
    late.exchange(b"hello");
}

#[test]
fn t5_files_that_cannot_be_used_change_nothing() {
    let service = echo_service();
    let (directory, old) = directory();
    let (websockify, port) = bridge_in(&directory, &service, &["--cert=self.pem"]);
    let mut early = Caller::anonymous().session(port, &[]).unwrap();
    let other = SERVERS.issue("localhost");
    let mismatch = old.certificate.pem() + &other.key.serialize_pem();
    for (text, part) in [("", "not a PEM file"), (&mismatch, "does not match")] {
        write(&directory, "self.pem", text);
        websockify.signal(Signal::SIGHUP);
        websockify.wait_for_log(&["the old certificates stay in use", "self.pem", part]);
        let mut late = Caller::anonymous().session(port, &[]).unwrap();
        assert_eq!(late.certificate(), *old.certificate.der());
        late.exchange(b"hello");
    }
    fs::remove_file(directory.path().join("self.pem")).unwrap();
    websockify.signal(Signal::SIGHUP);
    websockify.wait_for_log(&["the old certificates stay in use", "no such file"]);
    early.exchange(b"still here");
}

#[test]
fn t5_the_authorities_are_reloaded_too() {
    let service = echo_service();
    let (directory, _) = directory();
    let (first, second) = (Authority::new("first"), Authority::new("second"));
    write(&directory, "ca.pem", &first.pem());
    let (websockify, port) =
        bridge_in(&directory, &service, &["--verify-client", "--cafile=ca.pem"]);
    let (joe, jane) =
        (Caller::with(&first.issue("Joe"), &[]), Caller::with(&second.issue("Jane"), &[]));
    let mut early = joe.session(port, &[]).unwrap();
    assert!(jane.session(port, &[]).is_err());
    write(&directory, "ca.pem", &second.pem());
    websockify.signal(Signal::SIGHUP);
    websockify.wait_for_log(&["certificates are reloaded"]);
    assert!(joe.session(port, &[]).is_err());
    jane.session(port, &[]).unwrap().exchange(b"hello");
    early.exchange(b"still here");
}

/// T5: a certificate that comes later turns TLS on.
#[test]
fn t5_the_default_certificate_may_come_later() {
    let service = echo_service();
    let directory = TempDir::new().unwrap();
    let (websockify, port) = bridge_in(&directory, &service, &[]);
    assert!(Caller::anonymous().call(port).is_err());
    write(&directory, "self.pem", &SERVERS.issue("localhost").pem());
    websockify.signal(Signal::SIGHUP);
    wait_until("TLS", || Caller::anonymous().call(port).is_ok());
    Caller::anonymous().session(port, &[]).unwrap().exchange(b"hello");
}
