//! The files of the certificate and its key (T2).

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::{bridge_in, directory, write};
use crate::support::{
    Authority, Caller, Dates, Output, SERVERS, WEBSOCKIFY, Websockify, connect, echo_service,
    free_port, needs, read_to_end, request, skip_even_in_ci, text_of, wait_until,
};

pub(super) fn openssl(directory: &TempDir, line: &str) {
    let output = Command::new("openssl")
        .current_dir(directory)
        .args(line.split(' '))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

/// What comes of a websockify that is started in this directory with these options, and ends.
fn attempt(directory: &TempDir, options: &str) -> Output {
    let target = "127.0.0.1:9";
    Websockify::start_with(options, |command| {
        command.current_dir(directory).args([&free_port().to_string(), target]);
    })
    .output()
}

fn refused(directory: &TempDir, options: &str, parts: &[&str]) {
    let output = attempt(directory, options);
    let said = output.err.join("\n");
    assert_eq!((output.status, output.err.len()), (1, 1), "{options}: {said}");
    for part in parts {
        assert!(said.contains(part), "{options}: no {part:?} in {said:?}");
    }
    assert!(!said.contains("os error"), "{said}");
}

/// T2: the command of the manual page, with options in place of its questions.
#[test]
fn t2_the_manual_pages_certificate_works() {
    if !needs(&["openssl", "curl"]) {
        return;
    }
    let directory = TempDir::new().unwrap();
    openssl(
        &directory,
        "req -new -x509 -days 365 -nodes -out self.pem -keyout self.pem -subj /CN=localhost",
    );
    let service = echo_service();
    let (_websockify, port) = bridge_in(&directory, &service, &[]);
    let url = format!("https://localhost:{port}/");
    let curl = Command::new("curl")
        .current_dir(&directory)
        .args(["-s", "--cacert", "self.pem", &url])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&curl.stdout), "WebSocket only\n");
}

#[test]
fn t2_keys_in_pkcs8_pkcs1_and_sec1() {
    if !needs(&["openssl"]) {
        return;
    }
    let service = echo_service();
    for (kind, make) in [
        ("PRIVATE KEY", "genpkey -algorithm RSA -out key.pem"),
        ("PRIVATE KEY", "genpkey -algorithm ED25519 -out key.pem"),
        ("RSA PRIVATE KEY", "genrsa -traditional -out key.pem"),
        ("EC PRIVATE KEY", "ecparam -name prime256v1 -genkey -out key.pem"),
        ("EC PRIVATE KEY", "ecparam -name secp521r1 -genkey -out key.pem"),
    ] {
        let directory = TempDir::new().unwrap();
        openssl(&directory, make);
        let key = fs::read_to_string(directory.path().join("key.pem")).unwrap();
        assert!(key.contains(&format!("-----BEGIN {kind}-----")), "{key}");
        openssl(&directory, "req -new -x509 -key key.pem -out cert.pem -subj /CN=localhost");
        let options = ["--cert=cert.pem", "--key=key.pem"];
        let (_websockify, port) = bridge_in(&directory, &service, &options);
        openssl(&directory, &format!("s_client -brief -connect 127.0.0.1:{port}"));
    }
}

#[test]
fn t2_chain_and_key_may_be_one_file_in_any_order() {
    let service = echo_service();
    let intermediate = SERVERS.intermediate("between", Dates::Now);
    let server = intermediate.issue("localhost");
    let (cert, key) = (server.certificate.pem(), server.key.serialize_pem());
    for text in [[&cert, &intermediate.pem(), &key], [&key, &cert, &intermediate.pem()]] {
        let directory = TempDir::new().unwrap();
        write(&directory, "all.pem", &format!("some words\n{}", text.map(String::as_str).concat()));
        let (_websockify, port) = bridge_in(&directory, &service, &["--cert=all.pem"]);
        Caller::anonymous().session(port, &[]).unwrap().exchange(b"hello");
    }
}

#[test]
fn f50_t2_without_the_default_certificate_tls_is_off() {
    let directory = TempDir::new().unwrap();
    let service = echo_service();
    let (mut websockify, port) = bridge_in(&directory, &service, &[]);
    assert_eq!(request(port, "/", &[]).0.status, 405);
    for _ in 0..2 {
        let mut client = connect(port);
        client.write_all(b"\x16\x03\x01\x00\x05hello").unwrap();
        // handshake_failure, fatal.
        assert_eq!(read_to_end(&mut client), b"\x15\x03\x03\x00\x02\x02\x28");
    }
    let error = Caller::anonymous().call(port).err().unwrap();
    assert!(error.contains("HandshakeFailure"), "{error}");
    wait_until("a line for each", || {
        websockify.logged(&["refused a TLS client", "self.pem"]).len() == 3
    });
    // F50: most first runs have no certificate, so this is said once, in plain words.
    assert_eq!(websockify.logged(&["WARN No certificate (self.pem): TLS is off"]).len(), 1);
    assert_eq!(websockify.warnings().len(), 3, "of the clients alone");
    assert_eq!(websockify.stop(), 0);
}

/// T2: what cannot be used ends the start, with one line.
#[test]
fn t2_a_certificate_that_was_asked_for_must_be_usable() {
    let (directory, identity) = directory();
    let (cert, key) = (identity.certificate.pem(), identity.key.serialize_pem());
    let other = SERVERS.issue("other").key.serialize_pem();
    let damaged = cert.replacen('M', "!", 1);
    let cut = cert.split("-----END").next().unwrap().to_owned();
    for (name, text) in [
        ("cert.pem", cert.as_str()),
        ("key.pem", &key),
        ("other.pem", &other),
        ("damaged.pem", &damaged),
        ("cut.pem", &cut),
        ("empty.pem", ""),
        ("text.pem", "hello\n"),
        ("nonsense.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
    ] {
        write(&directory, name, text);
    }
    fs::write(directory.path().join("cert.der"), identity.certificate.der()).unwrap();
    for (options, parts) in [
        ("--ssl-only --cert=none.pem", &["none.pem", "no such file"][..]),
        ("--cert=.", &["certificate .", "directory"]),
        ("--cert=empty.pem", &["empty.pem", "not a PEM file"]),
        ("--cert=text.pem", &["text.pem", "not a PEM file"]),
        ("--cert=cert.der", &["cert.der", "not a PEM file"]),
        ("--cert=damaged.pem", &["damaged.pem", "damaged"]),
        ("--cert=nonsense.pem --key=key.pem", &["nonsense.pem", "damaged"]),
        ("--cert=cut.pem", &["cut.pem", "cut off"]),
        ("--cert=key.pem", &["key.pem", "no certificate"]),
        ("--cert=cert.pem", &["cert.pem", "no private key"]),
        ("--ssl-only --cert=cert.pem --key=none.pem", &["key none.pem", "no such file"]),
        ("--cert=cert.pem --key=cert.pem", &["key cert.pem", "no private key"]),
        ("--cert=cert.pem --key=other.pem", &["other.pem", "does not match", "cert.pem"]),
        ("-D --ssl-only --cert=none.pem", &["none.pem", "no such file"]),
        ("--verify-client --cafile=none.pem", &["CA file none.pem", "no such file"]),
        ("--verify-client --cafile=cert.pem", &["cert.pem", "no self-signed"]),
        ("--verify-client --cafile=key.pem", &["key.pem", "no certificate"]),
    ] {
        refused(&directory, options, parts);
    }
    fs::remove_file(directory.path().join("self.pem")).unwrap();
    for options in ["--ssl-only", "--verify-client", "--ssl-only --key=key.pem"] {
        refused(&directory, options, &["self.pem", "no such file"]);
    }
}

#[test]
fn t2_encrypted_keys_without_a_password_are_named_and_old_certificates_served() {
    if !needs(&["openssl"]) {
        return;
    }
    let directory = TempDir::new().unwrap();
    openssl(
        &directory,
        "req -new -x509 -passout pass:x -out cert.pem -keyout key8.pem -subj /CN=a",
    );
    openssl(&directory, "rsa -in key8.pem -passin pass:x -out plain.pem");
    openssl(&directory, "rsa -in plain.pem -aes128 -passout pass:x -traditional -out key1.pem");
    for key in ["key8.pem", "key1.pem"] {
        let text = fs::read_to_string(directory.path().join(key)).unwrap();
        assert!(text.contains("ENCRYPTED"), "{text}");
        refused(&directory, &format!("--cert=cert.pem --key={key}"), &[key, "encrypted"]);
    }
    // X.509 v1, as many an old recipe makes them.
    make_version1(&directory);
    let service = echo_service();
    let options = ["--cert=version1.pem", "--key=plain.pem"];
    let (_websockify, port) = bridge_in(&directory, &service, &options);
    openssl(&directory, &format!("s_client -brief -CAfile version1.pem -connect 127.0.0.1:{port}"));
}

/// Makes `version1.pem` for the key in `plain.pem`. Since OpenSSL 3.4 version 1 must be asked for; older ones do not know the
/// option.
fn make_version1(directory: &TempDir) {
    let run = |line: &str| {
        let mut command = Command::new("openssl");
        command.current_dir(directory).args(line.split(' ')).stdin(Stdio::null()).output().unwrap()
    };
    let asked = "req -x509 -x509v1 -config /dev/null -new -key plain.pem -subj /CN=localhost -out version1.pem";
    if !run(asked).status.success() {
        openssl(directory, "req -new -key plain.pem -subj /CN=localhost -out request.pem");
        openssl(directory, "x509 -req -in request.pem -signkey plain.pem -out version1.pem");
    }
    let shown = run("x509 -in version1.pem -noout -text");
    assert!(text_of(&shown.stdout).contains("Version: 1 (0x0)"), "{shown:?}");
}

/// T2: keys as OpenSSL encrypts them, now and years ago.
#[test]
fn t2_a_locked_key_is_unlocked_by_its_password() {
    if !needs(&["openssl"]) {
        return;
    }
    let directory = TempDir::new().unwrap();
    openssl(
        &directory,
        "req -new -x509 -nodes -out cert.pem -keyout plain.pem -subj /CN=localhost",
    );
    let service = echo_service();
    write(&directory, "password", "secret-x\nanother line\n");
    for how in [
        "-v2 aes-256-cbc",
        "-v2 aes-128-cbc -v2prf hmacWithSHA1",
        "-v2 des3 -v2prf hmacWithSHA1",
        "-scrypt",
    ] {
        let line = "pkcs8 -topk8 -in plain.pem -passout pass:secret-x -out key.pem";
        openssl(&directory, &format!("{line} {how}"));
        for password in ["--key-password=secret-x", "--key-password-file=password"] {
            let options = ["--cert=cert.pem", "--key=key.pem", password];
            let (_websockify, port) = bridge_in(&directory, &service, &options);
            openssl(
                &directory,
                &format!("s_client -brief -CAfile cert.pem -connect 127.0.0.1:{port}"),
            );
        }
    }
    // The key may be in the same file as the certificate, too.
    let read = |name| fs::read_to_string(directory.path().join(name)).unwrap();
    write(&directory, "all.pem", &(read("cert.pem") + &read("key.pem")));
    let options = ["--cert=all.pem", "--key-password=secret-x"];
    let (_websockify, port) = bridge_in(&directory, &service, &options);
    openssl(&directory, &format!("s_client -brief -CAfile cert.pem -connect 127.0.0.1:{port}"));
    drop(fs::remove_file(directory.path().join("key1.pem")));
    openssl(&directory, "rsa -in plain.pem -aes128 -passout pass:x -traditional -out key1.pem");
    openssl(
        &directory,
        "pkcs8 -topk8 -v1 PBE-SHA1-3DES -in plain.pem -passout pass:x -out old.pem",
    );
    write(&directory, "wrong", "wrong");
    write(&directory, "long", &"x".repeat(70_000));
    let cut = read("key.pem").split("-----END").next().unwrap().to_owned();
    write(&directory, "cut.pem", &cut);
    for (options, parts) in [
        ("--key=key.pem --key-password=wrong", ["key key.pem", "this password does not unlock"]),
        ("--key=key.pem --key-password-file=wrong", ["key key.pem", "does not unlock"]),
        ("--key=key.pem", ["key key.pem", "neither --key-password nor"]),
        ("--key=key.pem --key-password-file=long", ["key password long", "longer than 64 KiB"]),
        ("--key=key1.pem --key-password=x", ["key key1.pem", "openssl pkcs8 -topk8"]),
        ("--key=old.pem --key-password=x", ["key old.pem", "encrypted in a way"]),
        ("--key=cut.pem --key-password=x", ["key cut.pem", "cut off"]),
        (
            "--ssl-only --key=key.pem --key-password-file=none",
            ["key password none", "no such file"],
        ),
    ] {
        refused(&directory, &format!("--cert=cert.pem {options}"), &parts);
    }
}

/// T2: in a container the certificate may be made a moment after websockify is started.
#[test]
fn t2_a_certificate_that_was_named_may_come_later() {
    let directory = TempDir::new().unwrap();
    let service = echo_service();
    let options = ["--cert=certs/live/cert.pem", "--key=certs/live/key.pem"];
    let (websockify, port) = bridge_in(&directory, &service, &options);
    websockify.wait_for_log(&["WARN TLS is off until", "certificate certs/live/cert.pem"]);
    assert_eq!(request(port, "/", &[]).0.status, 405);
    let error = Caller::anonymous().call(port).err().unwrap();
    assert!(error.contains("HandshakeFailure"), "{error}");
    let identity = SERVERS.issue("localhost");
    fs::create_dir_all(directory.path().join("certs/live")).unwrap();
    write(&directory, "certs/live/cert.pem", &identity.certificate.pem());
    write(&directory, "certs/live/key.pem", &identity.key.serialize_pem());
    websockify.wait_for_log(&["INFO TLS is on"]);
    Caller::anonymous().session(port, &[]).unwrap().exchange(b"hello");
    websockify.assert_logged(&["TLS is off until"], 1);
}

#[test]
fn t2_a_file_that_may_not_be_read_is_named() {
    let (directory, _) = directory();
    // Only root may read this file, because root may read every file.
    let file = directory.path().join("self.pem");
    fs::set_permissions(file, fs::Permissions::from_mode(0o000)).unwrap();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(WEBSOCKIFY);
    if nix::unistd::geteuid().is_root() {
        command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", WEBSOCKIFY]);
        if !nobody_may_run_it() {
            skip_even_in_ci("root may read everything");
            return;
        }
    }
    command.args([&free_port().to_string(), "127.0.0.1:9", "--cert=self.pem"]);
    let output = Websockify::launch(command.current_dir(&directory)).output();
    assert_eq!(output.status, 1, "{:?}", output.err);
    assert!(output.err[0].contains("certificate self.pem: permission denied"), "{:?}", output.err);
}

/// Whether the tests can become the user `nobody`, and that user can run the binary, whose directory may be closed to others.
fn nobody_may_run_it() -> bool {
    let mut test = Command::new("setpriv");
    test.args(["--reuid=65534", "--regid=65534", "--clear-groups", WEBSOCKIFY, "--version"]);
    test.output().is_ok_and(|output| output.status.success())
}

#[test]
fn t2_an_expired_certificate_is_served_with_a_warning() {
    let service = echo_service();
    let directory = TempDir::new().unwrap();
    for (dates, words) in [(Dates::Past, "has expired"), (Dates::Future, "is not valid before")] {
        let server = SERVERS.issue_for("localhost", dates, &[]);
        write(&directory, "self.pem", &server.pem());
        let (websockify, port) = bridge_in(&directory, &service, &[]);
        websockify.assert_logged(&["WARN", "self.pem", words], 1);
        let error = Caller::anonymous().call(port).err().unwrap();
        assert!(error.contains("certificate"), "the client decides: {error}");
    }
}

/// F61: the file was meant to be used, and is not.
#[test]
fn f61_a_default_certificate_that_cannot_be_used_is_warned_of() {
    let (directory, identity) = directory();
    let service = echo_service();
    for (text, part) in
        [("hello\n", "not a PEM file"), (&identity.certificate.pem(), "no private key in it")]
    {
        write(&directory, "self.pem", text);
        let (mut websockify, port) = bridge_in(&directory, &service, &[]);
        websockify.wait_for_log(&["WARN TLS is off: certificate self.pem", part]);
        websockify.assert_logged(&["TLS is off"], 1);
        assert_eq!(request(port, "/", &[]).0.status, 405);
        websockify.signal(nix::sys::signal::Signal::SIGHUP);
        websockify.wait_for_log(&["WARN TLS stays off: certificate self.pem", part]);
        assert_eq!(websockify.stop(), 0);
    }
}

/// F29: editors of other systems write such a mark; where files were joined, it is in the middle, too.
#[test]
fn f29_a_byte_order_mark_is_no_part_of_a_pem_file() {
    let service = echo_service();
    let (authority, intermediate) =
        (Authority::new("clients"), SERVERS.intermediate("i", Dates::Now));
    let server = intermediate.issue("localhost");
    let (cert, key) = (server.certificate.pem(), server.key.serialize_pem());
    let directory = TempDir::new().unwrap();
    let marked = |text: &str| format!("\u{feff}{text}");
    write(&directory, "cert.pem", &(marked(&cert) + &marked(&intermediate.pem())));
    write(&directory, "key.pem", &marked(&key));
    write(&directory, "self.pem", &(marked(&cert) + &marked(&intermediate.pem()) + &marked(&key)));
    write(&directory, "ca.pem", &marked(&authority.pem()));
    let joe = Caller::with(&authority.issue("Joe"), &[]);
    for options in [
        &["--verify-client", "--cafile=ca.pem"][..],
        &["--cert=cert.pem", "--key=key.pem", "--verify-client", "--cafile=ca.pem"],
    ] {
        let (_websockify, port) = bridge_in(&directory, &service, options);
        joe.session(port, &[]).unwrap().exchange(b"hello");
    }
}

#[test]
fn f30_an_rsa_key_that_is_too_short_is_said_to_be() {
    if !needs(&["openssl"]) {
        return;
    }
    let directory = TempDir::new().unwrap();
    openssl(&directory, "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:1024 -out key8.pem");
    openssl(&directory, "rsa -in key8.pem -traditional -out key1.pem");
    openssl(&directory, "req -new -x509 -key key8.pem -out cert.pem -subj /CN=localhost");
    for key in ["key8.pem", "key1.pem"] {
        let parts = [key, "too short", "1024 bits", "2048"];
        refused(&directory, &format!("--cert=cert.pem --key={key}"), &parts);
    }
    let read = |name| fs::read_to_string(directory.path().join(name)).unwrap();
    write(&directory, "all.pem", &(read("cert.pem") + &read("key8.pem")));
    refused(&directory, "--cert=all.pem", &["all.pem", "too short", "1024 bits"]);
}
