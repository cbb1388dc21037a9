//! Clients that come while the program is busy or away (W4).

use std::net::Ipv4Addr;
use std::thread;
use std::time::{Duration, Instant};

use super::Notes;
use crate::support::{Actor, Client, Lan, Websockify, field, free_port, is_refused, wait_until};

/// Serves one connection and ends with 1, as `telnetd -debug` does.
fn one_connection(port: u16, service: &str) -> String {
    format!(
        "{port} --wrap-mode=respawn -- \
         {Actor} bind {port} listen accept close-listener {service} exit 1"
    )
}

fn assert_distinct(mut pids: Vec<String>, clients: usize) {
    pids.sort();
    pids.dedup();
    assert_eq!(pids.len(), clients, "each session is another program's: {pids:?}");
}

#[test]
fn w4_ten_clients_one_after_the_other_are_ten_sessions() {
    let port = free_port();
    let websockify = Websockify::start(&one_connection(port, "greet echo"));
    websockify.wait_until_open();
    let pids = (0..10).map(|_| {
        let mut client = Client::connect(port);
        let pid = client.read_line();
        client.send("hello");
        assert_eq!(client.read(5), b"hello");
        assert_eq!(client.close().code, 1000);
        pid
    });
    assert_distinct(pids.collect(), 10);
    assert_eq!(websockify.logged(&["respawning too fast"]), Vec::<String>::new(), "W7");
}

#[test]
fn w4_ten_clients_together_are_ten_sessions() {
    let port = free_port();
    let websockify = Websockify::start(&one_connection(port, "greet echo"));
    websockify.wait_until_open();
    assert_distinct(together(10, port, |client, _| client.read_line()), 10);
}

/// W4: what a client sends before the program is there is kept for it, whichever instance that is.
#[test]
fn w4_ten_clients_together_that_speak_first_are_ten_sessions() {
    let port = free_port();
    let websockify = Websockify::start(&one_connection(port, "read-line greet echo"));
    websockify.wait_until_open();
    let pids = together(10, port, |client, number| {
        client.send(format!("hello\n{number}\n"));
        let pid = client.read_line();
        assert_eq!(client.read_line(), number.to_string());
        pid
    });
    assert_distinct(pids, 10);
}

/// W4: the program keeps its listener while it serves, so that the next clients wait in its backlog
/// and are reset at its end. A client that sends first may lose its session then: a connection that has waited in the
/// backlog for an eighth of a second is taken for accepted.
#[test]
fn w4_a_listener_that_stays_open_takes_no_session_with_it() {
    let port = free_port();
    let websockify = Websockify::start(&format!(
        "{port} --wrap-mode=respawn -- {Actor} bind {port} listen accept greet echo exit 1"
    ));
    websockify.wait_until_open();
    assert_distinct(together(5, port, |client, _| client.read_line()), 5);
}

/// W4: clients are let through to the program one by one, but it serves them side by side.
#[test]
fn w4_many_sessions_of_one_instance_run_beside_each_other() {
    let port = free_port();
    let websockify = Websockify::start(&format!(
        "{port} --wrap-mode=respawn -- {Actor} bind {port} listen serve"
    ));
    websockify.wait_until_open();
    let mut clients: Vec<_> = (0..30).map(|_| Client::connect(port)).collect();
    for client in &mut clients {
        client.read_line();
    }
    for client in clients {
        assert_eq!(client.close().code, 1000);
    }
    websockify.assert_logged(&["program started"], 1);
}

/// Runs sessions beside each other, each of which must end with 1000; gives what `act` found.
fn together(
    clients: usize,
    port: u16,
    act: impl Fn(&mut Client, usize) -> String + Sync,
) -> Vec<String> {
    thread::scope(|scope| {
        let sessions: Vec<_> = (0..clients)
            .map(|number| {
                let act = &act;
                scope.spawn(move || {
                    let mut client = Client::connect(port);
                    let found = act(&mut client, number);
                    client.send("again\n");
                    assert_eq!(client.read_line(), "again");
                    assert_eq!(client.close().code, 1000);
                    found
                })
            })
            .collect();
        sessions.into_iter().map(|session| session.join().unwrap()).collect()
    })
}

#[test]
fn w4_a_client_that_comes_during_the_restart_is_served_by_the_next_instance() {
    let notes = Notes::new();
    let port = free_port();
    // The first instance listens at once, the second one waits for its gate.
    let program = format!(
        "if mkdir {first}; then exec {Actor} bind {port} listen accept greet exit 1; fi; \
         exec {Actor} await {gate} bind {port} listen accept greet echo exit 1",
        first = notes.note("first"),
        gate = notes.note("gate"),
    );
    let mut websockify =
        Websockify::start_with(&format!("{port} --wrap-mode=respawn --"), |command| {
            command.args(["sh", "-c", &program]);
        });
    websockify.wait_until_open();
    assert_eq!(Client::connect(port).closing().code, 1000);
    let second = websockify.nth_leader(2);
    // The second instance does not listen yet, and the public port is open.
    let mut held = Client::connect(port);
    held.send("before");
    notes.give("gate");
    assert_eq!(held.read_line(), second.pid.to_string());
    assert_eq!(held.read(6), b"before");
    assert_eq!(websockify.stop(), 0);
    assert_eq!(held.closing().code, 1001);
}

#[test]
fn w4_a_client_is_held_no_longer_than_the_wrap_timeout() {
    let notes = Notes::new();
    let port = free_port();
    let program = format!(
        "if mkdir {first}; then exec {Actor} bind {port} listen accept greet exit 1; fi; \
         exec {Actor} sleep",
        first = notes.note("first"),
    );
    let arguments = format!("{port} --wrap-mode=respawn --wrap-timeout=1.5 --");
    let websockify = Websockify::start_with(&arguments, |command| {
        command.args(["sh", "-c", &program]);
    });
    websockify.wait_until_open();
    assert_eq!(Client::connect(port).closing().code, 1000);
    websockify.nth_leader(2);
    let began = Instant::now();
    let closing = Client::connect(port).closing();
    let held = began.elapsed();
    assert_eq!(closing.code, 1011);
    assert!(closing.reason.contains("listen") && closing.reason.contains("1.5"), "{closing:?}");
    assert!(held >= Duration::from_millis(1500), "{held:?}");
    assert!(!is_refused(Ipv4Addr::LOCALHOST, port));
}

/// W4: a held client that leaves makes room for the next, and costs no instance.
#[test]
fn w4_a_held_client_may_leave() {
    let port = free_port();
    let websockify = Websockify::start(&one_connection(port, "greet echo"));
    websockify.wait_until_open();
    let mut first = Client::connect(port);
    first.read_line();
    let leaves = Client::connect(port);
    let mut stays = Client::connect(port);
    assert_eq!(leaves.close().code, 1000);
    first.close();
    stays.read_line();
    stays.close();
    wait_until("two ends", || websockify.logged(&["first process has ended"]).len() == 2);
    for line in websockify.logged(&["first process has ended"]) {
        assert_eq!(field(&line, "status"), "1");
    }
    assert!(websockify.logged(&["session ended", "code 1011"]).is_empty());
}

/// W4, W9: a held client gets the same close code as one that is served.
#[test]
fn w4_held_clients_are_closed_when_websockify_stops() {
    let port = free_port();
    let mut websockify = Websockify::start(&one_connection(port, "greet echo"));
    websockify.wait_until_open();
    let mut first = Client::connect(port);
    first.read_line();
    let held = Client::connect(port);
    let began = Instant::now();
    assert_eq!(websockify.stop(), 0);
    assert_eq!(first.closing().code, 1001);
    assert_eq!(held.closing().code, 1001);
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}

/// F35: a program that listens for one client at a time, as `while :; do nc -l 80; done` does: while it
/// lives, a client that comes between two listeners is held as under respawn.
#[test]
fn f35_clients_between_two_listeners_are_held_while_the_program_lives() {
    for mode in ["exit", "ignore"] {
        let port = free_port();
        let one = format!("{Actor} bind {port} listen accept close-listener greet echo exit 1");
        let script = format!("while :; do {one}; done");
        let arguments = format!("{port} -v --wrap-mode={mode} --");
        let mut websockify = Websockify::start_with(&arguments, |command| {
            command.args(["sh", "-c", &script]);
        });
        websockify.wait_until_open();
        assert_distinct(together(5, port, |client, _| client.read_line()), 5);
        // One after the other, too.
        for _ in 0..5 {
            let mut client = Client::connect(port);
            client.read_line();
            assert_eq!(client.close().code, 1000);
        }
        websockify.assert_logged(&["program started"], 1);
        assert_eq!(websockify.logged(&["code 1011"]), Vec::<String>::new());
        assert_eq!(websockify.stop(), 0);
    }
}

/// F35: when a listener is closed, the kernel resets each connection in its queue once, and that packet may be lost.
#[test]
fn f35_clients_whose_reset_is_lost_are_served_by_the_next_listener() {
    let Some(lan) = Lan::new() else { return };
    if !lan.here.lose_resets() {
        return;
    }
    lan.here.run(|| {
        let port = free_port();
        let one = format!("{Actor} bind {port} listen accept close-listener greet echo exit 1");
        let script = format!("while :; do {one}; done");
        let mut websockify = Websockify::start_with(&format!("{port} -v --"), |command| {
            command.args(["sh", "-c", &script]);
        });
        websockify.wait_until_open();
        // Each listener accepts one client. The others lose their connections, one of them twice perhaps, and websockify looks
        // for such losses every ten seconds.
        assert_distinct(
            together(3, port, |client, _| {
                client.be_patient(Duration::from_secs(60));
                client.read_line()
            }),
            3,
        );
        assert_eq!(websockify.stop(), 0);
    });
}

/// F35, W6: when the program ends, held clients are told at once.
#[test]
fn f35_clients_that_are_held_are_told_when_the_program_ends() {
    for (mode, reason) in [("exit", "shutting down"), ("ignore", "program has ended")] {
        let notes = Notes::new();
        let port = free_port();
        let gate = notes.note("gate");
        let arguments = format!(
            "{port} --wrap-mode={mode} -- {Actor} bind {port} listen accept close-listener greet \
             await {gate} exit 0"
        );
        let websockify = Websockify::start(&arguments);
        websockify.wait_until_open();
        let mut first = Client::connect(port);
        first.read_line();
        let held = Client::connect(port);
        websockify.wait_for_log(&["session started: 2,"]);
        let began = Instant::now();
        notes.give("gate");
        let closing = held.closing();
        assert_eq!((closing.code, closing.reason.as_str()), (1011, reason), "{mode}");
        assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
        drop(first);
    }
}
