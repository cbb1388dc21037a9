//! Process groups and sessions (setsid(2)): evidence to which instance a process belongs, beside parents and listeners
//! (W15).

use nix::sys::signal::Signal;

use super::Notes;
use crate::support::{
    Actor, Client, Process, Websockify, free_port, wait_for, wait_until, write_script,
};

/// An orphan of which nothing but the session is known belongs to the same instance as the session.
#[test]
fn w15_an_orphan_in_a_session_of_an_earlier_instance_is_none_of_the_next() {
    let notes = Notes::new();
    let (port, script, go) = (free_port(), notes.note("script"), notes.note("go"));
    let begun = notes.note("begun");
    write_script(
        &script,
        &format!(
            "#!/bin/sh\n[ -e {begun} ] || {{ : >{begun}; {Actor} session-helper {go} & }}\n\
             exec {Actor} bind {port} listen accept greet echo exit 0\n"
        ),
    );
    let websockify = Websockify::start(&format!("{port} --wrap-mode=respawn -- {script}"));
    let mut client = Client::connect_once_open(port);
    client.read_line();
    let ours = Process::find(websockify.pid()).unwrap().stat().session;
    let session = wait_for("the helper's session", || {
        let tree = websockify.tree();
        let mut stats = tree.iter().filter_map(Process::stat_if_there);
        stats.find(|stat| stat.session != ours).map(|stat| stat.session)
    });
    client.close();
    let second = websockify.nth_leader(2);
    notes.give("go");
    wait_until("the orphan", || {
        let tree = websockify.tree();
        let mut stats = tree.iter().filter_map(Process::stat_if_there);
        stats.any(|stat| {
            (stat.session, stat.ppid) == (session, websockify.pid())
                && stat.pgrp == stat.pid
                && stat.pid != session
        })
    });
    // If the orphan were the second instance's, it would be waited for until it listens.
    second.signal(Signal::SIGKILL);
    websockify.nth_start(3);
    websockify.assert_logged(&["it has left"], 1);
}

/// A process that has daemonized, or is left, is named with its session.
#[test]
fn w15_the_log_says_which_session_a_daemon_is_in() {
    for way in ["setsid bind {port} listen serve", "bind {port} listen serve"] {
        let port = free_port();
        let play = way.replace("{port}", &port.to_string());
        let line = format!("{port} --wrap-mode=ignore -- {Actor} fork-exit 0 {play}");
        let mut websockify = Websockify::start(&line);
        Client::connect_once_open(port).read_line();
        let daemonized = websockify.wait_for_log(&["daemonized as "]);
        let (_, pid) = daemonized.split_once("daemonized as ").unwrap();
        let pid = pid.split(' ').next().unwrap().parse().unwrap();
        let daemon = Process::find(pid).unwrap();
        let stat = daemon.stat();
        let group = match stat.pgrp {
            group if group == stat.session => String::new(),
            group => format!(", group {group}"),
        };
        let expected = format!("{pid} (actor) in session {}{group}", stat.session);
        assert!(daemonized.ends_with(&expected), "{daemonized}");
        // The daemon may have been seen then before it had a session of its own.
        let left = format!("it has left {pid} (actor) in session ");
        websockify.wait_for_log(&["first process has ended", &left]);
        assert_eq!(websockify.stop(), 0);
        websockify.wait_for_log(&["left running: ", &expected]);
        daemon.signal(Signal::SIGKILL);
    }
}
