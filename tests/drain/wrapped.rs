//! A drain of the sessions of a wrapped program, in every mode (O1).

use std::net::Ipv4Addr;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::{LONG, MOMENT, assert_echoes, drain, end_of_drain};
use crate::support::{
    Actor, Client, Process, Websockify, free_port, is_refused, stays, wait_for, wait_until,
};
use crate::wrap::Notes;

const MODES: [&str; 3] = ["exit", "ignore", "respawn"];

fn wrap(port: u16, options: &str, acts: &str) -> Websockify {
    Websockify::start(&format!("{port} {options} -- {Actor} {acts}"))
}

/// A client that the program has greeted, and the number of the process that did it.
fn greeted(port: u16) -> (Client, i32) {
    let mut client = Client::connect_once_open(port);
    let pid = client.read_line().parse().unwrap();
    (client, pid)
}

#[test]
fn o1_the_program_goes_on_with_its_sessions_and_is_ended_after_them() {
    for mode in MODES {
        let port = free_port();
        let mut websockify =
            wrap(port, &format!("{LONG} --wrap-mode={mode}"), &format!("bind {port} listen serve"));
        let (mut client, _) = greeted(port);
        let leader = websockify.leader();
        let said = drain(&websockify, port);
        assert!(said.contains("1 session goes on for 1000 s"), "{said}");
        assert_echoes(&mut client);
        stays(MOMENT, mode, || leader.is_alive() && websockify.is_running());
        assert_echoes(&mut client);
        assert_eq!(client.close().code, 1000);
        assert_eq!(websockify.wait(), 0, "{mode}");
        assert_eq!(websockify.remnants(), []);
        assert_eq!(end_of_drain(&websockify), "1 session has ended by itself, 0 closed");
        websockify.assert_logged(&["program started"], 1);
    }
}

/// O1, W9: when the time is over, sessions and program are ended as without a drain.
#[test]
fn o1_when_the_time_is_over_sessions_and_program_are_ended() {
    for mode in MODES {
        let port = free_port();
        let options = format!("--drain-timeout=3 --stop-timeout=0.5 --wrap-mode={mode}");
        let acts = format!("stubborn-helper bind {port} listen serve");
        let mut websockify = wrap(port, &options, &acts);
        let (mut client, _) = greeted(port);
        drain(&websockify, port);
        assert_echoes(&mut client);
        assert_eq!(client.closing().code, 1001, "{mode}");
        assert_eq!(websockify.wait(), 0, "{mode}");
        assert_eq!(websockify.remnants(), []);
        assert_eq!(end_of_drain(&websockify), "0 sessions have ended by themselves, 1 closed");
    }
}

#[test]
fn o1_a_second_signal_ends_program_and_sessions_at_once() {
    for mode in MODES {
        let port = free_port();
        let options = format!("{LONG} --wrap-mode={mode}");
        let mut websockify = wrap(port, &options, &format!("bind {port} listen serve"));
        let (mut client, _) = greeted(port);
        drain(&websockify, port);
        assert_echoes(&mut client);
        websockify.signal(Signal::SIGINT);
        assert_eq!(client.closing().code, 1001, "{mode}");
        assert_eq!(websockify.wait(), 0, "{mode}");
        assert_eq!(websockify.remnants(), []);
    }
}

/// O1, W4: a program that serves one connection an instance, as `telnetd -debug` does: clients that wait for the next
/// instance would wait in vain, and are told to come again. No instance is started for them.
#[test]
fn o1_held_clients_are_told_to_come_again_and_no_instance_is_started() {
    let port = free_port();
    let acts = format!("bind {port} listen accept close-listener greet echo exit 1");
    let mut websockify = wrap(port, &format!("{LONG} --wrap-mode=respawn"), &acts);
    let (mut client, _) = greeted(port);
    let held = [Client::connect(port), Client::connect(port)];
    wait_until("two sessions more", || websockify.logged(&["session started"]).len() == 3);
    let said = drain(&websockify, port);
    let told = "1 session goes on for 1000 s; 2 that wait for the program are told to come again";
    assert!(said.contains(told), "{said}");
    for client in held {
        let closing = client.closing();
        assert_eq!((closing.code, &*closing.reason), (1012, "service restart"));
    }
    assert_echoes(&mut client);
    assert_eq!(client.close().code, 1000);
    assert_eq!(websockify.wait(), 0);
    websockify.assert_logged(&["program started"], 1);
    assert_eq!(end_of_drain(&websockify), "1 session has ended by itself, 0 closed");
}

/// O1, W6: when the program ends in the drain its sessions end with it, and the drain is over.
#[test]
fn o1_a_program_that_ends_in_the_drain_ends_it() {
    for mode in MODES {
        let port = free_port();
        let options = format!("{LONG} --wrap-mode={mode}");
        let mut websockify =
            wrap(port, &options, &format!("bind {port} listen accept greet echo exit 3"));
        let (mut client, _) = greeted(port);
        let leader = websockify.leader();
        drain(&websockify, port);
        assert_echoes(&mut client);
        leader.signal(Signal::SIGKILL);
        client.closing();
        assert_eq!(websockify.wait(), 0, "{mode}: it was us whom somebody ended");
        websockify.assert_logged(&["program started"], 1);
    }
}

/// O1: sessions that have processes of their own outlive the process that listened.
#[test]
fn o1_sessions_go_on_without_the_process_that_listened() {
    for mode in MODES {
        let port = free_port();
        let options = format!("{LONG} --wrap-mode={mode}");
        let mut websockify = wrap(port, &options, &format!("bind {port} listen serve"));
        let (mut client, _) = greeted(port);
        let leader = websockify.leader();
        drain(&websockify, port);
        leader.signal(Signal::SIGKILL);
        websockify.wait_for_log(&["first process has ended"]);
        stays(MOMENT, mode, || websockify.is_running());
        assert_echoes(&mut client);
        assert_eq!(client.close().code, 1000);
        assert_eq!(websockify.wait(), 0, "{mode}");
        assert_eq!(websockify.remnants(), []);
    }
}

/// O1, W9: the daemon is left running, whether it has daemonized before the drain or in it.
#[test]
fn o1_under_ignore_a_daemon_outlives_the_drain() {
    for before in [true, false] {
        let (port, notes) = (free_port(), Notes::new());
        let go = notes.note("go");
        let acts = format!("bind {port} listen fork-exit 0 serve");
        let late = format!("bind {port} listen accept greet await {go} fork-exit 0 echo sleep");
        let options = format!("{LONG} --wrap-mode=ignore");
        let mut websockify = wrap(port, &options, if before { &acts } else { &late });
        let (mut client, _) = greeted(port);
        if before {
            websockify.wait_for_log(&["program has daemonized"]);
        }
        drain(&websockify, port);
        if !before {
            std::fs::write(&go, "").unwrap();
            websockify.wait_for_log(&["program has daemonized"]);
        }
        assert_echoes(&mut client);
        assert_eq!(client.close().code, 1000);
        assert_eq!(websockify.wait(), 0);
        websockify.wait_for_log(&["left running"]);
        let left: Vec<_> = websockify.remnants();
        assert!(!left.is_empty());
        for process in &left {
            process.signal(Signal::SIGKILL);
        }
    }
}

/// O1: a program that has not listened has no session to wait for.
#[test]
fn o1_a_program_that_has_not_listened_is_ended_at_once() {
    for mode in MODES {
        let port = free_port();
        let mut websockify = wrap(port, &format!("{LONG} --wrap-mode={mode}"), "sleep");
        websockify.leader();
        assert_eq!(websockify.stop(), 0, "{mode}");
        assert_eq!(websockify.remnants(), []);
        assert_eq!(websockify.logged(&["INFO draining"]), Vec::<String>::new());
    }
}

/// O1: a process of an earlier instance may still serve a session.
#[test]
fn o1_sessions_of_an_instance_before_are_drained_with_the_others() {
    let port = free_port();
    let acts = format!("bind {port} listen serve");
    let mut websockify = wrap(port, &format!("{LONG} --wrap-mode=respawn"), &acts);
    let (mut client, server) = greeted(port);
    let server = Process::find(server).unwrap();
    websockify.leader().signal(Signal::SIGKILL);
    websockify.nth_start(2);
    drain(&websockify, port);
    assert_echoes(&mut client);
    assert!(server.is_alive());
    assert_eq!(client.close().code, 1000);
    assert_eq!(websockify.wait(), 0);
    assert_eq!(websockify.remnants(), []);
    websockify.assert_logged(&["program started"], 2);
}

/// O1: a program that fails too fast is not started again in a drain, and held clients are told at once.
#[test]
fn o1_a_program_that_fails_is_not_tried_again() {
    let port = free_port();
    // The first instance has a process for each client; those that follow end at once with 5.
    let notes = Notes::new();
    let flag = notes.note("flag");
    let script =
        format!("test -e {flag} && exit 5; touch {flag}; exec {Actor} bind {port} listen serve");
    let arguments = format!("{port} {LONG} --wrap-mode=respawn --");
    let mut websockify = Websockify::start_with(&arguments, |command| {
        command.args(["sh", "-c", &script]);
    });
    let (mut client, _) = greeted(port);
    websockify.leader().signal(Signal::SIGKILL);
    websockify.nth_start(2);
    let held = Client::connect(port);
    wait_for("a program that fails too fast", || {
        websockify.logged(&["respawning too fast"]).into_iter().nth(2)
    });
    drain(&websockify, port);
    assert_eq!(held.closing().code, 1012);
    // Without a drain, the next instance would be started within two seconds.
    let starts = || websockify.logged(&["program started"]).len();
    let before = starts();
    stays(Duration::from_secs(4), "no further instance", || starts() == before);
    assert_echoes(&mut client);
    assert_eq!(client.close().code, 1000);
    assert_eq!(websockify.wait(), 0);
    assert!(is_refused(Ipv4Addr::LOCALHOST, port));
}
