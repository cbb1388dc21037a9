//! Where `rebind.so` comes from (R5).

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::Notes;
use crate::support::{
    Actor, Client, Footprint, WEBSOCKIFY, Websockify, copy_program, free_port, wait_for_within,
    wait_until,
};

/// The library as the build has made it.
const REBIND: &str = concat!(env!("OUT_DIR"), "/rebind.so");

/// Wraps a program with the websockify at `executable`, and gives what was preloaded.
fn preloaded_by(executable: &Path, options: &[&str]) -> (Websockify, String) {
    let port = free_port();
    let mut command = Command::new(executable);
    command.arg(port.to_string()).args(options).args(["--".as_ref(), Actor.as_ref()]);
    command.args(["bind", &port.to_string(), "listen", "serve"]);
    let websockify = Websockify::launch(&mut command);
    Client::connect_once_open(port).read_line();
    websockify.assert_alone_on(port);
    let preloaded = websockify.leader().variable("LD_PRELOAD");
    (websockify, preloaded)
}

/// A copy of the binary, as a package would install it.
fn installed(notes: &Notes) -> std::path::PathBuf {
    let directory = notes.path().join("bin");
    fs::create_dir(&directory).unwrap();
    let executable = directory.join("websockify");
    copy_program(WEBSOCKIFY, &executable);
    executable
}

#[test]
fn r5_one_copied_binary_can_wrap() {
    let notes = Notes::new();
    let (mut websockify, preloaded) = preloaded_by(&installed(&notes), &[]);
    assert!(preloaded.ends_with("/rebind.so"), "{preloaded}");
    assert_eq!(fs::read(&preloaded).unwrap(), fs::read(REBIND).unwrap());
    assert_eq!(websockify.stop(), 0);
    assert!(!Path::new(&preloaded).exists(), "unpacked, and removed again");
}

#[test]
fn r5_a_packaged_library_is_preferred_and_stays() {
    let notes = Notes::new();
    let executable = installed(&notes);
    let directory = notes.path().join("lib/websockify");
    fs::create_dir_all(&directory).unwrap();
    let library = directory.join("rebind.so");
    fs::copy(REBIND, &library).unwrap();
    for path in [&directory, &library] {
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }
    let (mut websockify, preloaded) = preloaded_by(&executable, &[]);
    let preloaded = fs::canonicalize(preloaded).unwrap();
    assert_eq!(preloaded, fs::canonicalize(&library).unwrap());
    assert_eq!(websockify.stop(), 0);
    assert!(library.exists());

    // A library that others can write is not used.
    fs::set_permissions(&library, Permissions::from_mode(0o777)).unwrap();
    let (websockify, preloaded) = preloaded_by(&executable, &[]);
    assert_ne!(Path::new(&preloaded), library);
    websockify.wait_for_log(&["WARN", "rebind.so", "built-in"]);
}

#[test]
fn r5_a_library_that_is_given_overrides() {
    let notes = Notes::new();
    let library = notes.note("other.so");
    fs::copy(REBIND, &library).unwrap();
    let (mut websockify, preloaded) =
        preloaded_by(WEBSOCKIFY.as_ref(), &[&format!("--rebind-lib={library}")]);
    assert_eq!(preloaded, library);
    assert_eq!(websockify.stop(), 0);
    assert!(Path::new(&library).exists());
}

/// A websockify that starts its program again, and its port. The library is unpacked into `notes`.
fn respawning(notes: &Notes, options: &str) -> (Websockify, u16) {
    let port = free_port();
    let line = format!(
        "{port} --wrap-mode=respawn --rebind-engine=preload {options} -- {Actor} bind {port} listen serve"
    );
    let websockify = Websockify::start_with(&line, |command| {
        command.env("TMPDIR", notes.path());
    });
    Client::connect_once_open(port).read_line();
    (websockify, port)
}

/// Ends the nth instance, and waits for the next one to be reached through websockify alone.
fn respawn(websockify: &Websockify, port: u16, nth: usize) -> PathBuf {
    websockify.nth_leader(nth).signal(Signal::SIGKILL);
    let next = websockify.nth_leader(nth + 1);
    Client::connect(port).read_line();
    websockify.assert_alone_on(port);
    let library = PathBuf::from(next.variable("LD_PRELOAD"));
    assert_eq!(fs::read(&library).unwrap(), fs::read(REBIND).unwrap());
    library
}

/// L6, F5: rebind.so deleted: it is unpacked again before the next start, with one warning, also where it was changed or
/// made unreadable; and removed at the end.
#[test]
fn f5_a_library_that_was_removed_or_changed_is_unpacked_again_with_one_warning() {
    let notes = Notes::new();
    let (mut websockify, port) = respawning(&notes, "");
    let library = PathBuf::from(websockify.leader().variable("LD_PRELOAD"));
    let directory = library.parent().unwrap();
    let write = |text: &[u8]| {
        fs::remove_file(&library).unwrap();
        fs::write(&library, text).unwrap();
    };
    let mut changed = fs::read(REBIND).unwrap();
    *changed.last_mut().unwrap() ^= 1;
    let deeds: [&dyn Fn(); 6] = [
        &|| fs::remove_dir_all(directory).unwrap(),
        &|| fs::remove_file(&library).unwrap(),
        &|| write(b""),
        &|| write(&changed),
        &|| fs::set_permissions(&library, Permissions::from_mode(0o600)).unwrap(),
        &|| fs::set_permissions(directory, Permissions::from_mode(0o700)).unwrap(),
    ];
    let before = Footprint::at_rest(&websockify);
    for (nth, deed) in deeds.iter().enumerate() {
        deed();
        assert_eq!(respawn(&websockify, port, nth + 1), library, "where a daemon would look");
        websockify.assert_logged(&["WARN", "rebind library"], nth + 1);
    }
    // Now somebody else has a directory of this name.
    fs::remove_dir_all(directory).unwrap();
    fs::create_dir(directory).unwrap();
    fs::write(directory.join("theirs"), "").unwrap();
    let other = respawn(&websockify, port, deeds.len() + 1);
    assert_ne!(other, library);
    assert_eq!(respawn(&websockify, port, deeds.len() + 2), other);
    assert_eq!(websockify.warnings().len(), deeds.len() + 1);
    before.wait_until_back(&websockify);
    assert_eq!(websockify.stop(), 0);
    assert!(!other.exists());
    assert_eq!(fs::read_dir(directory).unwrap().count(), 1, "theirs is left");
}

/// F5: a library that was given by `--rebind-lib` is not unpacked again. It is named while it is missing, and used when it
/// is there again.
#[test]
fn f5_a_given_library_that_has_gone_is_named_at_each_start() {
    let notes = Notes::new();
    let library = notes.note("other.so");
    fs::copy(REBIND, &library).unwrap();
    let (mut websockify, port) = respawning(&notes, &format!("--rebind-lib={library}"));
    fs::remove_file(&library).unwrap();
    websockify.leader().signal(Signal::SIGKILL);
    let parts = ["ERROR", "cannot use rebind library", &library, "no such file"];
    wait_until("two starts that failed", || websockify.logged(&parts).len() >= 2);
    websockify.assert_logged(&["program started"], 1);
    fs::copy(REBIND, &library).unwrap();
    websockify.nth_leader(2);
    Client::connect(port).read_line();
    websockify.assert_alone_on(port);
    assert_eq!(websockify.stop(), 0);
}

/// Directories that look like those that an instance leaves, and are none.
fn decoys(notes: &Notes) -> Vec<PathBuf> {
    let decoy = |name: &str, file: &str, text: &[u8]| {
        let directory = notes.path().join(name);
        fs::create_dir(&directory).unwrap();
        fs::set_permissions(&directory, Permissions::from_mode(0o755)).unwrap();
        if !file.is_empty() {
            fs::write(directory.join(file), text).unwrap();
            let mode = Permissions::from_mode(0o444);
            fs::set_permissions(directory.join(file), mode).unwrap();
        }
        directory
    };
    let library = fs::read(REBIND).unwrap();
    let link = notes.path().join("websockify-abcdef");
    let elsewhere = decoy("elsewhere", "rebind.so", &library);
    std::os::unix::fs::symlink(&elsewhere, &link).unwrap();
    let more = decoy("websockify-zyxwvu", "rebind.so", &library);
    fs::write(more.join("more"), "").unwrap();
    let private = decoy("websockify-qwerty", "rebind.so", &library);
    fs::set_permissions(&private, Permissions::from_mode(0o700)).unwrap();
    let named = |name: &str| decoy(name, "rebind.so", &library);
    vec![
        elsewhere,
        link,
        more,
        private,
        decoy("websockify-000000", "", b""),
        decoy("websockify-000001", "rebind.so", b"something else"),
        decoy("websockify-000002", "other.so", &library),
        named("websockify-seven77"),
        named("websockify-rec-1x"),
        named("mywebsockify-000003"),
    ]
}

/// F20: an instance that is killed leaves its directory, which the next one removes.
#[test]
fn f20_the_next_start_removes_what_dead_instances_have_left_and_nothing_else() {
    let notes = Notes::new();
    let directory_of = |websockify: &Websockify| {
        let library = PathBuf::from(websockify.leader().variable("LD_PRELOAD"));
        library.parent().unwrap().to_owned()
    };
    let decoys = decoys(&notes);
    let (mut alive, _) = respawning(&notes, "");
    let (mut dead, _) = respawning(&notes, "");
    let left = directory_of(&dead);
    dead.signal(Signal::SIGKILL);
    dead.wait();
    wait_until("the end of its program", || dead.remnants().is_empty());
    assert!(left.exists());
    let (mut next, _) = respawning(&notes, "");
    wait_until("the end of what was left", || !left.exists());
    for kept in decoys.into_iter().chain([directory_of(&alive), directory_of(&next)]) {
        assert!(kept.exists(), "{}", kept.display());
    }
    assert_eq!((alive.stop(), next.stop()), (0, 0));
}

/// F20: a daemon that was left running goes on using the library, and so may programs that it starts.
#[test]
fn f20_the_library_of_a_daemon_that_was_left_stays_as_long_as_it() {
    let notes = Notes::new();
    let port = free_port();
    let line = format!(
        "--wrap-mode=ignore --rebind-engine=preload {port} -- {Actor} bind {port} listen fork-exit 0 serve"
    );
    let mut first = Websockify::start_with(&line, |command| {
        command.env("TMPDIR", notes.path());
    });
    Client::connect_once_open(port).read_line();
    first.wait_for_log(&["daemonized"]);
    assert_eq!(first.stop(), 0);
    let [daemon] = &first.remnants()[..] else { panic!("no daemon was left") };
    let library = PathBuf::from(daemon.variable("LD_PRELOAD"));
    let left = library.parent().unwrap().to_str().unwrap();
    let (mut second, _) = respawning(&notes, "-v");
    second.wait_for_log(&[left, "left alone"]);
    assert!(library.exists());
    daemon.signal(Signal::SIGKILL);
    wait_until("the daemon's end", || !daemon.is_alive());
    // A program that no ordinary user may look into, such as Debian's xterm, counts as one that may use the library, for as
    // long as some other test runs it.
    wait_for_within(Duration::from_secs(60), "the end of what was left", || {
        let (mut third, _) = respawning(&notes, "");
        let until = Instant::now() + Duration::from_secs(1);
        while library.exists() && Instant::now() < until {
            sleep(Duration::from_millis(20));
        }
        assert_eq!(third.stop(), 0);
        (!library.exists()).then_some(())
    });
    assert_eq!(second.stop(), 0);
}
