//! Places where other users can replace files: the log, the pid file, recordings and `rebind.so` are not put there (F12).

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Read;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::{lines_with, wait_for_line};
use crate::support::{
    Actor, Client, WEBSOCKIFY, Websockify, echo_service, free_port, needs_root, text_of, wait_until,
};

/// Another user.
const NOBODY: u32 = 65534;

fn set_mode(path: impl AsRef<Path>, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn directory(parent: &Path, name: &str, mode: u32, owner: u32) -> PathBuf {
    let path = parent.join(name);
    fs::create_dir(&path).unwrap();
    chown(&path, Some(owner), None).unwrap();
    set_mode(&path, mode);
    path
}

fn link(target: &Path, link: PathBuf, owner: u32) -> PathBuf {
    symlink(target, &link).unwrap();
    lchown(&link, Some(owner), None).unwrap();
    link
}

fn file(path: PathBuf, mode: u32, owner: u32) -> PathBuf {
    fs::write(&path, "").unwrap();
    chown(&path, Some(owner), None).unwrap();
    set_mode(&path, mode);
    path
}

/// Checks that a start with this option is refused, that the message names `culprit`, and that the program has not run.
fn refused(here: &Path, option: &str, culprit: &Path) {
    let port = free_port();
    let output = Websockify::start_with(&format!("{option} {port} -- touch ran"), |command| {
        command.current_dir(here);
    });
    let output = output.output();
    let said = output.err.join("\n");
    assert_eq!((output.status, output.err.len()), (1, 1), "{option}: {said}");
    assert!(said.contains(culprit.to_str().unwrap()), "{option}: {said}");
    assert!(!here.join("ran").exists(), "{option}");
}

/// Every way in which another user could replace the file.
#[test]
fn f12_no_file_is_written_where_others_can_exchange_it() {
    if !needs_root() {
        return;
    }
    let here = TempDir::new().unwrap();
    let here = here.path();
    let ours = directory(here, "ours", 0o755, 0);
    let sticky = directory(here, "sticky", 0o1777, 0);
    let group = directory(here, "group", 0o775, 0);
    chown(&group, None, Some(NOBODY)).unwrap();
    let open = directory(here, "open", 0o777, 0);
    let theirs = directory(here, "theirs", 0o755, NOBODY);
    let below = directory(&theirs, "below", 0o755, 0);
    let theirs_sticky = directory(here, "theirs-sticky", 0o1777, NOBODY);
    let target = ours.join("target");
    fs::write(&target, "").unwrap();
    let linked = sticky.join("linked");
    fs::hard_link(&target, &linked).unwrap();
    let way = link(&ours, sticky.join("way"), NOBODY);
    let entries = [
        (link(&target, sticky.join("theirs"), NOBODY), &sticky),
        (link(&target, sticky.join("ours"), 0), &sticky),
        (link(&ours.join("dangling"), group.join("link"), NOBODY), &group),
        (file(sticky.join("file"), 0o666, NOBODY), &sticky),
        (file(ours.join("file"), 0o666, NOBODY), &ours),
        (linked, &sticky),
        (way.join("new"), &way),
        (open.join("new"), &open),
        (theirs.join("new"), &theirs),
        (below.join("new"), &theirs),
        (theirs_sticky.join("new"), &theirs_sticky),
    ];
    for (path, culprit) in entries {
        for option in ["--log-file", "--pid-file"] {
            // If the path is a link, the message names the link, and not its directory.
            let culprit = if path.is_symlink() { &path } else { culprit };
            refused(here, &format!("{option}={}", path.display()), culprit);
        }
    }
    for directory in [&way, &open, &theirs, &below, &theirs_sticky] {
        let culprit = if *directory == below { &theirs } else { directory };
        refused(here, &format!("--record={}/session", directory.display()), culprit);
    }
    assert_eq!(fs::read_to_string(&target).unwrap(), "");
    assert!(!ours.join("dangling").exists() && !ours.join("new").exists());
}

/// Usual places are accepted.
#[test]
fn f12_files_of_ours_are_written_wherever_nobody_can_exchange_them() {
    let here = TempDir::new().unwrap();
    let at = |name: &str| here.path().join(name);
    for (name, mode) in [("own", 0o700), ("sticky", 0o1777), ("group", 0o775)] {
        fs::create_dir(at(name)).unwrap();
        set_mode(at(name), mode);
    }
    symlink("own", at("link")).unwrap();
    symlink("own/elsewhere", at("log")).unwrap();
    symlink(at("own"), at("sticky/way")).unwrap();
    for (log, found) in [
        ("own/log", "own/log"),
        ("sticky/log", "sticky/log"),
        ("group/log", "group/log"),
        ("link/other", "own/other"),
        ("log", "own/elsewhere"),
        ("sticky/way/third", "own/third"),
        ("own/../own/./fourth", "own/fourth"),
    ] {
        // Once as a new file, and once as one that exists.
        for number in 1..=2 {
            let line = format!("--log-file={log} --pid-file={log}.pid {} a.invalid:1", free_port());
            let mut websockify = Websockify::start_with(&line, |command| {
                command.current_dir(&here);
            });
            wait_until("a log", || lines_with(&at(found), &["listening on"]).len() == number);
            assert_eq!(websockify.stop(), 0);
        }
    }
}

/// A file that the caller has opened is accepted too.
#[test]
fn f12_the_log_may_be_what_the_caller_has_opened() {
    let here = TempDir::new().unwrap();
    for log in ["/dev/stdout", "/proc/self/fd/1", "/dev/fd/1"] {
        let out = here.path().join("out");
        let line = format!("exec {WEBSOCKIFY} --log-file={log} {} a.invalid:1 >>out", free_port());
        let mut shell = Command::new("sh");
        let mut websockify = Websockify::launch(shell.args(["-c", &line]).current_dir(&here));
        wait_for_line(&out, &["listening on"]);
        assert_eq!(websockify.stop(), 0);
        fs::remove_file(out).unwrap();
    }
    let (service, port) = (echo_service(), free_port());
    let line = format!("--log-file=/dev/null {port} {}", service.target());
    let mut websockify = Websockify::start(&line);
    let mut client = Client::connect_once_open(port);
    client.send("hello");
    assert_eq!(client.read(5), b"hello");
    assert_eq!(websockify.stop(), 0);
}

/// The place is checked again when the log is opened again.
#[test]
fn f12_a_log_is_not_opened_again_through_a_link_of_somebody_else() {
    if !needs_root() {
        return;
    }
    let here = TempDir::new().unwrap();
    let sticky = directory(here.path(), "sticky", 0o1777, 0);
    let (log, old, target) = (sticky.join("log"), sticky.join("old"), here.path().join("target"));
    let line = format!("--log-file={} {} a.invalid:1", log.display(), free_port());
    let mut websockify = Websockify::start(&line);
    wait_for_line(&log, &["listening on"]);
    fs::rename(&log, &old).unwrap();
    link(&target, log, NOBODY);
    websockify.signal(Signal::SIGHUP);
    wait_for_line(&old, &["WARN", "cannot open log file", "link"]);
    assert_eq!(websockify.stop(), 0);
    assert!(!target.exists());
}

/// Programs load `rebind.so`, so nobody else may be able to replace it.
#[test]
fn f12_the_library_is_not_unpacked_where_others_can_exchange_it() {
    if !needs_root() {
        return;
    }
    let here = TempDir::new().unwrap();
    set_mode(&here, 0o755);
    let group = directory(here.path(), "group", 0o775, 0);
    chown(&group, None, Some(NOBODY)).unwrap();
    let theirs = directory(here.path(), "theirs", 0o755, NOBODY);
    let below = directory(&theirs, "below", 0o1777, 0);
    let linked = link(&below, here.path().join("linked"), 0);
    for temporary in [&group, &theirs, &below, &linked] {
        let port = free_port();
        let line = format!("{port} -- {Actor} bind {port} listen serve");
        let mut websockify = Websockify::start_with(&line, |command| {
            command.env("TMPDIR", temporary);
        });
        Client::connect_once_open(port).read_line();
        let library = PathBuf::from(websockify.leader().variable("LD_PRELOAD"));
        assert!(!library.starts_with(here.path()), "{}", library.display());
        websockify.wait_for_log(&["WARN", "not unpacked into", temporary.to_str().unwrap()]);
        assert_eq!(websockify.stop(), 0);
        assert!(!library.exists());
    }
}

/// A fifo that a process reads is accepted as a log.
#[test]
fn f12_a_fifo_of_ours_is_a_log() {
    let here = TempDir::new().unwrap();
    let fifo = here.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut reader: File =
        OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(&fifo).unwrap();
    let port = free_port();
    let mut command = Command::new(WEBSOCKIFY);
    command.arg(format!("--log-file={}", fifo.display())).args([&port.to_string(), "a.invalid:1"]);
    let mut websockify = Websockify::launch(command.stderr(Stdio::null()));
    drop(Client::connect_once_open(port));
    let mut read = Vec::new();
    wait_until("a line in the fifo", || {
        // It fails where there is nothing to read at the moment.
        let _ = reader.read_to_end(&mut read);
        text_of(&read).contains("listening on")
    });
    assert_eq!(websockify.stop(), 0);
}
