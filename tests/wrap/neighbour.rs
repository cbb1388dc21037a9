//! Another user of the machine, the thief, who wants the program's clients (F1) and tries without pause to listen on
//! the relocated port, before the program does, after it, and between two instances. The thief must get
//! no byte, and must not keep the program from the port.

use std::path::PathBuf;
use std::process::Command;

use nix::sys::signal::Signal;

use super::Notes;
use crate::support::{
    Actor, Client, Loot, Thief, WEBSOCKIFY, Websockify, can_copy_sockets, copy_program, engine,
    free_port, needs_root,
};

/// The users: of the service, where it is not root, and the thief's.
const SERVICE: u32 = 61_234;
const THIEF: u32 = 61_235;
/// The user that the program changes to (`actor nobody`).
const NOBODY: u32 = 65_534;
/// So many idle processes of the thief's make a walk through /proc slow.
const CROWD: usize = 400;
/// How often the program is started again. The thief tries tens of thousands of times a second, so that a gap in any of
/// these restarts is found.
const RESTARTS: usize = 32;
/// How often the whole service is started in each mode.
const STARTS: usize = 4;

/// Half of `rounds` where an engine is named: the sockets that hold the port are the same under both engines, and only
/// the program's bind and listen go another way.
fn rounds(rounds: usize) -> usize {
    if engine().is_some() { rounds / 2 } else { rounds }
}

/// Programs that every user can execute.
struct Stage {
    notes: Notes,
    websockify: PathBuf,
    actor: PathBuf,
}

impl Stage {
    fn new() -> Self {
        let notes = Notes::new();
        let copy = |from: &dyn AsRef<std::path::Path>, name| {
            let to = notes.path().join(name);
            copy_program(from, &to);
            to
        };
        let websockify = copy(&WEBSOCKIFY, "websockify");
        let actor = copy(&Actor, "actor");
        Self { notes, websockify, actor }
    }

    /// Starts the service as this user; `play` is what the program does.
    fn start(&self, user: u32, port: u16, mode: &str, play: &str) -> Websockify {
        let mut command = Command::new("setpriv");
        if user == 0 {
            command.arg("--no-new-privs");
        } else {
            command.args([format!("--reuid={user}"), format!("--regid={user}")]);
            command.arg("--clear-groups");
        }
        command.arg(&self.websockify).args([&port.to_string(), "-v"]);
        command.arg(format!("--wrap-mode={mode}"));
        command.args(engine().map(|engine| format!("--rebind-engine={engine}")));
        command.arg("--").arg(&self.actor).args(play.split_whitespace());
        Websockify::launch(&mut command)
    }
}

/// One session, in which a password is typed.
fn session(port: u16) {
    let mut client = Client::connect_once_open(port);
    client.read_line();
    client.send("password");
    assert_eq!(client.read(8), b"password");
    client.close();
}

/// Checks what a thief has got who was stopped while websockify held the port.
fn assert_got_nothing(loot: &Loot, case: &str) {
    let Loot { bound, listened, .. } = *loot;
    assert_eq!([bound, listened], [0; 2], "{case}");
    assert_got_nobody(loot, case);
}

/// The thief may get the port when websockify has ended, but no client.
fn assert_got_nobody(loot: &Loot, case: &str) {
    println!("{case}: {loot:?}");
    assert!(loot.attempts > 0, "{case}: he has tried");
    assert_eq!([loot.clients, loot.bytes], [0; 2], "{case}");
}

#[test]
fn f1_nobody_takes_the_port_between_two_instances() {
    if !needs_root() {
        return;
    }
    let stage = Stage::new();
    for user in [0, SERVICE] {
        let port = free_port();
        let play = format!("bind {port} listen accept greet echo exit 0");
        let mut websockify = stage.start(user, port, "respawn", &play);
        let thief = Thief::start(stage.notes.path(), THIEF, websockify.relocated_port(), CROWD);
        for _ in 0..rounds(RESTARTS) {
            session(port);
        }
        assert!(websockify.nth_start(rounds(RESTARTS)) > 0);
        assert_got_nothing(&thief.stop(), &format!("respawn as {user}"));
        assert_eq!(websockify.stop(), 0);
    }
}

/// Also a daemon's port, also before it listens at all.
#[test]
fn f1_nobody_takes_the_port_before_or_after_the_program() {
    if !needs_root() {
        return;
    }
    let stage = Stage::new();
    for user in [0, SERVICE] {
        for (mode, daemonizes) in
            [("exit", ""), ("ignore", ""), ("ignore", "fork-exit 0"), ("respawn", "fork-exit 0")]
        {
            for start in 0..rounds(STARTS) {
                let port = free_port();
                let gate = stage.notes.note(&format!("gate-{user}-{mode}-{daemonizes}-{start}"));
                let gate = gate.replace(' ', "-");
                let play = format!(
                    "await {gate} bind {port} listen {daemonizes} accept greet echo exit 0"
                );
                let mut websockify = stage.start(user, port, mode, &play);
                let thief =
                    Thief::start(stage.notes.path(), THIEF, websockify.relocated_port(), CROWD / 2);
                std::fs::write(&gate, "").unwrap();
                session(port);
                let case = format!("{mode} {daemonizes} as {user}");
                if mode == "exit" {
                    assert_eq!(websockify.wait(), 0, "{case}");
                    assert_got_nobody(&thief.stop(), &case);
                } else {
                    // A client that comes now is held, or told that the program has ended.
                    let _ = Client::dial(([127, 0, 0, 1], port)).map(|mut late| late.send("late"));
                    assert_got_nothing(&thief.stop(), &case);
                    assert_eq!(websockify.stop(), 0, "{case}");
                }
            }
        }
    }
}

/// A program that has changed its user gets its port from websockify, and other processes of that user do
/// not.
#[test]
fn f1_a_program_that_changes_user_has_the_port_and_others_of_that_user_have_not() {
    if !needs_root() {
        return;
    }
    let stage = Stage::new();
    for bind in ["bind", "bind-dual", "bind-v6"] {
        if bind == "bind-v6" && !crate::support::has_ipv6() {
            continue;
        }
        let port = free_port();
        let play = format!("nobody {bind} {port} listen accept greet echo exit 0");
        let mut websockify = stage.start(0, port, "respawn", &play);
        let thief = Thief::start(stage.notes.path(), NOBODY, websockify.relocated_port(), 0);
        for _ in 0..RESTARTS / 3 {
            session(port);
        }
        assert_got_nothing(&thief.stop(), bind);
        assert_eq!(websockify.stop(), 0);
    }
}

/// Where websockify may not change the owner of a socket, the log says so.
#[test]
fn f1_a_program_that_changes_user_is_named_where_it_cannot_have_the_port() {
    if !needs_root() {
        return;
    }
    let port = free_port();
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set", "-chown", "--inh-caps", "-chown", WEBSOCKIFY]);
    command.arg(port.to_string());
    command.args(engine().map(|engine| format!("--rebind-engine={engine}")));
    command.arg("--").arg(Actor.to_string());
    command.args(["nobody", "bind", &port.to_string(), "listen", "serve"]);
    let mut websockify = Websockify::launch(&mut command);
    websockify.wait_for_log(&["WARN", "cannot give the relocated port to process"]);
    assert_eq!(websockify.wait(), 99, "bind: address already in use");
}

/// Who logs in through a program is one of its processes. Where the program has had a socket of its own, as root, he does
/// not get its port when it has closed that socket, and so no clients; nor of a new binary that takes over meanwhile.
#[test]
fn f1_who_logs_in_through_the_program_does_not_get_its_port() {
    if !needs_root() {
        return;
    }
    let engines =
        engine().map_or_else(|| vec!["preload".into(), "seccomp".into()], |one| vec![one]);
    for engine in engines {
        if engine == "seccomp" && !can_copy_sockets() {
            continue;
        }
        for hands_over in [false, true] {
            let port = free_port();
            let login = format!("close-listener nobody bind {port} listen sleep");
            let play = format!("bind {port} listen accept greet read-line {login}");
            let line = format!("{port} --rebind-engine={engine} -- {Actor} {play}");
            let mut websockify = Websockify::start(&line);
            let mut client = Client::connect_once_open(port);
            client.read_line();
            if hands_over {
                websockify.signal(Signal::SIGUSR2);
                websockify.wait_for_log(&["taken over: 1 session"]);
            }
            client.send("root\n");
            assert_eq!(websockify.wait(), 99, "{engine} {hands_over}");
            websockify.assert_logged(&["bind: Address already in use"], 1);
        }
    }
}
