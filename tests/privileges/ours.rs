//! `--user`: websockify runs as that user, and so does its program.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::Command;

use nix::sys::signal::Signal;

use super::{
    NOBODY, Place, Rights, WWW_DATA, assert_stops, engines, greeted, low_port, of_threads, rights,
};
use crate::support::{
    Client, Process, WEBSOCKIFY, Websockify, can_copy_sockets, echo_service, free_port, needs,
    needs_root,
};

/// Started as root with groups, and with capabilities that exec(2) passes on: no thread has any of them left.
#[test]
fn w16_no_right_of_roots_is_left_to_a_bridge() {
    if !needs_root() || !needs(&["setpriv"]) {
        return;
    }
    let (service, port) = (echo_service(), low_port());
    let mut command = Command::new("setpriv");
    command.args(["--groups=4,27", "--inh-caps=+chown,+setuid", "--ambient-caps=+chown,+setuid"]);
    command.args([WEBSOCKIFY, "--user=nobody", &port.to_string(), &service.target()]);
    let websockify = Websockify::launch(&mut command);
    let mut client = Client::connect_once_open(port);
    client.send("hello");
    assert_eq!(client.read(5), b"hello");
    let threads = of_threads(websockify.pid());
    assert!(threads.len() > 1, "{threads:?}");
    for thread in threads {
        thread.assert_of(NOBODY, "65534");
        thread.assert_sealed();
    }
    assert_eq!(client.close().code, 1000);
    assert_eq!(websockify.warnings(), Vec::<String>::new());
    assert_stops(websockify);
}

/// The groups are those of initgroups(3), with the group that was asked for in place of the user's own.
#[test]
fn w16_the_groups_are_the_users() {
    if !needs_root() || !needs(&["unshare", "mount"]) {
        return;
    }
    let place = Place::new();
    let mut groups = fs::read_to_string("/etc/group").unwrap();
    groups.push_str("w16-a:x:4001:www-data\nw16-b:x:4002:nobody\nw16-c:x:4003:\n");
    fs::write(place.at("group"), groups).unwrap();
    let script = r#"mount --bind "$0" /etc/group && exec "$@""#;
    for (user, group, groups) in [
        ("www-data", "33 33 33 33", "33 4001"),
        ("33", "33 33 33 33", "33 4001"),
        ("www-data:w16-c", "4003 4003 4003 4003", "4001 4003"),
        ("www-data:4002", "4002 4002 4002 4002", "4001 4002"),
        ("4242:4003", "4003 4003 4003 4003", "4003"),
    ] {
        let (service, port) = (echo_service(), free_port());
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", script, &place.named("group"), WEBSOCKIFY]);
        command.args([&format!("--user={user}"), &port.to_string(), &service.target()]);
        let websockify = Websockify::launch(&mut command);
        Client::connect_once_open(port).close();
        let rights = Rights::of(format!("/proc/{}/status", websockify.pid()).as_ref());
        assert_eq!((rights.is("Gid"), rights.is("Groups")), (group, groups), "{user}");
        assert_stops(websockify);
    }
}

/// Under both engines. To start the program again takes no right that was given up.
#[test]
fn w16_the_program_is_the_user_too_and_is_started_again() {
    if !needs_root() {
        return;
    }
    for engine in engines() {
        if engine == "seccomp" && !can_copy_sockets() {
            continue;
        }
        let (place, port) = (Place::new(), low_port());
        let actor = place.actor();
        let line = format!(
            "{port} --user=www-data --rebind-engine={engine} --wrap-mode=respawn -- {actor} bind {port} listen \
             accept greet echo"
        );
        let websockify = Websockify::start(&line);
        for nth in 1..=3 {
            let leader = websockify.nth_leader(nth);
            rights(&leader).assert_of(WWW_DATA, "33");
            let home = (leader.variable("HOME"), leader.variable("USER"));
            assert_eq!(home, ("/var/www".into(), "www-data".into()), "{engine}");
            if engine == "preload" {
                rights(&leader).assert_open();
            }
            greeted(port);
        }
        for thread in of_threads(websockify.pid()) {
            thread.assert_of(WWW_DATA, "33");
        }
        assert_stops(websockify);
    }
}

/// Setuid programs must still work: the login(1) of a telnetd becomes the user who logs in.
#[test]
fn w16_a_setuid_program_gains_what_it_is_to() {
    if !needs_root() {
        return;
    }
    let (place, port) = (Place::new(), free_port());
    let program = place.actor();
    fs::set_permissions(&program, Permissions::from_mode(0o4755)).unwrap();
    let line = format!("{port} --user=nobody --rebind-engine=preload -- {program} sleep");
    let websockify = Websockify::start(&line);
    let rights = rights(&websockify.leader());
    let of_root = super::ours();
    assert_eq!(rights.is("Uid"), "65534 0 0 0");
    assert_eq!(rights.is("CapEff"), of_root.is("CapBnd"));
    assert_stops(websockify);
}

/// The daemon of `-D` runs as the user too.
#[test]
fn w16_a_daemon_is_the_user() {
    if !needs_root() {
        return;
    }
    let (service, port, place) = (echo_service(), free_port(), Place::new());
    let directory = place.directory_of(NOBODY, "run", 0o755);
    let pid_file = directory.join("pid");
    let line =
        format!("-D --user=nobody --pid-file={} {port} {}", pid_file.display(), service.target());
    let mut websockify = Websockify::start(&line);
    assert_eq!(websockify.wait(), 0, "{:?}", websockify.err.lines());
    let pid = fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();
    Client::connect(port).close();
    for thread in of_threads(pid) {
        thread.assert_of(NOBODY, "65534");
        thread.assert_sealed();
    }
    let daemon = Process::find(pid).unwrap();
    daemon.signal(Signal::SIGTERM);
    crate::support::wait_until("its end", || !daemon.is_alive());
    assert!(!pid_file.exists());
}

/// A helper runs as the user too. It may use setuid programs, and has the user's `HOME`.
#[test]
fn w16_a_helper_is_the_user() {
    if !needs_root() || !needs(&["python3"]) {
        return;
    }
    let (place, port) = (Place::new(), free_port());
    let directory = place.directory_of(WWW_DATA, "home", 0o755);
    let script = place.named("helper.py");
    let text =
        "import os, sys\nopen(sys.argv[1], 'w').write(os.environ['HOME'])\nsys.stdin.read()\n";
    fs::write(&script, text).unwrap();
    chown(&script, Some(0), Some(0)).unwrap();
    let note = directory.join("note");
    let websockify = Websockify::start_with("", |command| {
        command.args(["--user=www-data", &port.to_string(), "--token-plugin=Helper"]);
        command.arg(format!("--token-source=python3 {script} {}", note.display()));
    });
    crate::support::wait_until("the note", || {
        fs::read_to_string(&note).is_ok_and(|home| home == "/var/www")
    });
    let helper = websockify.tree().into_iter().find(|process| process.name == "python3").unwrap();
    rights(&helper).assert_of(WWW_DATA, "33");
    rights(&helper).assert_open();
    assert_stops(websockify);
}
