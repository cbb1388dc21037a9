//! Hand-overs that are not possible since root was given up: one line says why, and the old binary goes on.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;

use super::{BOTH, NOBODY, Stage, WWW_DATA, echo, place, session};
use crate::privileges::{assert_stops, rights};
use crate::support::{
    Caller, Client, SERVERS, WEBSOCKIFY, Websockify, copy_program, echo_service, free_port, needs,
    needs_root, wait_until,
};

/// Asks for a hand-over that is refused; gives the log line that says why.
fn refused(websockify: &Websockify) -> String {
    let refusals = || websockify.logged(&["WARN cannot hand over"]);
    let before = refusals().len();
    websockify.signal(Signal::SIGUSR2);
    wait_until("a refusal", || refusals().len() == before + 1);
    assert_eq!(websockify.logged(&["handing over to"]), Vec::<String>::new());
    refusals().pop().unwrap()
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn o2_w16_a_program_that_the_user_may_not_execute_is_refused() {
    if !needs_root() {
        return;
    }
    let (service, port) = (echo_service(), free_port());
    let stage = Stage::start(&format!("--user=nobody {port} {}", service.target()));
    let mut client = Client::connect_once_open(port);
    let mut refused = |why: &str| {
        let line = refused(&stage.websockify);
        assert!(line.ends_with(why), "{line}");
        echo(&mut client);
    };
    // The running binary is what a failed hand-over goes back to.
    set_mode(&stage.binary(), 0o700);
    refused("there would be no way back: permission denied for user nobody");
    set_mode(&stage.binary(), 0o755);
    stage.replace(|new| {
        copy_program(WEBSOCKIFY, new);
        set_mode(new, 0o700);
    });
    refused(": permission denied for user nobody");
    set_mode(&stage.binary(), 0o755);
    stage.place.open_to(0, 0o700);
    refused(": permission denied for user nobody");
    stage.place.open_to(0, 0o755);
    stage.hand_over();
    echo(&mut client);
    stage.assert_is(NOBODY, "65534");
    assert_stops(stage.websockify);
}

/// Under options with which a setuid program that websockify starts gets its rights.
#[test]
fn o2_w16_a_setuid_program_does_not_take_our_place() {
    if !needs_root() {
        return;
    }
    let port = free_port();
    let stage = Stage::start(&format!(
        "{port} --user=nobody --rebind-engine=preload -- ACTOR bind {port} listen serve"
    ));
    let mut client = session(port);
    for mode in [0o4755, 0o2755] {
        set_mode(&stage.binary(), mode);
        let line = refused(&stage.websockify);
        let why = "whoever executes it gets the rights of another user by that";
        assert!(line.ends_with(why), "{line}");
        echo(&mut client);
        stage.assert_is(NOBODY, "65534");
    }
    set_mode(&stage.binary(), 0o755);
    stage.hand_over();
    echo(&mut client);
    stage.assert_is(NOBODY, "65534");
    assert_stops(stage.websockify);
}

/// The new binary cannot read these files. The log says so as at a start by a user who is not root.
#[test]
fn o2_w16_what_root_alone_may_read_is_named() {
    what_root_alone_may_read_is_named("--cert=self.pem ");
}

/// The certificate that is used where no option names one is needed as well, once clients are served by it.
#[test]
fn o2_w16_a_certificate_without_an_option_that_root_alone_may_read_is_named() {
    what_root_alone_may_read_is_named("");
}

fn what_root_alone_may_read_is_named(option: &str) {
    if !needs_root() {
        return;
    }
    let (service, port, place) = (echo_service(), free_port(), place());
    let pem = place.at("self.pem");
    fs::write(&pem, SERVERS.issue("localhost").pem()).unwrap();
    set_mode(&pem, 0o600);
    let line = format!("--user=nobody {option}--log-file=log {port} {}", service.target());
    let stage = Stage::start_in(place, &line, |_| {});
    let line = refused(&stage.websockify);
    assert!(line.contains("self.pem: permission denied"), "{line}");
    Caller::anonymous().session(port, &[]).unwrap().exchange(b"hello");
    set_mode(&pem, 0o644);
    let line = refused(&stage.websockify);
    assert!(line.contains("cannot open log file") && line.ends_with("permission denied"), "{line}");
    chown(stage.place.at("log"), Some(NOBODY), None).unwrap();
    stage.hand_over();
    Caller::anonymous().session(port, &[]).unwrap().exchange(b"hello");
    assert_stops(stage.websockify);
}

/// Standard output is root's pipe, which the user cannot open by that name; the binary that is tried has another one.
#[test]
fn o2_w16_a_log_on_standard_output_that_root_alone_may_open_is_named() {
    if !needs_root() {
        return;
    }
    let (service, port) = (echo_service(), free_port());
    let line = format!("--user=nobody --log-file=/dev/stdout {port} {}", service.target());
    let stage = Stage::start(&line);
    let mut client = Client::connect_once_open(port);
    let line = refused(&stage.websockify);
    assert!(line.ends_with("cannot open log file /dev/stdout: permission denied"), "{line}");
    echo(&mut client);
    assert_stops(stage.websockify);
}

/// The user and the user's groups are looked up again.
#[test]
fn o2_w16_a_user_who_is_no_more_or_has_lost_a_group_is_refused() {
    if !needs_root() || !needs(&["unshare", "mount"]) {
        return;
    }
    let (service, port, place) = (echo_service(), free_port(), place());
    let database = |name: &str, line: &str| {
        let text = fs::read_to_string(Path::new("/etc").join(name)).unwrap();
        fs::write(place.at(name), format!("{text}{line}")).unwrap();
    };
    let there = || {
        database("passwd", "w16:x:4242:4242::/:/bin/sh\n");
        database("group", "w16-a:x:4242:\nw16-b:x:4243:w16\n");
    };
    there();
    let script = r#"mount --bind passwd /etc/passwd && mount --bind group /etc/group && exec "$@""#;
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script, "sh", &place.named("websockify"), "--user=w16"]);
    command.args([&port.to_string(), &service.target()]).current_dir(place.0.path());
    let websockify = Websockify::launch(&mut command);
    let mut client = Client::connect_once_open(port);
    database("group", "w16-a:x:4242:\nw16-b:x:4243:\n");
    let line = refused(&websockify);
    assert!(line.ends_with("cannot go on as user w16: another group is left"), "{line}");
    echo(&mut client);
    database("passwd", "w16:x:4343:4242::/:/bin/sh\n");
    let line = refused(&websockify);
    assert!(line.ends_with("cannot go on as user w16: the kernel has left another id"), "{line}");
    database("passwd", "");
    let line = refused(&websockify);
    assert!(line.contains("cannot run as user w16 (--user): there is no such user"), "{line}");
    echo(&mut client);
    there();
    websockify.signal(Signal::SIGUSR2);
    websockify.wait_for_log(&["taken over: 1 session"]);
    echo(&mut client);
    assert_stops(websockify);
}

/// The program's user cannot change, because the launcher runs as that user.
#[test]
fn o2_w16_a_program_whose_user_is_another_one_now_is_refused() {
    if !needs_root() || !needs(&["unshare", "mount"]) {
        return;
    }
    let (port, place) = (free_port(), place());
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let database = |line: &str| fs::write(place.at("passwd"), format!("{passwd}{line}")).unwrap();
    database("w16:x:33:33::/:/bin/sh\n");
    let script = r#"mount --bind passwd /etc/passwd && exec "$@""#;
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script, "sh", &place.named("websockify")]);
    command.args(BOTH.replace("www-data", "w16").split_whitespace());
    command.args(["--wrap-mode=respawn", &port.to_string(), "--", &place.named("actor")]);
    command.args(["bind", &port.to_string(), "listen", "serve"]).current_dir(place.0.path());
    let websockify = Websockify::launch(&mut command);
    let mut client = session(port);
    database("w16:x:4242:33::/:/bin/sh\n");
    let line = refused(&websockify);
    assert!(
        line.ends_with("starts the program is user 33, who is not asked for any more"),
        "{line}"
    );
    echo(&mut client);
    websockify.leader().signal(Signal::SIGKILL);
    rights(&websockify.nth_leader(2)).assert_of(WWW_DATA, "33");
    session(port);
    assert_stops(websockify);
}
