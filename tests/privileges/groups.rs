//! A process of the program that enters a process group of others (setpgid(2)): it still belongs to the program, and the
//! other processes of that group do not.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use super::apart::{BOTH, launcher, place};
use super::{Place, assert_stops};
use crate::support::{Process, Websockify, free_port, needs, needs_root, wait_for};

/// Ignores SIGTERM, enters the group that it is told, and writes its PID into a file.
const ENTER: &str = r"
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
def enter(group, note):
    os.setpgid(0, group)
    with open(note + '.new', 'w') as file: file.write(str(os.getpid()))
    os.rename(note + '.new', note)
    time.sleep(1000)
";

/// A process of root's, in the same session (setsid(2)) as websockify.
struct Sleeper(Child);

impl Sleeper {
    fn start() -> Self {
        Self(Command::new("sleep").arg("1000").process_group(0).spawn().unwrap())
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(options: &str, script: &str) -> Websockify {
    let line = format!("{} {options} --stop-timeout=0.2", free_port());
    Websockify::start_with(&line, |command| {
        command.args(["--", "python3", "-c", &format!("{ENTER}{script}")]);
    })
}

fn noted(place: &Place, note: &str) -> Process {
    let pid = wait_for("the note", || fs::read_to_string(place.at(note)).ok());
    Process::find(pid.parse().unwrap()).unwrap()
}

/// websockify is root here and may kill any process, so it kills single processes and not the group.
#[test]
fn w16_a_group_that_the_program_has_entered_is_not_killed() {
    if !needs_root() || !needs(&["python3"]) {
        return;
    }
    let (place, mut sleeper) = (place(), Sleeper::start());
    let (group, note) = (sleeper.0.id(), place.named("note"));
    let websockify = start(
        "--program-user=www-data --rebind-engine=preload",
        &format!("enter({group}, '{note}')"),
    );
    let program = noted(&place, "note");
    assert_eq!(program.stat().pgrp, i32::try_from(group).unwrap());
    assert_stops(websockify);
    assert!(!program.is_alive());
    assert_eq!(sleeper.0.try_wait().unwrap(), None, "it has ended with the program");
}

/// The launcher runs as the program's user, but is no process of the program.
#[test]
fn w16_who_enters_the_launchers_group_is_still_the_programs() {
    if !needs_root() || !needs(&["python3"]) {
        return;
    }
    let place = place();
    let note = place.named("note");
    let script = format!(
        "
us = os.getppid()
def is_launcher(pid):
    try: words = open('/proc/' + pid + '/stat').read().split()
    except OSError: return False
    return words[1] == '(launcher)' and words[3] == str(us)
group = next(int(pid) for pid in os.listdir('/proc') if pid.isdigit() and is_launcher(pid))
if os.fork() == 0: enter(group, '{note}')
while not os.path.exists('{note}'): time.sleep(0.01)
os._exit(7)
"
    );
    let mut websockify = start(BOTH, &script);
    let group = launcher(&websockify).pid;
    let program = noted(&place, "note");
    // The instance ends with its leader.
    assert_eq!(websockify.wait(), 7, "{:?}", websockify.err.lines());
    assert_ne!(program.pid, group);
    assert!(!program.is_alive(), "it was left behind");
}
