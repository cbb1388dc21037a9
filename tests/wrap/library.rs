//! Where `rebind.so` comes from (R5).

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use super::Notes;
use crate::support::{Actor, Client, WEBSOCKIFY, Websockify, copy_program, free_port};

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

    // One that others can write is as good as theirs.
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
