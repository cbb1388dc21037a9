//! `--user` and `--program-user` together: websockify runs as one user, and the program as another. No process is root any
//! more.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::{NOBODY, Place, WWW_DATA, assert_stops, greeted, low_port, of_threads, rights};
use crate::client_address::{ask, client, session_from, start_address_reporter};
use crate::support::{
    Actor, Process, Websockify, connect, copy_program, free_port, needs, needs_root, read_to_end,
    run, stays, wait_for, wait_for_within, wait_until,
};

/// The options of every command line here.
pub(super) const BOTH: &str = "--user=nobody --program-user=www-data --rebind-engine=preload";

/// The same with one user for both.
const OURS_ALONE: &str = "--user=nobody --rebind-engine=preload";

/// A place where the program's user may write.
pub(super) fn place() -> Place {
    let place = Place::new();
    place.open_to(0, 0o1777);
    place
}

pub(super) fn launcher(websockify: &Websockify) -> Process {
    let is_launcher = |process: &Process| process.name == "launcher";
    wait_for("the launcher", || websockify.tree().into_iter().find(is_launcher))
}

#[test]
fn w16_each_has_its_own_user_and_nobody_is_root() {
    if !needs_root() {
        return;
    }
    let (place, port) = (place(), low_port());
    let actor = place.actor();
    let play = format!("bind {port} listen accept greet echo");
    let line = format!("{port} {BOTH} --wrap-mode=respawn -- {actor} {play}");
    let websockify = Websockify::start(&line);
    for nth in 1..=4 {
        let leader = websockify.nth_leader(nth);
        rights(&leader).assert_of(WWW_DATA, "33");
        rights(&leader).assert_open();
        assert_eq!(leader.stat().ppid, websockify.pid(), "it is websockify's child");
        assert_eq!(leader.variable("HOME"), "/var/www");
        greeted(port);
    }
    for thread in of_threads(websockify.pid()) {
        thread.assert_of(NOBODY, "65534");
        thread.assert_sealed();
    }
    let launcher = launcher(&websockify);
    rights(&launcher).assert_of(WWW_DATA, "33");
    // Its socket and the standard streams. It has more for a moment, while it starts the program again.
    wait_until("its descriptors alone", || launcher.proc().fd().unwrap().count() == 4);
    assert_eq!(websockify.warnings(), Vec::<String>::new());
    assert_stops(websockify);
}

/// The kernel cuts a process's name at 15 bytes, which may be within a letter; and that it is of the program's user is said
/// in the same file.
#[test]
fn w16_a_program_whose_name_is_cut_within_a_letter_is_bridged_to() {
    if !needs_root() {
        return;
    }
    let (place, port) = (place(), low_port());
    let program = place.named("програмаактор");
    fs::rename(place.actor(), &program).unwrap();
    let line = format!("{port} {BOTH} -- {program} bind {port} listen serve");
    let websockify = Websockify::start(&line);
    greeted(port);
    assert_eq!(websockify.leader().name, "програм\u{fffd}");
    assert_stops(websockify);
}

#[test]
fn w16_the_programs_end_is_websockifys_and_its_output_is_logged() {
    if !needs_root() {
        return;
    }
    let place = place();
    let log = place.named("log");
    let line = format!("{} {BOTH} --log-file={log}", free_port());
    let websockify = Websockify::start_with(&line, |command| {
        command.args(["--", "sh", "-c", "echo hello; exit 7"]);
    });
    let output = websockify.output();
    assert_eq!(output.status, 7, "{output:?}");
    let log = fs::read_to_string(log).unwrap();
    assert!(log.lines().any(|line| line.contains("sh[") && line.ends_with("hello")), "{log}");
}

#[test]
fn w16_a_program_that_cannot_be_started_is_named() {
    if !needs_root() {
        return;
    }
    let place = place();
    let port = free_port();
    let output = run(&format!("{port} {BOTH} -- no-such-program"));
    assert_eq!(output.status, 127, "{output:?}");
    assert!(output.err[0].contains("no-such-program: not found"), "{output:?}");
    let private = place.named("private");
    copy_program(Actor, &private);
    fs::set_permissions(&private, Permissions::from_mode(0o700)).unwrap();
    let output = run(&format!("{port} {BOTH} -- {private}"));
    assert_eq!(output.status, 126, "{output:?}");
    assert!(output.err[0].ends_with("permission denied"), "{output:?}");
}

/// W9: a program of another user gets SIGTERM, and then SIGKILL if it ignores that.
#[test]
fn w16_whoever_does_not_end_is_killed() {
    if !needs_root() {
        return;
    }
    let (place, port) = (place(), free_port());
    let (actor, note) = (place.actor(), place.named("told"));
    let play = format!("on-term {note} bind {port} listen serve");
    let websockify = Websockify::start(&format!("{port} {BOTH} -- {actor} {play}"));
    greeted(port);
    assert_stops(websockify);
    assert!(!fs::read_to_string(&note).unwrap().is_empty(), "SIGTERM");
    let play = format!("ignore-term bind {port} listen helper serve");
    let line = format!("{port} {BOTH} --stop-timeout=0.2 -v -- {actor} {play}");
    let websockify = Websockify::start(&line);
    greeted(port);
    websockify.signal(Signal::SIGTERM);
    websockify.wait_for_log(&["SIGKILL to"]);
    assert_eq!(websockify.logged(&["cannot send"]), Vec::<String>::new());
    assert_stops_already(websockify);
}

fn assert_stops_already(mut websockify: Websockify) {
    assert_eq!(websockify.wait(), 0);
    wait_until("the end of all", || websockify.remnants().is_empty());
}

/// W10: the program gets SIGTERM when websockify is killed, and the launcher ends too.
#[test]
fn w16_the_program_is_told_when_websockify_is_killed() {
    if !needs_root() {
        return;
    }
    let (place, port) = (place(), free_port());
    let (actor, note) = (place.actor(), place.named("told"));
    let play = format!("on-term {note} bind {port} listen serve");
    let mut websockify = Websockify::start(&format!("{port} {BOTH} -- {actor} {play}"));
    greeted(port);
    let launcher = launcher(&websockify);
    websockify.signal(Signal::SIGKILL);
    assert_eq!(websockify.wait(), 128 + 9);
    wait_until("the note", || fs::read_to_string(&note).is_ok_and(|note| !note.is_empty()));
    wait_until("the launcher's end", || !launcher.is_alive());
}

/// W5: a daemon is followed, although websockify cannot see which files it has open.
#[test]
fn w16_a_daemon_is_followed() {
    if !needs_root() {
        return;
    }
    let (place, port) = (place(), free_port());
    let actor = place.actor();
    let play = format!("fork-exit 0 setsid fork-exit 0 bind {port} listen serve");
    let line = format!("{port} {BOTH} --wrap-mode=respawn -- {actor} {play}");
    let websockify = Websockify::start(&line);
    for nth in 1..=2 {
        websockify.nth_start(nth);
        greeted(port);
        let is_daemon = |line: &String| line.contains("daemonized");
        wait_until("daemons", || {
            websockify.err.lines().iter().filter(|line| is_daemon(line)).count() == nth
        });
        let launcher = launcher(&websockify);
        let daemons = websockify.tree().into_iter().filter(|process| *process != launcher);
        daemons.for_each(|process| process.signal(Signal::SIGKILL));
    }
    assert_stops(websockify);
}

/// A service manager sends SIGTERM to all processes of the service. The launcher ignores it, because websockify needs the
/// launcher to stop the program.
#[test]
fn w16_the_launcher_is_not_stopped_before_the_program() {
    if !needs_root() {
        return;
    }
    let (place, port) = (place(), free_port());
    let actor = place.actor();
    let play = format!("ignore-term bind {port} listen serve");
    let line = format!("{port} {BOTH} --stop-timeout=0.2 -- {actor} {play}");
    let websockify = Websockify::start(&line);
    greeted(port);
    let launcher = launcher(&websockify);
    launcher.signal(Signal::SIGTERM);
    stays(Duration::from_millis(200), "the launcher", || launcher.is_alive());
    assert_stops(websockify);
}

/// The program can kill the launcher, because both run as the same user.
#[test]
fn w16_a_launcher_that_was_killed_ends_us_when_it_is_needed() {
    if !needs_root() {
        return;
    }
    let (place, port) = (place(), free_port());
    let actor = place.actor();
    let play = format!("bind {port} listen accept greet echo");
    let line = format!("{port} {BOTH} --wrap-mode=respawn -- {actor} {play}");
    let mut websockify = Websockify::start(&line);
    websockify.leader();
    let launcher = launcher(&websockify);
    launcher.signal(Signal::SIGKILL);
    wait_until("its end", || !launcher.is_alive());
    greeted(port);
    assert_eq!(websockify.wait(), 1, "whoever supervises it starts it again");
    let line = ["ERROR cannot start program", "the launcher", "has ended", "websockify ends"];
    websockify.assert_logged(&line, 1);
    wait_until("the end of all", || websockify.remnants().is_empty());
}

/// The program can stop the launcher (SIGSTOP), because both run as the same user. websockify waits less long for the
/// launcher to send a signal than for it to start the program.
#[test]
fn w16_a_launcher_that_was_stopped_holds_up_nobody() {
    if !needs_root() {
        return;
    }
    let (place, port) = (place(), free_port());
    let actor = place.actor();
    let line = format!("{port} {BOTH} -- {actor} bind {port} listen serve");
    let websockify = Websockify::start(&line);
    greeted(port);
    let launcher = launcher(&websockify);
    launcher.signal(Signal::SIGSTOP);
    let begun = Instant::now();
    websockify.signal(Signal::SIGTERM);
    websockify.wait_for_log(&["cannot send SIGTERM to", "timed out"]);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    // The launcher finds that websockify has shut down their socket, and ends the program.
    launcher.signal(Signal::SIGCONT);
    assert_stops_already(websockify);
}

/// A launcher that does not start the program in time is not asked again: a late answer would be taken for that to another request.
#[test]
fn w16_a_launcher_that_was_stopped_ends_us_when_the_program_is_to_be_started() {
    if !needs_root() {
        return;
    }
    let (place, port) = (place(), free_port());
    let actor = place.actor();
    let play = format!("bind {port} listen accept greet echo");
    let mut websockify =
        Websockify::start(&format!("{port} {BOTH} --wrap-mode=respawn -- {actor} {play}"));
    websockify.leader();
    let launcher = launcher(&websockify);
    launcher.signal(Signal::SIGSTOP);
    greeted(port);
    assert_eq!(websockify.wait(), 1);
    websockify.assert_logged(&["ERROR cannot start program", "timed out", "websockify ends"], 1);
    launcher.signal(Signal::SIGCONT);
    wait_until("the end of all", || websockify.remnants().is_empty());
}

/// A1: the program is told who the client is, also when it runs as another user.
#[test]
fn w16_clients_are_told_of() {
    if !needs_root() {
        return;
    }
    if !needs(&["python3"]) {
        return;
    }
    let options = format!("{BOTH} --client-address=socket --program-access=bridge -v");
    let (websockify, port) = start_address_reporter(&options, "");
    for n in [1, 2] {
        let (mut one, from) = session_from(client(n), port);
        let expected = format!("{} {}", from.ip(), from.port());
        assert_eq!(ask(&mut one), (expected.clone(), expected));
    }
    // A6: nobody but the bridge is served at the port that the program really has.
    let mut stranger = connect(websockify.relocated_port());
    assert_eq!(read_to_end(&mut stranger), b"");
    assert_stops(websockify);
}

/// F20: the library of a daemon that was left running as another user stays, although the next websockify may not look
/// into that daemon.
#[test]
fn f20_w16_the_library_of_a_daemon_of_another_user_stays() {
    if !needs_root() {
        return;
    }
    let place = place();
    let (_first, daemon, library) = leave_daemon(&place, BOTH, "serve");
    let mut second = start_beside(&place, OURS_ALONE);
    assert_leaves_alone(&second, &library);
    daemon.signal(Signal::SIGKILL);
    assert_eq!(second.stop(), 0);
}

/// F20: so does that of a daemon that has made itself undumpable. When it has ended, the library is removed, although
/// websockify, which is undumpable too, may not look into itself.
#[test]
fn f20_w16_the_library_of_an_undumpable_daemon_stays_as_long_as_it() {
    if !needs_root() {
        return;
    }
    let place = place();
    let (_first, daemon, library) = leave_daemon(&place, OURS_ALONE, "undumpable serve");
    let mut second = start_beside(&place, OURS_ALONE);
    assert_leaves_alone(&second, &library);
    assert_eq!(second.stop(), 0);
    daemon.signal(Signal::SIGKILL);
    wait_until("the daemon's end", || !daemon.is_alive());
    // Undumpable processes of nobody's that other tests have count as well, for as long as they run.
    wait_for_within(Duration::from_secs(60), "the end of what was left", || {
        let mut third = start_beside(&place, OURS_ALONE);
        let until = Instant::now() + Duration::from_secs(1);
        while library.exists() && Instant::now() < until {
            sleep(Duration::from_millis(20));
        }
        assert_eq!(third.stop(), 0);
        (!library.exists()).then_some(())
    });
}

/// A websockify that has ended, the daemon that it has left, which does this, and the library that the daemon has.
fn leave_daemon(place: &Place, options: &str, deed: &str) -> (Websockify, Process, PathBuf) {
    let (actor, port) = (place.actor(), free_port());
    let line = format!(
        "{port} {options} --wrap-mode=ignore -- {actor} bind {port} listen fork-exit 0 {deed}"
    );
    let mut websockify = Websockify::start_with(&line, |command| {
        command.env("TMPDIR", place.0.path());
    });
    greeted(port);
    websockify.wait_for_log(&["daemonized"]);
    assert_eq!(websockify.stop(), 0);
    let daemon = wait_for("the daemon alone", || match &websockify.remnants()[..] {
        [daemon] => Some(daemon.clone()),
        _ => None,
    });
    let library = PathBuf::from(daemon.variable("LD_PRELOAD"));
    (websockify, daemon, library)
}

fn assert_leaves_alone(websockify: &Websockify, library: &Path) {
    let directory = library.parent().unwrap().to_str().unwrap();
    websockify.wait_for_log(&[directory, "left alone"]);
    assert!(library.exists());
}

/// Another websockify that unpacks its library in the same place.
fn start_beside(place: &Place, options: &str) -> Websockify {
    let (actor, port) = (place.named("actor"), free_port());
    let line = format!("{port} {options} -v -- {actor} bind {port} listen serve");
    let websockify = Websockify::start_with(&line, |command| {
        command.env("TMPDIR", place.0.path());
    });
    greeted(port);
    websockify
}
