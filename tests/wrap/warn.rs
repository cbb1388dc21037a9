//! Programs that `rebind.so` cannot move, and those that say nothing (W12).

use std::fs::{self, Permissions};
use std::net::Ipv4Addr;
use std::os::unix::fs::{PermissionsExt, chown};

use super::Notes;
use crate::support::{
    Actor, Websockify, copy_program, free_port, is_refused, listening, needs_root, run,
    static_actor, wait_for_within, write_script,
};

/// One warning, which contains all of `parts`, and the program did not get the public port.
fn assert_warned(program: &str, parts: &[&str]) {
    let port = free_port();
    let output = run(&format!("{port} -- {program} bind {port} listen serve"));
    let warnings: Vec<_> = output.err.iter().filter(|line| line.contains("WARN")).collect();
    assert_eq!(warnings.len(), 1, "{program}: {:?}", output.err);
    for part in parts {
        assert!(warnings[0].contains(part), "{program}: no {part:?} in {}", warnings[0]);
    }
    assert!(
        output.err.iter().any(|line| line == "bind: Address already in use"),
        "{:?}",
        output.err
    );
    assert_eq!(output.status, 99, "what the actor ends with then");
    assert_eq!(listening(port), []);
}

#[test]
fn w12_a_static_program_is_warned_of_and_kept_off_the_public_port() {
    assert_warned(static_actor(), &["statically linked", "rebind.so", static_actor()]);
}

#[test]
fn w12_a_script_that_a_static_program_runs_is_warned_of() {
    let notes = Notes::new();
    let (port, script) = (free_port(), notes.note("script"));
    write_script(&script, &format!("#!{} exit 4\n", static_actor()));
    let output = run(&format!("{port} -- {script}"));
    // The kernel gives the interpreter "exit 4" as one word, which is no verb.
    assert_eq!(output.status, 98);
    let warned = |line: &String| line.contains("statically linked") && line.contains(&script);
    assert_eq!(output.err.iter().filter(|line| warned(line)).count(), 1, "{:?}", output.err);
}

/// W12: the dynamic linker ignores `LD_PRELOAD` where the program's user is not its caller's.
#[test]
fn w12_a_setuid_program_is_warned_of_and_kept_off_the_public_port() {
    if needs_root() {
        let notes = Notes::new();
        let program = notes.note("program");
        copy_program(Actor, &program);
        chown(&program, Some(65534), Some(65534)).unwrap();
        fs::set_permissions(&program, Permissions::from_mode(0o4755)).unwrap();
        assert_warned(&program, &["setuid", &program]);
    }
}

#[test]
fn w12_a_warning_is_given_once_not_at_each_respawn() {
    let port = free_port();
    let websockify =
        Websockify::start(&format!("{port} --wrap-mode=respawn -- {} exit 1", static_actor()));
    websockify.nth_start(3);
    assert_eq!(websockify.logged(&["statically linked"]).len(), 1);
}

#[test]
fn w12_a_program_that_does_not_listen_is_warned_of_after_ten_seconds() {
    let port = free_port();
    let websockify = Websockify::start(&format!("{port} -- {Actor} sleep"));
    websockify.leader();
    let line = wait_for_within(std::time::Duration::from_secs(30), "a warning", || {
        websockify.logged(&["WARN"]).pop()
    });
    assert!(line.contains(&port.to_string()) && line.contains("--program-port"), "{line}");
    assert!(is_refused(Ipv4Addr::LOCALHOST, port));
}
