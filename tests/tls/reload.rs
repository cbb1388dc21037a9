//! Certificates that are replaced while sessions go on (T5).

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tempfile::TempDir;

use super::files::openssl;
use super::{bridge_in, directory, write};
use crate::support::{
    Authority, Caller, Identity, SERVERS, Websockify, compile_library, echo_service, free_port,
    needs, wait_until,
};

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

/// C9, T5: the password of a new key is in the same file as that of the old one was.
#[test]
fn c9_the_password_of_the_key_is_read_again_with_a_new_key() {
    if !needs(&["openssl"]) {
        return;
    }
    let service = echo_service();
    let directory = TempDir::new().unwrap();
    let put = |password: &str| {
        let new = SERVERS.issue("localhost");
        write(&directory, "plain.pem", &new.key.serialize_pem());
        openssl(
            &directory,
            &format!(
                "pkcs8 -topk8 -in plain.pem -v2 aes-256-cbc -passout pass:{password} -out key.pem"
            ),
        );
        write(&directory, "cert.pem", &new.certificate.pem());
        write(&directory, "password", password);
        new
    };
    put("first");
    let options = ["--cert=cert.pem", "--key=key.pem", "--key-password-file=password"];
    let (websockify, port) = bridge_in(&directory, &service, &options);
    let mut early = Caller::anonymous().session(port, &[]).unwrap();
    let new = put("second");
    websockify.signal(Signal::SIGHUP);
    wait_until("the new certificate", || {
        let client = Caller::anonymous().session(port, &[]).unwrap();
        client.certificate() == *new.certificate.der()
    });
    early.exchange(b"still here");
}

/// T5: a file without end, and a pipe that nobody writes into, hold up nothing.
#[test]
fn t5_a_pipe_and_a_file_without_end_are_left() {
    let service = echo_service();
    let (directory, old) = directory();
    let (websockify, port) = bridge_in(&directory, &service, &["--cert=self.pem"]);
    let path = directory.path().join("self.pem");
    fs::remove_file(&path).unwrap();
    mkfifo(&path, Mode::S_IRWXU).unwrap();
    websockify.signal(Signal::SIGHUP);
    websockify.wait_for_log(&["the old certificates stay in use", "self.pem", "is not a file"]);
    for (target, reason) in [("/dev/zero", "is not a file"), ("long", "is longer than 1024 KiB")] {
        File::create(directory.path().join("long")).unwrap().set_len(1 << 40).unwrap();
        symlink(target, directory.path().join("link")).unwrap();
        fs::rename(directory.path().join("link"), &path).unwrap();
        websockify.signal(Signal::SIGHUP);
        websockify.wait_for_log(&["the old certificates stay in use", reason]);
    }
    let session = || Caller::anonymous().session(port, &[]).unwrap();
    assert_eq!(session().certificate(), *old.certificate.der());
    let new = SERVERS.issue("localhost");
    rename_over(directory.path(), "self.pem", &new.pem());
    wait_until("the new one", || session().certificate() == *new.certificate.der());
}

/// T5: as with `--cert <(command)`: a pipe can be read only once, and is.
#[test]
fn t5_a_pipe_may_be_named_at_the_start() {
    let service = echo_service();
    let (directory, _) = directory();
    let identity = SERVERS.issue("localhost");
    let (path, text) = (directory.path().join("pipe"), identity.pem());
    mkfifo(&path, Mode::S_IRWXU).unwrap();
    let writer = std::thread::spawn(move || fs::write(path, text));
    let (websockify, port) = bridge_in(&directory, &service, &["--cert=pipe"]);
    writer.join().unwrap().unwrap();
    websockify.signal(Signal::SIGHUP);
    websockify.wait_for_log(&["the old certificates stay in use", "pipe", "is not a file"]);
    let client = Caller::anonymous().session(port, &[]).unwrap();
    assert_eq!(client.certificate(), *identity.certificate.der());
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
    let (_websockify, port) = bridge_in(&directory, &service, &[]);
    assert!(Caller::anonymous().call(port).is_err());
    write(&directory, "self.pem", &SERVERS.issue("localhost").pem());
    wait_until("TLS", || Caller::anonymous().call(port).is_ok());
    Caller::anonymous().session(port, &[]).unwrap().exchange(b"hello");
}

/// Waits until clients are shown this certificate, without a signal and without a client's handshake.
fn is_taken_up(websockify: &Websockify, port: u16, identity: &Identity, times: usize) {
    wait_until("the files are read again", || {
        websockify.logged(&["certificates are reloaded: the files have changed"]).len() == times
    });
    let client = Caller::anonymous().session(port, &[]).unwrap();
    assert_eq!(client.certificate(), *identity.certificate.der());
}

fn write_over(directory: &Path, name: &str, text: &str) {
    write(directory, name, text);
}

/// Puts a file there as certbot and editors do.
fn rename_over(directory: &Path, name: &str, text: &str) {
    write(directory, "fresh", text);
    fs::rename(directory.join("fresh"), directory.join(name)).unwrap();
}

#[test]
fn t5_files_that_change_are_taken_up_without_a_signal() {
    let service = echo_service();
    let (directory, _) = directory();
    let (websockify, port) = bridge_in(&directory, &service, &[]);
    let mut early = Caller::anonymous().session(port, &[]).unwrap();
    let mut times = 0;
    for put in [write_over, rename_over] {
        let new = SERVERS.issue("localhost");
        put(directory.path(), "self.pem", &new.pem());
        times += 1;
        is_taken_up(&websockify, port, &new, times);
    }
    // A file that cannot be used changes nothing, and the log says so once.
    write(&directory, "self.pem", "half");
    websockify.wait_for_log(&["WARN the old certificates stay in use", "self.pem"]);
    let new = SERVERS.issue("localhost");
    fs::remove_file(directory.path().join("self.pem")).unwrap();
    websockify.wait_for_log(&["WARN the old certificates stay in use", "no such file"]);
    Caller::anonymous().session(port, &[]).unwrap().exchange(b"hello");
    write(&directory, "self.pem", &new.pem());
    is_taken_up(&websockify, port, &new, times + 1);
    assert_eq!(websockify.warnings().len(), 2, "each once");
    early.exchange(b"still here");
}

/// T5: as Kubernetes mounts a secret: a link to a link to a directory that is another one each time.
#[test]
fn t5_a_link_that_points_elsewhere_is_followed() {
    let service = echo_service();
    let directory = tempfile::tempdir().unwrap();
    let mount = directory.path().join("certs");
    let issue = |name: &str| {
        let identity = SERVERS.issue("localhost");
        fs::create_dir_all(mount.join(name)).unwrap();
        write(mount.join(name), "tls.crt", &identity.certificate.pem());
        write(mount.join(name), "tls.key", &identity.key.serialize_pem());
        symlink(name, mount.join("..data_tmp")).unwrap();
        fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
        identity
    };
    issue("..1");
    for name in ["tls.crt", "tls.key"] {
        symlink(Path::new("..data").join(name), mount.join(name)).unwrap();
    }
    let options = ["--cert=certs/tls.crt", "--key=certs/tls.key"];
    let (websockify, port) = bridge_in(&directory, &service, &options);
    for times in 1..=3 {
        let new = issue(&format!("..{}", times + 1));
        fs::remove_dir_all(mount.join(format!("..{times}"))).unwrap();
        is_taken_up(&websockify, port, &new, times);
    }
    assert_eq!(websockify.warnings(), Vec::<String>::new());
}

/// T5: the authorities, and a key that comes after its certificate.
#[test]
fn t5_authorities_and_keys_are_taken_up_without_a_signal() {
    let service = echo_service();
    let (directory, _) = directory();
    let (first, second) = (Authority::new("first"), Authority::new("second"));
    let server = SERVERS.issue("localhost");
    write(&directory, "ca.pem", &first.pem());
    write(&directory, "cert.pem", &server.certificate.pem());
    write(&directory, "key.pem", &server.key.serialize_pem());
    let options = ["--cert=cert.pem", "--key=key.pem", "--verify-client", "--cafile=ca.pem"];
    let (_websockify, port) = bridge_in(&directory, &service, &options);
    let jane = Caller::with(&second.issue("Jane"), &[]);
    assert!(jane.session(port, &[]).is_err());
    write(&directory, "ca.pem", &second.pem());
    wait_until("the new authority", || jane.session(port, &[]).is_ok());
    let new = SERVERS.issue("localhost");
    write(&directory, "cert.pem", &new.certificate.pem());
    write(&directory, "key.pem", &new.key.serialize_pem());
    wait_until("the new certificate", || {
        jane.session(port, &[]).is_ok_and(|client| client.certificate() == *new.certificate.der())
    });
}

/// T5: inotify does not report every change, such as a directory that is exchanged further up. So the files are also
/// looked at when a client comes.
#[test]
fn t5_a_change_that_inotify_does_not_see_is_found_at_a_handshake() {
    let service = echo_service();
    let directory = tempfile::tempdir().unwrap();
    let issue = |name: &str| {
        let identity = SERVERS.issue("localhost");
        fs::create_dir_all(directory.path().join(name).join("live")).unwrap();
        write(directory.path().join(name), "live/all.pem", &identity.pem());
        identity
    };
    issue("certs");
    let (_websockify, port) = bridge_in(&directory, &service, &["--cert=certs/live/all.pem"]);
    let new = issue("new");
    let exchange = |from, to| {
        fs::rename(directory.path().join(from), directory.path().join(to)).unwrap();
    };
    exchange("certs", "old");
    exchange("new", "certs");
    wait_until("the new certificate", || {
        let client = Caller::anonymous().session(port, &[]).unwrap();
        client.certificate() == *new.certificate.der()
    });
}

/// T5, D3: a file server that does not answer any more holds up neither our end nor the log, which is opened again each time.
#[test]
fn t5_d3_a_certificate_whose_file_server_is_gone_holds_up_nothing() {
    let (directory, _) = directory();
    let at = |name: &str| directory.path().join(name);
    let (service, port) = (echo_service(), free_port());
    let mut websockify = Websockify::start_with("--cert=self.pem --log-file=log", |command| {
        command.current_dir(&directory).args([port.to_string(), service.target()]);
        command.env("LD_PRELOAD", compile_library("silent")).env("SILENT", at("silent"));
    });
    websockify.wait_until_open();
    fs::write(at("silent"), "").unwrap();
    for nth in 1..=3 {
        fs::rename(at("log"), at(&format!("log.{nth}"))).unwrap();
        websockify.signal(Signal::SIGHUP);
        wait_until("a new log", || at("log").exists());
    }
    Caller::anonymous().session(port, &[]).unwrap().exchange(b"hello");
    assert_eq!(websockify.stop(), 0);
}
