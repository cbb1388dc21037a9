//! Which requests the admin address answers, by user, host name, origin and password (O3).

use std::fs::{self, Permissions};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::{Reply, echo_bridge, exchange, head};
use crate::support::{
    Websockify, connect, connect_unix, echo_service, free_port, needs, needs_root, run, wait_until,
};

fn at(path: &Path, method: &str, target: &str) -> Reply {
    exchange(connect_unix(path).unwrap(), &head(method, target, ""))
}

/// Asks with curl as the user nobody; gives whether curl succeeded, and what it printed.
fn as_nobody(path: &Path, target: &str) -> (bool, String) {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--max-time", "20", "--unix-socket"]).arg(path);
    curl.arg(format!("http://localhost{target}"));
    std::os::unix::process::CommandExt::uid(&mut curl, 65534);
    std::os::unix::process::CommandExt::gid(&mut curl, 65534);
    let output = curl.stdin(Stdio::null()).output().unwrap();
    (output.status.success(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn o3_a_socket_is_our_users_and_roots_whatever_its_mode() {
    let (service, directory) = (echo_service(), TempDir::new().unwrap());
    fs::set_permissions(&directory, Permissions::from_mode(0o755)).unwrap();
    let path = directory.path().join("admin");
    let line = format!("{} --admin=unix:admin --web=. {}", free_port(), service.target());
    let start = || {
        let websockify = Websockify::start_with(&line, |command| {
            command.current_dir(&directory);
        });
        websockify.wait_until_open();
        websockify
    };
    let mut websockify = start();
    let metadata = fs::metadata(&path).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o600);
    assert_eq!(at(&path, "GET", "/readyz").status, 200);
    // At a Unix socket any host name will do, as no web page can reach it.
    let other = "GET /livez HTTP/1.1\r\nHost: a.example\r\n\r\n";
    assert_eq!(exchange(connect_unix(&path).unwrap(), other).status, 200);
    if needs_root() && needs(&["curl"]) {
        assert!(!as_nobody(&path, "/livez").0, "by its mode");
        fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
        assert_eq!(as_nobody(&path, "/livez"), (false, String::new()));
        assert_eq!(as_nobody(&path, "/sessions"), (false, String::new()));
        websockify.wait_for_log(&[
            " WARN ",
            "closed a connection to the administration",
            "uid=65534",
        ]);
        assert_eq!(at(&path, "GET", "/livez").status, 200);
    }
    // A websockify that is killed leaves its socket's file, and the next one replaces it.
    websockify.signal(Signal::SIGKILL);
    websockify.wait();
    assert!(path.exists());
    let mut websockify = start();
    assert_eq!(at(&path, "POST", "/drain").status, 202);
    assert_eq!(websockify.wait(), 0);
    assert!(!path.exists(), "removed at the end");
}

/// O3, C4: a socket that is in use, and a file that is not a socket.
#[test]
fn o3_what_is_in_the_way_is_named() {
    let (service, directory) = (echo_service(), TempDir::new().unwrap());
    let target = service.target();
    let path = directory.path().join("admin");
    for (make, expected) in [
        (true, "somebody listens there already"),
        (false, "something else is there, which is no socket"),
    ] {
        let _held = make.then(|| std::os::unix::net::UnixListener::bind(&path).unwrap());
        if !make {
            fs::remove_file(&path).unwrap();
            fs::write(&path, "mine").unwrap();
        }
        let line = format!("{} --admin=unix:{} {target}", free_port(), path.display());
        let output = run(&line);
        assert_eq!((output.status, output.err.len()), (1, 1), "{:?}", output.err);
        let line = &output.err[0];
        assert!(line.starts_with("websockify: cannot open the admin address: "), "{line}");
        assert!(line.ends_with(expected), "{line}");
    }
    assert_eq!(fs::read(&path).unwrap(), b"mine");
}

#[test]
fn o3_no_page_asks_and_no_other_name() {
    let (_service, mut websockify, _, admin) = echo_bridge("");
    let status = |method: &str, path: &str, headers: &str| {
        exchange(connect(admin), &format!("{method} {path} HTTP/1.1\r\n{headers}\r\n")).status
    };
    let here = format!("Host: 127.0.0.1:{admin}\r\n");
    assert_eq!(status("GET", "/sessions", &here), 200);
    for origin in ["https://a.example", "null", &format!("http://127.0.0.1:{admin}")] {
        let headers = format!("{here}Origin: {origin}\r\n");
        for (method, path) in [("GET", "/sessions"), ("POST", "/drain"), ("DELETE", "/sessions/1")]
        {
            assert_eq!(status(method, path, &headers), 403, "{method} {path} of {origin}");
        }
    }
    for host in ["a.example", &format!("a.example:{admin}"), "192.0.2.1", "127.0.0.1.a.example"] {
        for (method, path) in [("GET", "/livez"), ("GET", "/sessions"), ("POST", "/drain")] {
            assert_eq!(status(method, path, &format!("Host: {host}\r\n")), 421, "{host}");
        }
    }
    assert_eq!(status("GET", "/livez", ""), 400);
    assert_eq!(status("GET", "/readyz", &here), 200, "nothing is drained");
    assert_eq!(websockify.stop(), 0);
}

#[test]
fn o3_an_address_of_others_asks_for_a_password() {
    let (service, directory) = (echo_service(), TempDir::new().unwrap());
    let (port, admin) = (free_port(), free_port());
    let target = service.target();
    let output = run(&format!("{port} --admin=0.0.0.0:{admin} {target}"));
    assert_eq!((output.status, output.err.len()), (2, 1));
    assert!(output.err[0].contains("needs '--admin-auth-source-file'"), "{:?}", output.err);
    let password = directory.path().join("password");
    fs::write(&password, "no colon\n").unwrap();
    let line = format!(
        "{port} --admin=0.0.0.0:{admin} --admin-auth-source-file={} {target}",
        password.display()
    );
    let output = run(&line);
    assert_eq!((output.status, output.err.len()), (1, 1), "{:?}", output.err);
    fs::write(&password, "joe:secret\n").unwrap();
    let websockify = Websockify::start(&line);
    websockify.wait_until_open();
    let warned = || websockify.logged(&[" WARN ", "the password of '--admin' is not encrypted"]);
    assert_eq!(warned().len(), 1);
    let status = |path: &str, headers: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a.example\r\n{headers}\r\n");
        exchange(connect(admin), &request)
    };
    let basic = |credentials: &str| {
        let credentials = data_encoding::BASE64.encode(credentials.as_bytes());
        format!("Authorization: Basic {credentials}\r\n")
    };
    for path in ["/livez", "/readyz"] {
        assert_eq!(status(path, "").status, 200, "{path}");
    }
    for path in ["/metrics", "/sessions", "/nothing", "/drain"] {
        let reply = status(path, "");
        assert_eq!(reply.status, 401, "{path}");
        let challenge = reply.header("www-authenticate").unwrap();
        assert!(challenge.starts_with("Basic realm=\"websockify"), "{challenge}");
    }
    assert_eq!(status("/sessions", &basic("joe:secret")).status, 200);
    let began = Instant::now();
    assert_eq!(status("/sessions", &basic("joe:wrong")).status, 401);
    assert!(began.elapsed().as_millis() >= 900, "F11: {:?}", began.elapsed());
    websockify
        .wait_for_log(&[" WARN ", "denied 127.0.0.1 at the admin address: wrong credentials"]);
    fs::write(&password, "joe:new\n").unwrap();
    websockify.signal(Signal::SIGHUP);
    websockify.wait_for_log(&["the password of the admin address is read again"]);
    wait_until("the new password", || status("/sessions", &basic("joe:new")).status == 200);
    fs::write(&password, "").unwrap();
    websockify.signal(Signal::SIGHUP);
    websockify.wait_for_log(&["the password of the admin address stays as it was", "it is empty"]);
    assert_eq!(status("/sessions", &basic("joe:new")).status, 200);
    assert!(websockify.logged(&["secret"]).is_empty() && websockify.logged(&["joe:"]).is_empty());
}
