//! A /proc that hides other users' processes (F4), as with `hidepid=2` and systemd's `ProtectProc=invisible`, and a
//! websockify that an ordinary user runs.

use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::{
    Actor, Client, WEBSOCKIFY, Websockify, copy_program, free_port, needs, needs_root,
    skip_even_in_ci, wait_for, wait_until, who_listens,
};
use crate::wrap::Notes;

/// The user who runs websockify.
const NOBODY: &str = "65534";
/// The user that the program becomes.
const OTHER: &str = "2";

/// A directory with copies of the programs, which every user can reach.
struct Stage {
    notes: Notes,
    actor: String,
    port: u16,
}

impl Stage {
    /// `None` where this cannot be set up; the test is then reported as skipped. In continuous integration it is a failure
    /// if a program is not installed, and no failure without root, or where the kernel or a container forbids it.
    fn new() -> Option<Self> {
        if !needs_root() || !needs(&["unshare", "setpriv", "mount"]) {
            return None;
        }
        let mut mount = Command::new("unshare");
        mount.args(["-m", "mount", "-t", "proc", "-o", "hidepid=2", "proc", "/proc"]);
        if !mount.status().unwrap().success() {
            skip_even_in_ci("no /proc of our own here");
            return None;
        }
        let notes = Notes::new();
        let actor = notes.note("actor");
        copy_program(Actor, &actor);
        copy_program(WEBSOCKIFY, notes.note("websockify"));
        Some(Self { notes, actor, port: free_port() })
    }

    /// Starts websockify as the user nobody, with these capabilities; `program` is the command line to wrap.
    fn start(&self, capabilities: &str, mode: &str, program: &[&str]) -> Websockify {
        self.start_after("true", capabilities, mode, program)
    }

    /// The same after these words of a shell, in the directory of this stage, for a mount namespace of its own.
    fn start_after(
        &self,
        words: &str,
        capabilities: &str,
        mode: &str,
        program: &[&str],
    ) -> Websockify {
        let script = format!("{words} && mount -t proc -o hidepid=2 proc /proc && exec \"$@\"");
        let directory = self.notes.note("");
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", &script, &directory, "setpriv", "--reuid", NOBODY]);
        command.args(["--regid", NOBODY, "--clear-groups", "--bounding-set"]);
        command.arg(format!("-all{capabilities}"));
        command.args(["--inh-caps", &format!("-all{capabilities}")]);
        command.args(["--ambient-caps", &format!("-all{capabilities}")]);
        command.arg(self.notes.note("websockify")).arg(self.port.to_string());
        command.args([&format!("--wrap-mode={mode}"), "--stop-timeout=1", "--"]).args(program);
        Websockify::launch(command.current_dir("/"))
    }

    /// The actor's command line with these arguments.
    fn actor<'a>(&'a self, words: &'a str) -> Vec<&'a str> {
        [self.actor.as_str()].into_iter().chain(words.split(' ')).collect()
    }

    fn echoes(&self) {
        let mut client = Client::connect_once_open(self.port);
        client.read_line();
        client.send("hello");
        assert_eq!(client.read(5), b"hello");
    }
}

fn assert_said_once(websockify: &Websockify) {
    websockify.wait_for_log(&["/proc hides processes"]);
    let said = websockify.logged(&["/proc hides processes"]);
    assert_eq!(said.len(), 1, "{said:?}");
}

/// F4, X2: whether the program hides before it listens or afterwards.
#[test]
fn f4_a_hidden_program_is_bridged_to_and_stopped() {
    let Some(stage) = Stage::new() else { return };
    let port = stage.port;
    for mode in ["exit", "ignore", "respawn"] {
        for way in [
            format!("undumpable bind {port} listen serve"),
            format!("bind {port} listen undumpable serve"),
        ] {
            let mut websockify = stage.start("", mode, &stage.actor(&way));
            stage.echoes();
            websockify.assert_one_instance_for(Duration::from_millis(300));
            assert_eq!(websockify.stop(), 0, "{mode}: {way}");
            assert_said_once(&websockify);
            assert_eq!(websockify.remnants(), [], "{mode}: {way}");
        }
    }
}

/// F4: a hidden process below a shell that can be seen.
#[test]
fn f4_a_hidden_child_of_a_shell_is_bridged_to_and_stopped() {
    let Some(stage) = Stage::new() else { return };
    let script = format!("{} undumpable bind {} listen serve; exit 3", stage.actor, stage.port);
    let mut websockify = stage.start("", "respawn", &["sh", "-c", &script]);
    stage.echoes();
    assert_said_once(&websockify);
    assert_eq!(websockify.stop(), 0);
    assert_eq!(websockify.remnants(), []);
}

/// F4: the same beside a mount of somebody else at a path that is not UTF-8.
#[test]
fn f4_a_hidden_child_is_bridged_to_whatever_the_paths_of_other_mounts_are() {
    let Some(stage) = Stage::new() else { return };
    let mount = r#"there="$0$(printf '\377')" && mkdir "$there" && mount -t tmpfs tmpfs "$there""#;
    let script = format!("{} undumpable bind {} listen serve; exit 3", stage.actor, stage.port);
    let mut websockify = stage.start_after(mount, "", "respawn", &["sh", "-c", &script]);
    stage.echoes();
    assert_eq!(websockify.stop(), 0);
    assert_eq!(websockify.remnants(), []);
}

/// F4, W6: there is exactly one daemon, and the next one is started when it has ended.
#[test]
fn f4_a_hidden_daemon_counts_as_running() {
    let Some(stage) = Stage::new() else { return };
    let way = format!("fork-exit 0 setsid undumpable bind {} listen serve", stage.port);
    let mut websockify = stage.start("", "respawn", &stage.actor(&way));
    stage.echoes();
    websockify.wait_for_log(&["has daemonized"]);
    // If the daemon were not seen, a second one would be started after 0.1 s.
    websockify.assert_one_instance_for(Duration::from_secs(1));
    let [daemon] = &who_listens(websockify.tree())[..] else { panic!("one process listens") };
    daemon.signal(Signal::SIGKILL);
    websockify.nth_start(2);
    wait_for("the next daemon", || who_listens(websockify.tree()).pop());
    stage.echoes();
    assert_eq!(websockify.stop(), 0);
    assert_eq!(websockify.remnants(), []);
    assert_said_once(&websockify);
}

/// F4, W6: a hidden process that a session leaves behind is a leftover, and does not belong to the next instance.
#[test]
fn f4_a_hidden_leftover_is_not_waited_for_and_stopped_at_the_end() {
    let Some(stage) = Stage::new() else { return };
    let way = format!(
        "undumpable bind {} listen accept close-listener helper greet echo exit 0",
        stage.port
    );
    let mut websockify = stage.start("", "respawn", &stage.actor(&way));
    for _ in 0..3 {
        let mut client = Client::connect_once_open(stage.port);
        client.read_line();
        assert_eq!(client.close().code, 1000);
    }
    websockify.nth_leader(4);
    wait_until("three leftovers and a leader", || websockify.tree().len() == 4);
    assert!(websockify.logged(&["daemonized"]).is_empty());
    assert_eq!(websockify.stop(), 0);
    assert_eq!(websockify.remnants(), []);
}

/// F4, W9: a program that has changed its user is bridged to, and websockify may not end it: it says so, and does not
/// believe that the program is gone.
#[test]
fn f4_a_program_that_has_become_another_user_is_named_and_the_status_is_1() {
    let Some(stage) = Stage::new() else { return };
    for way in ["", "fork-exit 0 "] {
        let way = format!("bind {} listen become {OTHER} {way}serve", stage.port);
        let mut websockify = stage.start(",+setuid", "respawn", &stage.actor(&way));
        stage.echoes();
        let program = wait_for("the program", || who_listens(websockify.tree()).pop());
        websockify.assert_one_instance_for(Duration::from_millis(500));
        assert_eq!(websockify.stop(), 1);
        assert_said_once(&websockify);
        assert!(program.is_alive());
        let named = format!("{} (", program.pid);
        websockify.wait_for_log(&["cannot send SIGTERM to", &named, "not permitted"]);
        websockify.wait_for_log(&["cannot end", &named]);
        program.signal(Signal::SIGKILL);
    }
}
