//! Users that websockify cannot become, and options that exclude each other.

use std::process::Command;

use super::Place;
use crate::support::{
    WEBSOCKIFY, Websockify, copy_program, free_port, needs, needs_root, run, static_actor,
};

/// Checks that it ends with this status, and with one line that has these parts.
fn assert_refused(arguments: &str, status: i32, parts: &[&str]) {
    let output = run(arguments);
    assert_eq!(output.status, status, "{arguments}: {output:?}");
    assert_eq!(output.err.len(), 1, "{arguments}: {output:?}");
    assert!(parts.iter().all(|part| output.err[0].contains(part)), "{arguments}: {output:?}");
}

#[test]
fn w16_a_user_that_is_none_is_named() {
    if !needs_root() {
        return;
    }
    let port = free_port();
    for (value, parts) in [
        ("no-such-user", &["cannot run as user no-such-user", "there is no such user"][..]),
        ("nobody:no-such-group", &["cannot run as user nobody", "no group no-such-group"]),
        ("4242", &["no user has this number", "4242:4242"]),
        ("root", &["cannot run as user root", "keep every right"]),
        ("0:0", &["keep every right"]),
        ("4294967295:1", &["cannot run as user 4294967295", "is no number of a user"]),
        ("nobody:4294967295", &["cannot run as user nobody", "4294967295 is no number"]),
    ] {
        let parts = [parts, &["(--user)"]].concat();
        assert_refused(&format!("--user={value} {port} localhost:9"), 1, &parts);
        let parts: Vec<_> = parts.into_iter().filter(|part| *part != "(--user)").collect();
        let parts = [&*parts, &["(--program-user)"]].concat();
        assert_refused(&format!("--program-user={value} {port} -- true"), 1, &parts);
    }
}

/// By name or by number. A program that runs as websockify's user can do to websockify what it likes, so that another group
/// would protect nothing.
#[test]
fn w16_one_user_with_two_groups_is_refused() {
    let port = free_port();
    let parts = ["'--user' and '--program-user' name one user, nobody, with two groups"];
    let line = format!("--user=nobody --program-user=nobody:www-data {port} -- true");
    assert_refused(&line, 2, &parts);
    if needs_root() {
        let line = format!("--user=nobody --program-user=65534:33 {port} -- true");
        assert_refused(&line, 1, &parts);
    }
}

#[test]
fn w16_only_root_changes_its_user() {
    if !needs_root() || !needs(&["setpriv"]) {
        return;
    }
    let place = Place::new();
    let websockify = place.named("websockify");
    copy_program(WEBSOCKIFY, &websockify);
    let port = free_port().to_string();
    let mut command = Command::new("setpriv");
    command.args(["--reuid=33", "--regid=33", "--clear-groups", &websockify]);
    command.args(["--user=nobody", &port, "localhost:9"]).current_dir("/");
    let output = Websockify::launch(&mut command).output();
    assert_eq!(output.status, 1, "{output:?}");
    assert!(output.err[0].ends_with("(--user): only root can change user"), "{output:?}");
}

/// A process cannot look into a process of another user: the engine `seccomp` needs root, or one user for both.
#[test]
fn w16_two_users_and_the_second_engine_exclude_each_other() {
    let port = free_port();
    let both = format!("--user=nobody --program-user=www-data {port}");
    let line = format!("{both} --rebind-engine=seccomp -- true");
    assert_refused(&line, 2, &["'--user' and '--program-user'", "'--rebind-engine=seccomp'"]);
    if !needs_root() {
        return;
    }
    let place = Place::new();
    let program = place.named("static");
    copy_program(static_actor(), &program);
    let output = Websockify::start_auto(&format!("{both} -- {program} sleep")).output();
    assert_eq!(output.status, 1, "{output:?}");
    let line = &output.err[0];
    for part in ["cannot use --user and --program-user together", "is statically linked", "alone"] {
        assert!(line.contains(part), "{line}");
    }
}
