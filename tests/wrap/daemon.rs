//! Programs that go into the background, and others that must not be taken for such (W5, W6).

use std::net::Ipv4Addr;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::{Pid, getsid};

use super::Notes;
use crate::support::{
    Actor, Client, Process, WEBSOCKIFY, Websockify, engine, free_port, is_refused, wait_for,
    wait_until, who_listens,
};

/// Ways into the background: before and after listening; by one fork; by two, without descriptors,
/// environment and root's rights.
fn ways(port: u16) -> [String; 4] {
    let deep = "fork-exit 0 setsid fork-exit 0 close-all nobody clear-environment";
    [
        format!("fork-exit 0 bind {port} listen serve"),
        format!("bind {port} listen fork-exit 0 serve"),
        format!("{deep} bind {port} listen serve"),
        format!("bind {port} listen {deep} serve"),
    ]
}

/// The daemon that the log names. A process that was only on the way to that, the leader of the new session (setsid(2)),
/// may have been named before it.
fn daemon(websockify: &Websockify) -> Process {
    let is_on_its_way = |process: &Process| {
        let pid = Pid::from_raw(process.pid);
        getsid(Some(pid)) == Ok(pid)
    };
    let daemon = wait_for("a living daemon in the log", || {
        let named = websockify.logged(&["program ", " as "]);
        let (_, daemons) = named.last()?.split_once(" as ")?;
        let pids = daemons.split(", ").filter_map(|daemon| daemon.split(' ').next()?.parse().ok());
        pids.filter_map(Process::find).find(|process| !is_on_its_way(process))
    });
    websockify.tree();
    daemon
}

#[test]
fn w6_exit_says_so_stops_the_daemon_and_ends_with_0() {
    let port = free_port();
    for way in ways(port) {
        let output = Websockify::start(&format!("{port} -- {Actor} {way}")).output();
        assert_eq!(output.status, 0, "{way}");
        let said = output.err.iter().filter(|line| line.contains("daemonized")).collect::<Vec<_>>();
        assert_eq!(said.len(), 1, "{way}: {:?}", output.err);
        assert!(said[0].contains("--wrap-mode=ignore") && said[0].contains("(actor)"), "{said:?}");
        assert!(is_refused(Ipv4Addr::LOCALHOST, port));
    }
}

#[test]
fn w6_ignore_bridges_to_the_daemon_and_leaves_it_running() {
    let port = free_port();
    for way in ways(port) {
        let notes = Notes::new();
        let arguments = format!("{port} --wrap-mode=ignore -- {Actor} {way}");
        let mut websockify = Websockify::start_with(&arguments, |command| {
            command.env("TMPDIR", notes.path());
        });
        let mut client = Client::connect_once_open(port);
        client.read_line();
        let daemon = daemon(&websockify);
        client.send("hello");
        assert_eq!(client.read(5), b"hello");
        assert_eq!(websockify.stop(), 0);
        assert_eq!(client.closing().code, 1001);
        let said = websockify.wait_for_log(&["left running"]);
        assert!(said.contains(&format!("{} (actor)", daemon.pid)), "{said}");
        assert!(daemon.is_alive(), "{way}");
        // The library that the daemon has loaded stays, for the programs that the daemon may start.
        let left = std::fs::read_dir(notes.path()).unwrap().count();
        assert_eq!(left, usize::from(engine().is_none()), "the directory of rebind.so");
        daemon.signal(Signal::SIGKILL);
    }
}

/// W9, B8: a limit that is reached leaves the daemon running as a signal does.
#[test]
fn w9_ignore_leaves_the_daemon_running_after_run_once() {
    let port = free_port();
    let [way, ..] = ways(port);
    let arguments = format!("{port} --run-once --wrap-mode=ignore -- {Actor} {way}");
    let mut websockify = Websockify::start(&arguments);
    let mut client = Client::connect_once_open(port);
    client.read_line();
    let daemon = daemon(&websockify);
    assert_eq!(client.close().code, 1000);
    assert_eq!(websockify.wait(), 0);
    websockify.wait_for_log(&["left running", &daemon.pid.to_string()]);
    assert!(daemon.is_alive());
}

#[test]
fn w6_ignore_tells_clients_at_once_that_the_daemon_has_ended() {
    let port = free_port();
    let [way, ..] = ways(port);
    let mut websockify = Websockify::start(&format!("{port} --wrap-mode=ignore -- {Actor} {way}"));
    Client::connect_once_open(port).read_line();
    daemon(&websockify).signal(Signal::SIGKILL);
    websockify.wait_for_log(&["sessions are refused"]);
    // At once: a held client would be held for longer than this client waits.
    let closing = Client::connect(port).closing();
    assert_eq!((closing.code, closing.reason.contains("ended")), (1011, true), "{closing:?}");
    assert_eq!(websockify.stop(), 0);
}

#[test]
fn w6_respawn_starts_a_daemon_again_when_it_has_ended() {
    let port = free_port();
    for way in ways(port) {
        let mut websockify =
            Websockify::start(&format!("{port} --wrap-mode=respawn -- {Actor} {way}"));
        let mut client = Client::connect_once_open(port);
        client.read_line();
        let first = daemon(&websockify);
        first.signal(Signal::SIGKILL);
        websockify.nth_start(2);
        let delays = websockify.logged(&["respawning too fast"]);
        assert_eq!(delays, Vec::<String>::new(), "{way}: at once, it has served a session");
        Client::connect(port).read_line();
        assert_eq!(websockify.stop(), 0, "{way}");
        assert_eq!(websockify.remnants(), [], "{way}");
    }
}

/// W6: a daemonized program counts as running, and still does when several delays have passed.
#[test]
fn w6_respawn_has_exactly_one_daemon() {
    const LONG: Duration = Duration::from_secs(25);
    let port = free_port();
    let [way, ..] = ways(port);
    let websockify = Websockify::start(&format!("{port} --wrap-mode=respawn -- {Actor} {way}"));
    let daemon = daemon(&websockify);
    // A second one would come with the first delay, after 0.1 s.
    websockify.assert_one_instance_for(LONG);
    assert_eq!(websockify.tree(), [daemon]);
}

/// W5: the leader ends with 1 after a good telnet session; so may the leader of a daemon.
#[test]
fn w5_a_leaders_status_is_no_verdict() {
    let port = free_port();
    let arguments =
        format!("{port} --wrap-mode=ignore -- {Actor} bind {port} listen fork-exit 1 serve");
    let websockify = Websockify::start(&arguments);
    Client::connect_once_open(port).read_line();
    assert!(daemon(&websockify).is_alive());
}

#[test]
fn w5_who_left_somebody_has_until_the_wrap_timeout_to_listen() {
    let notes = Notes::new();
    let port = free_port();
    let gate = notes.note("gate");
    let websockify = Websockify::start(&format!(
        "{port} --wrap-mode=ignore -- {Actor} fork-exit 0 await {gate} bind {port} listen serve"
    ));
    websockify.wait_for_log(&["first process has ended"]);
    assert!(is_refused(Ipv4Addr::LOCALHOST, port));
    notes.give("gate");
    Client::connect_once_open(port).read_line();
    daemon(&websockify);
}

#[test]
fn w5_who_does_not_listen_by_then_has_exited() {
    let port = free_port();
    let began = Instant::now();
    for mode in ["exit", "ignore"] {
        let output = Websockify::start(&format!(
            "{port} --wrap-mode={mode} --wrap-timeout=1 -- {Actor} fork-exit 0 sleep"
        ))
        .output();
        assert_eq!(output.status, 0, "{mode}");
        assert!(!output.err.iter().any(|line| line.contains("daemonized")), "{:?}", output.err);
    }
    assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
}

/// W5: if the leader fails before a process listened, the program has failed, whatever processes are left.
#[test]
fn w5_who_fails_before_listening_is_not_waited_for() {
    let port = free_port();
    let output = Websockify::start(&format!("{port} -- {Actor} helper fork-exit 3 sleep")).output();
    assert_eq!(output.status, 3);
}

/// W5: preforked servers: the daemon ends with the last process that has the listener.
#[test]
fn w5_a_daemon_ends_with_the_last_of_those_that_listen() {
    let port = free_port();
    let websockify = Websockify::start(&format!(
        "{port} --wrap-mode=respawn -- {Actor} bind {port} helper fork-exit 0 twin listen serve"
    ));
    daemon(&websockify);
    let holders = || who_listens(websockify.tree());
    wait_until("two listening processes", || holders().len() == 2);
    let holders = holders();
    holders[0].signal(Signal::SIGKILL);
    // A respawn would follow at once, or after 0.1 s.
    websockify.assert_one_instance_for(Duration::from_millis(700));
    Client::connect(port).read_line();
    holders[1].signal(Signal::SIGKILL);
    websockify.nth_start(2);
}

/// W5: a helper that was being started when the daemon was first seen is no part of it.
#[test]
fn w5_a_daemon_does_not_live_on_in_a_helper_that_had_its_listener_for_a_moment() {
    let port = free_port();
    let websockify = Websockify::start(&format!(
        "{port} --wrap-mode=respawn -- {Actor} bind {port} listen slow-helper fork-exit 0 serve"
    ));
    daemon(&websockify);
    let holders = || who_listens(websockify.tree());
    wait_until("one listening process", || holders().len() == 1);
    Client::connect_once_open(port).read_line();
    // For as long as websockify looks at the processes again after it has seen a daemon.
    websockify.assert_one_instance_for(Duration::from_secs(2));
    holders()[0].signal(Signal::SIGKILL);
    websockify.nth_start(2);
}

/// W5: the process that listens is another one at each look, until the daemon has stopped forking.
#[test]
fn w5_a_daemon_that_is_still_forking_is_recognized() {
    for _ in 0..10 {
        let port = free_port();
        let mut websockify = Websockify::start(&format!(
            "{port} --wrap-mode=respawn -- {Actor} bind {port} listen fork-exit 0 hops 50 serve"
        ));
        Client::connect_once_open(port).read_line();
        websockify.wait_for_log(&["has daemonized"]);
        websockify.assert_logged(&["program started"], 1);
        assert_eq!(websockify.stop(), 0);
    }
}

/// W5: preforked servers replace their processes; the one that listened first need not stay.
#[test]
fn w5_an_instance_goes_on_while_one_of_its_processes_listens() {
    let notes = Notes::new();
    let port = free_port();
    let websockify = Websockify::start(&format!(
        "{port} --wrap-mode=respawn -- \
         {Actor} bind {port} listen fork-exit 0 await {} fork-exit 0 serve",
        notes.note("gate")
    ));
    let first = daemon(&websockify);
    notes.give("gate");
    wait_until("the end of the first daemon", || !first.is_alive());
    // Another instance would come at once, or after 0.1 s.
    websockify.assert_one_instance_for(Duration::from_millis(700));
    Client::connect(port).read_line();
    websockify.tree().iter().for_each(|process| process.signal(Signal::SIGKILL));
    websockify.nth_start(2);
}

/// W5: processes that a session leaves behind are not waited for, not touched before the end, and stopped then.
#[test]
fn w5_leftovers_are_not_waited_for_and_stopped_at_the_end() {
    let port = free_port();
    let mut websockify = Websockify::start(&format!(
        "{port} --wrap-mode=respawn -- \
         {Actor} bind {port} listen accept close-listener helper greet echo exit 0"
    ));
    websockify.wait_until_open();
    for _ in 0..3 {
        let mut client = Client::connect(port);
        client.read_line();
        assert_eq!(client.close().code, 1000);
    }
    websockify.nth_leader(4);
    let names = websockify.tree().into_iter().filter(|process| process.name == "actor").count();
    assert!(names >= 4, "three leftovers and a leader: {names}");
    assert!(websockify.logged(&["daemonized"]).is_empty());
    assert_eq!(websockify.stop(), 0);
    assert_eq!(websockify.remnants(), []);
}

/// W5: an instance that leaves no process is over at once, whatever processes the instance before has left.
#[test]
fn w5_leftovers_do_not_count_for_later_instances() {
    let notes = Notes::new();
    let port = free_port();
    let program = format!(
        "if mkdir {first}; then exec {Actor} bind {port} listen accept close-listener helper; fi; \
         if mkdir {second}; then exit 0; fi; exec {Actor} note {third} sleep",
        first = notes.note("first"),
        second = notes.note("second"),
        third = notes.note("third"),
    );
    let websockify = Websockify::start_with(&format!("{port} --wrap-mode=respawn --"), |command| {
        command.args(["sh", "-c", &program]);
    });
    websockify.wait_until_open();
    Client::connect(port).closing();
    // If the second instance were waited for, that would take the wrap timeout, which is longer than this test waits.
    notes.wait_for("third");
}

/// W5, W9: after `helper & exec websockify`, websockify has a child that is not the program's.
#[test]
fn w5_children_that_we_were_born_with_are_never_counted_or_stopped() {
    let notes = Notes::new();
    let port = free_port();
    // This child listens too, on a port of its own.
    let other = free_port();
    let script = format!(
        "{Actor} bind {other} listen note {note} serve & exec {WEBSOCKIFY} {port} \
         --wrap-mode=respawn -- {Actor} bind {port} listen fork-exit 0 serve",
        note = notes.note("stranger"),
    );
    let mut websockify = Websockify::launch(Command::new("sh").args(["-c", &script]));
    Client::connect_once_open(port).read_line();
    notes.wait_for("stranger");
    let stranger = notes.lines("stranger")[0].parse().unwrap();
    let stranger = Process::find(stranger).unwrap();
    assert_eq!(stranger.stat().ppid, websockify.pid());
    let daemon = daemon(&websockify);
    daemon.signal(Signal::SIGKILL);
    websockify.nth_start(2);
    Client::connect(port).read_line();
    assert_eq!(websockify.stop(), 0);
    assert!(stranger.is_alive());
    let others: Vec<_> = websockify.remnants();
    assert_eq!(others, [stranger]);
}

/// W5: the process that listens is killed while a helper of its instance lives on.
#[test]
fn f66_w5_being_alive_is_not_enough() {
    let port = free_port();
    let websockify = Websockify::start(&format!(
        "{port} --wrap-mode=respawn -- {Actor} helper fork-exit 0 bind {port} listen serve"
    ));
    Client::connect_once_open(port).read_line();
    let daemon = daemon(&websockify);
    // The process that served the client ends after the client is gone.
    wait_until("the daemon and its helper alone", || websockify.tree().len() == 2);
    daemon.signal(Signal::SIGKILL);
    assert_ne!(websockify.nth_start(2), daemon.pid);
}
