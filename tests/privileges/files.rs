//! Files under `--user`: what root opened, what the user can do with it, and what the log says where the user cannot.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};

use nix::sys::signal::Signal;

use super::{NOBODY, Place, assert_stops};
use crate::support::{
    Caller, Client, SERVERS, Websockify, echo_service, free_port, needs_root, run, wait_until,
};

/// What the log says at the start of what the user cannot do.
fn losses(websockify: &Websockify) -> Vec<String> {
    websockify.logged(&[" WARN user nobody "])
}

/// T5: a key that root alone may read serves; that it cannot be renewed is said at the start, and when it is tried.
#[test]
fn w16_a_key_that_root_alone_may_read_serves_and_is_not_renewed() {
    if !needs_root() {
        return;
    }
    let (service, port, place) = (echo_service(), free_port(), Place::new());
    let identity = SERVERS.issue("localhost");
    let (cert, key) = (place.named("cert.pem"), place.named("key.pem"));
    fs::write(&cert, identity.certificate.pem()).unwrap();
    fs::write(&key, identity.key.serialize_pem()).unwrap();
    fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    let line = format!("--user=nobody --cert={cert} --key={key} {port} {}", service.target());
    let websockify = Websockify::start(&line);
    websockify.wait_until_open();
    Caller::anonymous().session(port, &[]).unwrap().exchange(b"hello");
    let said = losses(&websockify);
    assert_eq!(said.len(), 1, "{said:?}");
    for part in [&key, "permission denied", "certificates cannot be renewed before the next start"]
    {
        assert!(said[0].contains(part), "{said:?}");
    }
    websockify.signal(Signal::SIGHUP);
    websockify.wait_for_log(&["WARN the old certificates stay in use", &key, "permission denied"]);
    Caller::anonymous().session(port, &[]).unwrap().exchange(b"hello");
    assert_stops(websockify);
}

/// T5: a key that the user can read is renewed as without `--user`.
#[test]
fn w16_a_key_that_the_user_may_read_is_renewed() {
    if !needs_root() {
        return;
    }
    let (service, port, place) = (echo_service(), free_port(), Place::new());
    let pem = place.named("self.pem");
    fs::write(&pem, SERVERS.issue("localhost").pem()).unwrap();
    chown(&pem, Some(0), Some(NOBODY)).unwrap();
    fs::set_permissions(&pem, Permissions::from_mode(0o640)).unwrap();
    let line = format!("--user=nobody --cert={pem} {port} {}", service.target());
    let websockify = Websockify::start(&line);
    websockify.wait_until_open();
    let new = SERVERS.issue("localhost");
    fs::write(&pem, new.pem()).unwrap();
    websockify.wait_for_log(&["certificates are reloaded: the files have changed"]);
    let client = Caller::anonymous().session(port, &[]).unwrap();
    assert_eq!(client.certificate(), *new.certificate.der());
    assert_eq!(losses(&websockify), Vec::<String>::new());
    assert_stops(websockify);
}

/// In a directory of the user everything works as without `--user`: the log is opened again, and the pid file and the
/// sockets are removed at the end.
#[test]
fn w16_in_the_users_directory_files_are_his() {
    if !needs_root() {
        return;
    }
    let (service, place) = (echo_service(), Place::new());
    let run = place.directory_of(NOBODY, "run", 0o755);
    let at = |name: &str| run.join(name);
    let websockify = Websockify::start_with("", |command| {
        command.current_dir(&run).args(["--user=nobody", "--pid-file=pid", "--log-file=log"]);
        command.args(["--unix-listen=socket", "--admin=unix:admin", "--record=record"]);
        command.arg(service.target());
    });
    websockify.wait_until_open();
    let mut client = Client::at(&at("socket")).unwrap();
    client.send("hello");
    assert_eq!(client.read(5), b"hello");
    wait_until("a recording", || at("record.1").exists());
    for name in ["pid", "log", "socket", "admin", "record.1"] {
        let metadata = fs::metadata(at(name)).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (NOBODY, NOBODY), "{name}");
    }
    let mode = fs::metadata(at("socket")).unwrap().mode();
    assert_eq!(mode & 0o7777, 0o600);
    fs::rename(at("log"), at("log.1")).unwrap();
    websockify.signal(Signal::SIGHUP);
    wait_until("a new log", || at("log").exists());
    assert_eq!(losses(&websockify), Vec::<String>::new());
    client.close();
    assert_stops(websockify);
    for name in ["pid", "socket", "admin"] {
        assert!(!at(name).exists(), "{name}");
    }
}

/// In a directory of root, the log says once of each thing that the user cannot do it, and what is done instead.
#[test]
fn w16_in_roots_directory_what_cannot_be_done_is_said() {
    if !needs_root() {
        return;
    }
    let (service, place) = (echo_service(), Place::new());
    let password = place.named("password");
    fs::write(&password, "a:b").unwrap();
    fs::set_permissions(&password, Permissions::from_mode(0o600)).unwrap();
    let start = || {
        let websockify = Websockify::start_with("", |command| {
            command.current_dir(place.0.path()).args(["--user=nobody", "--pid-file=pid"]);
            command.args(["--unix-listen=socket", "--log-file=log"]);
            command.args(["--auth-plugin=BasicHTTPAuth", "--auth-source-file=password"]);
            command.arg(service.target());
        });
        websockify.wait_until_open();
        websockify
    };
    let websockify = start();
    let said = losses(&websockify);
    assert_eq!(said.len(), 4, "{said:?}");
    for parts in [
        ["goes on with the log file as it is", "cannot open log file", "permission denied"],
        ["cannot read password", "permission denied", "cannot be read again on SIGHUP"],
        ["cannot remove pid", "at the end", "it is emptied"],
        ["cannot remove", "socket at the end", "the next start takes its place"],
    ] {
        let has_all = |line: &&String| parts.iter().all(|part| line.contains(part));
        assert_eq!(said.iter().filter(has_all).count(), 1, "{parts:?} in {said:?}");
    }
    let socket = fs::metadata(place.at("socket")).unwrap();
    assert_eq!((socket.uid(), socket.mode() & 0o7777), (NOBODY, 0o600));
    assert_eq!(fs::metadata(place.at("log")).unwrap().uid(), 0);
    websockify.signal(Signal::SIGHUP);
    websockify.wait_for_log(&["cannot open log file"]);
    assert_stops(websockify);
    assert_eq!(fs::read_to_string(place.at("pid")).unwrap(), "");
    assert!(place.at("socket").exists());
    // The socket that is left does not keep the next websockify from its place.
    assert_stops(start());
}

/// Directories that are used as the user are checked as the user; if the user cannot use one, nothing is started.
#[test]
fn w16_directories_are_looked_at_as_the_user() {
    if !needs_root() {
        return;
    }
    let (service, place) = (echo_service(), Place::new());
    let private = place.directory_of(0, "private", 0o700);
    let private = private.display();
    // The user may list this directory, and open nothing in it.
    let locked = place.directory_of(0, "locked", 0o744);
    let locked = locked.display();
    for (option, deed) in [
        (format!("--web={private}/pages"), "cannot serve files from"),
        (format!("--web={locked}"), "cannot serve files from"),
        (format!("--record={private}/record"), "cannot record to"),
        (format!("--record={}", place.named("record")), "cannot record to"),
    ] {
        fs::create_dir_all(place.at("private/pages")).unwrap();
        let output = run(&format!("--user=nobody {option} {} {}", free_port(), service.target()));
        assert_eq!(output.status, 1, "{option}: {output:?}");
        assert_eq!(output.err.len(), 1, "{option}: {output:?}");
        assert!(output.err[0].contains(deed), "{output:?}");
        assert!(output.err[0].ends_with("permission denied"), "{output:?}");
    }
}

/// K3: tokens are looked up as the user, who may list this directory, and open nothing in it.
#[test]
fn w16_a_directory_of_tokens_that_cannot_be_entered_is_named() {
    if !needs_root() {
        return;
    }
    let (service, place) = (echo_service(), Place::new());
    let tokens = place.directory_of(0, "tokens", 0o744);
    fs::write(tokens.join("one"), service.target()).unwrap();
    let tokens = tokens.display();
    let line = format!(
        "--user=nobody --token-plugin=TokenFileName --token-source={tokens} {}",
        free_port()
    );
    let websockify = Websockify::start(&line);
    websockify.wait_until_open();
    let said = losses(&websockify);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains(&format!("cannot read {tokens}: permission denied")), "{said:?}");
    assert_stops(websockify);
}

/// Root makes a socket where the user may not, and follows no symbolic link of the user, who could choose the place by it.
#[test]
fn w16_root_follows_no_link_of_the_users_to_a_sockets_place() {
    if !needs_root() {
        return;
    }
    let (service, place) = (echo_service(), Place::new());
    let (home, private) =
        (place.directory_of(NOBODY, "home", 0o755), place.directory_of(0, "private", 0o755));
    symlink(&private, home.join("run")).unwrap();
    let socket = home.join("run/socket");
    let (socket, service) = (socket.display(), service.target());
    for options in [
        format!("--unix-listen={socket} {service}"),
        format!("--admin=unix:{socket} {} {service}", free_port()),
    ] {
        let output = run(&format!("--user=nobody {options}"));
        assert_eq!(output.status, 1, "{options}: {output:?}");
        assert_eq!(output.err.len(), 1, "{options}: {output:?}");
        assert!(output.err[0].ends_with("home belongs to user 65534"), "{output:?}");
        assert!(fs::read_dir(&private).unwrap().next().is_none(), "{options}");
    }
}

#[test]
fn w16_why_tokens_are_not_read_again_is_said_once() {
    if !needs_root() {
        return;
    }
    let (service, place) = (echo_service(), Place::new());
    let (tokens, source) = (place.named("tokens"), place.named("source"));
    fs::write(&tokens, format!("one: {}\n", service.target())).unwrap();
    fs::write(&source, &tokens).unwrap();
    let websockify = Websockify::start(&format!(
        "--user=nobody --token-plugin=TokenFile --token-source-file={source} {}",
        free_port()
    ));
    websockify.wait_until_open();
    fs::set_permissions(&tokens, Permissions::from_mode(0o600)).unwrap();
    websockify.signal(Signal::SIGHUP);
    let said = websockify.wait_for_log(&["WARN the old tokens stay in use"]);
    assert!(
        said.ends_with(&format!("in use: cannot read tokens from {tokens}: permission denied")),
        "{said}"
    );
    assert_stops(websockify);
}
