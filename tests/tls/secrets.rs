//! Passwords that need not stand on the command line, and are not seen there (C9).

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tempfile::TempDir;

use super::{bridge_in, directory, write};
use crate::support::{
    Authority, Caller, UPGRADE, Websockify, echo_service, free_port, needs, request, wait_for,
};

/// `me:one` and `me:two`.
const ONE: &str = "Authorization: Basic bWU6b25l";
const TWO: &str = "Authorization: Basic bWU6dHdv";

/// The status of the answer to a handshake with this header.
fn status(port: u16, header: &str) -> u16 {
    request(port, "/", &[&UPGRADE[..], &[header]].concat()).0.status
}

/// What `ps` shows of a process: its arguments, separated by one space.
fn shown(pid: i32) -> String {
    let output = Command::new("ps").args(["-ww", "-o", "args=", "-p", &pid.to_string()]).output();
    String::from_utf8(output.unwrap().stdout).unwrap().trim_end().to_owned()
}

#[test]
fn c9_what_clients_must_show_may_stand_in_a_file_and_is_read_again() {
    let service = echo_service();
    let directory = TempDir::new().unwrap();
    write(&directory, "password", "me:one\n");
    let options = ["--auth-plugin=BasicHTTPAuth", "--auth-source-file=password", "--web=."];
    let (websockify, port) = bridge_in(&directory, &service, &options);
    assert_eq!((status(port, ONE), status(port, "A: b")), (101, 401));
    assert_eq!(request(port, "/password", &[]).0.status, 404, "it is served");
    write(&directory, "password", "me:two\n");
    assert_eq!(status(port, ONE), 101, "read again although nobody asked");
    websockify.signal(Signal::SIGHUP);
    websockify.wait_for_log(&["what clients must show is read again"]);
    assert_eq!((status(port, TWO), status(port, ONE)), (101, 401));

    // A file that cannot be used changes nothing, and one without end holds up nothing.
    let path = directory.path().join("password");
    let refused = |why: &str| {
        websockify.signal(Signal::SIGHUP);
        let line = websockify.wait_for_log(&["WARN", "must show stays as it was", "password", why]);
        assert!(!line.contains("thr"), "the password: {line}");
        assert_eq!(status(port, TWO), 101, "{why}");
    };
    for (text, why) in [
        ("", "it is empty"),
        ("three", "BasicHTTPAuth expects user:password"),
        ("me:three\nmore", "BasicHTTPAuth expects user:password"),
        (&"three".repeat(14_000), "longer than 64 KiB"),
    ] {
        write(&directory, "password", text);
        refused(why);
    }
    fs::write(&path, b"me:thre\xe9").unwrap();
    refused("it is not text in UTF-8");
    fs::remove_file(&path).unwrap();
    refused("no such file");
    mkfifo(&path, Mode::S_IRWXU).unwrap();
    refused("is not a file");
    fs::remove_file(&path).unwrap();
    symlink("/dev/zero", &path).unwrap();
    refused("is not a file");
}

/// C9: as with `--auth-source-file=<(command)`.
#[test]
fn c9_a_pipe_may_be_named_at_the_start() {
    let service = echo_service();
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("pipe");
    mkfifo(&path, Mode::S_IRWXU).unwrap();
    let writer = std::thread::spawn(move || fs::write(path, "me:one"));
    let options = ["--auth-plugin=BasicHTTPAuth", "--auth-source-file=pipe"];
    let (_websockify, port) = bridge_in(&directory, &service, &options);
    writer.join().unwrap().unwrap();
    assert_eq!(status(port, ONE), 101);
}

/// C9: a list in a file may have one line for each entry.
#[test]
fn c9_lists_of_names_and_origins_stand_in_files() {
    let service = echo_service();
    let (directory, _) = directory();
    write(&directory, "origins", "https://a.example\nhttps://b.example\n");
    let options = ["--auth-plugin=ExpectOrigin", "--auth-source-file=origins"];
    let (_websockify, port) = bridge_in(&directory, &service, &options);
    for (origin, expected) in [("a", 101), ("b", 101), ("c", 403)] {
        assert_eq!(
            status(port, &format!("Origin: https://{origin}.example")),
            expected,
            "{origin}"
        );
    }
    let authority = Authority::new("authority");
    write(&directory, "ca.pem", &authority.pem());
    write(&directory, "names", "Jane\nJoe\n");
    let options = [
        "--verify-client",
        "--cafile=ca.pem",
        "--auth-plugin=ClientCertCNAuth",
        "--auth-source-file=names",
    ];
    let (_websockify, port) = bridge_in(&directory, &service, &options);
    for (name, answer) in [("Joe", None), ("Jane", None), ("Jim", Some("403"))] {
        let caller = Caller::with(&authority.issue(name), &[]);
        assert_eq!(caller.session(port, &[]).err().as_deref(), answer, "{name}");
    }
}

#[test]
fn c9_a_file_that_cannot_be_used_ends_the_start() {
    let directory = TempDir::new().unwrap();
    write(&directory, "origins", "https://a.example b.example");
    for (options, status, part) in [
        ("--auth-plugin=BasicHTTPAuth --auth-source-file=none", 1, "none: no such file"),
        ("--auth-plugin=BasicHTTPAuth --auth-source-file=/dev/null", 1, "/dev/null: it is empty"),
        ("--auth-plugin=BasicHTTPAuth --auth-source-file=.", 1, "is a directory"),
        ("--auth-plugin=ExpectOrigin --auth-source-file=origins", 1, "'b.example'"),
        ("--auth-source-file=x", 2, "'--auth-source-file' needs '--auth-plugin'"),
        ("--auth-plugin=BasicHTTPAuth --auth-source=a:b --auth-source-file=x", 2, "cannot be used"),
    ] {
        let output = Websockify::start_with(options, |command| {
            command.current_dir(&directory).args([&free_port().to_string(), "127.0.0.1:9"]);
        });
        let output = output.output();
        assert_eq!((output.status, output.err.len()), (status, 1), "{options}: {:?}", output.err);
        assert!(output.err[0].contains(part), "{options}: {:?}", output.err);
    }
}

/// C9: however it is typed, in the foreground, as a daemon, and beside a program.
#[test]
fn c9_ps_shows_no_password() {
    if !needs(&["ps"]) {
        return;
    }
    let service = echo_service();
    let directory = TempDir::new().unwrap();
    for (options, expected) in [
        (&["--auth-plugin=BasicHTTPAuth", "--auth-source=me:one"][..], "--auth-source=******"),
        (&["--auth-pl", "BasicHTTPAuth", "--auth-so", "me:one"], "--auth-so ******"),
        (&["--key-password=one"], "--key-password=***"),
        (&["--key-password", "-one"], "--key-password ****"),
        (&["--auth-plugin=BasicHTTPAuth", "--auth-so", "--auth-so:one"], "--auth-so *************"),
        (
            &["--auth-plugin=ExpectOrigin", "--auth-source=me:one", "--auth-source=http://x"],
            "--auth-source=****** --auth-source=http://x",
        ),
        // What is no password is shown.
        (&["--auth-plugin=ExpectOrigin", "--auth-source=http://one"], "--auth-source=http://one"),
    ] {
        let (websockify, port) = bridge_in(&directory, &service, options);
        let ps = shown(websockify.pid());
        assert!(ps.contains(expected), "{ps}");
        assert!(ps.contains(&format!("{port} {}", service.target())), "{ps}");
        assert_eq!(ps.contains("one"), expected.contains("one"), "{ps}");
        if options.concat().ends_with("me:one") {
            assert_eq!((status(port, ONE), status(port, TWO)), (101, 401));
        }
    }
    // Nor does it show the source of other tokens than those that are used.
    fs::write(directory.path().join("tokens"), "").unwrap();
    for (tokens, expected) in [
        ("--token-plugin=TokenFile --token-source=tokens", "--token-source=tokens"),
        ("--token-plugin=TokenFile --token-source=./tokens", "--token-source=./tokens"),
        (
            "--token-plugin=TokenRedis --token-source=h:1:0:one --target-config=tokens",
            "--token-source=********* --target-config=tokens",
        ),
    ] {
        let websockify = Websockify::start_with(&format!("{tokens} {}", free_port()), |command| {
            command.current_dir(&directory);
        });
        websockify.wait_until_open();
        let ps = shown(websockify.pid());
        assert!(ps.contains(expected), "{ps}");
    }
    let port = free_port();
    let redis = "--token-plugin=TokenRedis --token-source=localhost:1:0:one";
    let websockify = Websockify::start(&format!("{redis} {port}"));
    websockify.wait_until_open();
    let ps = shown(websockify.pid());
    assert!(ps.ends_with(&format!("--token-source=***************** {port}")), "{ps}");
    let background = format!("-D --pid-file=pid {redis} {}", free_port());
    let websockify = Websockify::start_with(&background, |command| {
        command.current_dir(&directory);
    });
    let pid = wait_for("its process id", || {
        fs::read_to_string(directory.path().join("pid")).ok()?.trim().parse().ok()
    });
    let ps = shown(pid);
    assert!(ps.contains("--token-source=***") && !ps.contains("one"), "{ps}");
    drop(websockify);
    // The program's own arguments are left as they are.
    let basic = "--auth-plugin=BasicHTTPAuth --auth-source=me:one";
    let websockify = Websockify::start_with(basic, |command| {
        let program = ["--", "sh", "-c", "sleep 1000", "sh", "--auth-source=me:one"];
        command.arg(free_port().to_string()).args(program);
    });
    websockify.wait_for_log(&["program started"]);
    let ps = shown(websockify.pid());
    assert!(ps.contains("--auth-source=****** "), "{ps}");
    assert!(ps.ends_with("-- sh -c sleep 1000 sh --auth-source=me:one"), "{ps}");
}
