//! Warnings of programs that `rebind.so` cannot move, and of programs that do not listen (W12).

use std::fs::{self, Permissions};
use std::net::Ipv4Addr;
use std::os::unix::fs::{PermissionsExt, chown};

use super::Notes;
use crate::support::{
    Actor, Client, Websockify, copy_program, free_port, is_refused, listening, needs, needs_root,
    run, static_actor, wait_for_within, write_script,
};

/// Checks that there is one warning, which contains all of `parts`, and that the program does not get the public port.
fn assert_warned(program: &str, parts: &[&str]) {
    let port = free_port();
    let output =
        run(&format!("{port} --rebind-engine=preload -- {program} bind {port} listen serve"));
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
    let output = run(&format!("{port} --rebind-engine=preload -- {script}"));
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
    let websockify = Websockify::start(&format!(
        "{port} --wrap-mode=respawn --rebind-engine=preload -- {} exit 1",
        static_actor()
    ));
    websockify.nth_start(3);
    websockify.assert_logged(&["statically linked"], 1);
}

#[test]
fn w12_a_program_that_does_not_listen_is_warned_of_after_ten_seconds() {
    let port = free_port();
    let websockify = Websockify::start(&format!("{port} -- {Actor} sleep"));
    websockify.leader();
    let line = wait_for_within(std::time::Duration::from_secs(30), "a warning", || {
        websockify.warnings().pop()
    });
    assert!(line.contains(&port.to_string()) && line.contains("--program-port"), "{line}");
    assert!(is_refused(Ipv4Addr::LOCALHOST, port));
}

/// The warning of a program whose environment was cleared.
const CLEARED: &str = "rebind.so cannot move its port: use runuser, setpriv or su without '-'";

/// The running process shows that the environment was cleared, whatever has cleared it: the command line does not tell.
#[test]
fn f26_a_program_that_runs_without_the_environment_is_named_when_it_fails() {
    let notes = Notes::new();
    let (port, script, go) = (free_port(), notes.note("script"), notes.note("go"));
    write_script(
        &script,
        &format!("#!/bin/sh\nexec env -i {Actor} await {go} bind {port} listen serve\n"),
    );
    let mut websockify =
        Websockify::start(&format!("{port} -v --rebind-engine=preload -- {script}"));
    websockify.wait_for_log(&["(actor) runs without rebind.so"]);
    assert_eq!(websockify.warnings(), Vec::<String>::new(), "it may still listen");
    notes.give("go");
    let warned = websockify.wait_for_log(&["WARN", &script, &port.to_string(), CLEARED]);
    assert!(warned.contains("the environment was cleared on the way to "), "{warned}");
    assert_eq!(websockify.wait(), 99, "what the actor ends with then");
}

/// The command line tells it where the program ends before it can be looked at; once, not at each respawn.
#[test]
fn f26_what_clears_the_environment_is_named_when_the_program_ends_at_once() {
    let port = free_port();
    for (mode, program) in [
        ("exit", format!("env -i {Actor} bind {port} listen serve")),
        ("ignore", format!("/usr/bin/env - {Actor} bind {port} listen serve")),
        ("respawn", format!("env -i {Actor} bind {port} listen serve")),
    ] {
        let mut websockify = Websockify::start(&format!(
            "{port} --wrap-mode={mode} --rebind-engine=preload -- {program}"
        ));
        websockify.wait_for_log(&["WARN", &port.to_string(), CLEARED]);
        if mode == "respawn" {
            websockify.nth_start(4);
            websockify.stop();
        } else {
            assert_eq!(websockify.wait(), 99);
        }
        websockify.assert_logged(&[CLEARED], 1);
    }
    if needs_root() && needs(&["su"]) {
        let mut su = free_port().to_string();
        su = format!("{su} --rebind-engine=preload -- su -s /bin/sh - nobody -c");
        let websockify = Websockify::start_with(&su, |command| {
            command.arg("exit 3");
        });
        let output = websockify.output();
        assert_eq!(output.status, 3);
        let named = |line: &&String| line.contains("WARN") && line.contains(CLEARED);
        assert_eq!(output.err.iter().filter(named).count(), 1, "{output:?}");
    }
}

/// W12: a program that neither listens nor ends is looked at after ten seconds.
#[test]
fn f26_a_silent_program_without_the_environment_is_told_so() {
    let port = free_port();
    let arguments = format!("{port} --rebind-engine=preload --");
    let websockify = Websockify::start_with(&arguments, |command| {
        command.args(["sh", "-c", &format!("exec $0 -i {Actor} sleep"), "env"]);
    });
    let line = wait_for_within(std::time::Duration::from_secs(30), "a warning", || {
        websockify.warnings().pop()
    });
    assert!(line.contains("(actor)") && line.contains(CLEARED), "{line}");
}

/// What the warning recommends works; and a program that clears the environment for a helper only is not warned of.
#[test]
fn f26_what_keeps_the_environment_is_bridged_to_without_a_word() {
    let root = needs_root() && needs(&["runuser", "setpriv", "su"]);
    let port = free_port();
    let server = format!("{Actor} bind {port} listen serve");
    let mut programs =
        vec![vec!["sh".to_owned(), "-c".into(), format!("env -i true; exec {server}")]];
    if root {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        programs.push(words(&format!("runuser -u nobody -- {server}")));
        programs.push(words(&format!("setpriv --reuid=65534 --clear-groups {server}")));
        let mut su = words("su -s /bin/sh nobody -c");
        su.push(server.clone());
        programs.push(su);
    }
    for program in programs {
        let mut websockify = Websockify::start_with(&format!("{port} --"), |command| {
            command.args(&program);
        });
        let mut client = Client::connect_once_open(port);
        client.read_line();
        assert_eq!(client.close().code, 1000, "{program:?}");
        assert_eq!(websockify.warnings(), Vec::<String>::new(), "{program:?}");
        websockify.stop();
    }
}

/// The only warning in these lines.
fn only_warning(lines: &[String]) -> &str {
    let warnings: Vec<_> = lines.iter().filter(|line| line.contains("WARN")).collect();
    assert_eq!(warnings.len(), 1, "{lines:?}");
    warnings[0]
}

#[test]
fn f46_a_program_that_ends_without_having_listened_is_warned_of() {
    for mode in ["exit", "ignore"] {
        for status in [0, 3] {
            let port = free_port();
            let output = run(&format!("{port} --wrap-mode={mode} -- {Actor} exit {status}"));
            let warning = only_warning(&output.err);
            let said = format!("has ended without listening on port {port}");
            assert!(warning.contains(&said), "{mode} {status}: {warning}");
            assert_eq!(output.status, status);
        }
    }
}

/// F46: a program that has listened, or was told to end, is not warned of.
#[test]
fn f46_a_program_that_has_listened_or_was_stopped_is_not_warned_of() {
    let notes = Notes::new();
    let (port, gate) = (free_port(), notes.note("gate"));
    let websockify =
        Websockify::start(&format!("{port} -- {Actor} bind {port} listen await {gate}"));
    websockify.wait_until_open();
    notes.give("gate");
    let output = websockify.output();
    let warned = |line: &&String| line.contains(" WARN ") && !line.contains("No certificate");
    assert_eq!(output.err.iter().find(warned), None);
    let mut websockify = Websockify::start(&format!("{port} -- {Actor} sleep"));
    websockify.leader();
    assert_eq!(websockify.stop(), 0);
    assert_eq!(websockify.warnings(), Vec::<String>::new());
}

#[test]
fn f47_silence_is_warned_of_after_the_wrap_timeout_if_that_is_shorter() {
    let port = free_port();
    let began = std::time::Instant::now();
    let websockify = Websockify::start(&format!("{port} --wrap-timeout=1.5 -- {Actor} sleep"));
    websockify.wait_for_log(&["WARN", &format!("does not listen on port {port} yet")]);
    let time = began.elapsed().as_secs_f32();
    assert!((1.5..9.0).contains(&time), "{time} s");
}

/// F64: the warning names the port that the program uses, for a person who has given another one.
#[test]
fn f64_the_port_that_the_program_listens_on_is_named() {
    let (port, other, child) = (free_port(), free_port(), free_port());
    let program =
        format!("{Actor} bind {child} listen sleep & exec {Actor} bind {other} listen sleep");
    for (program, expected) in [
        (format!("exec {Actor} bind {other} listen sleep"), vec![other]),
        (program, vec![other, child]),
    ] {
        let arguments = format!("{port} --wrap-timeout=1 --");
        let websockify = Websockify::start_with(&arguments, |command| {
            command.args(["sh", "-c", &program]);
        });
        let warning = websockify.wait_for_log(&["WARN", "does not listen on port"]);
        assert!(warning.contains("--program-port"), "{warning}");
        for port in [port].iter().chain(&expected) {
            assert!(warning.contains(&port.to_string()), "no {port} in {warning}");
        }
    }
}
