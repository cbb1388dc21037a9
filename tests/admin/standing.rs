//! What the admin address says of websockify's state, and what it has websockify do (O3).

use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::{ask, echo_bridge, exchange, get, head, metric};
use crate::support::{
    Actor, Client, Process, WEBSOCKIFY, Websockify, connect, echo_service, free_port, is_refused,
    listeners_of, listening, stays, wait_until,
};
use crate::wrap::Notes;

#[test]
fn o3_each_path_has_its_methods_and_what_else_there_is_not() {
    let (_service, mut websockify, _, admin) = echo_bridge("");
    for (path, text) in [("/livez", "alive\n"), ("/readyz", "ready\n"), ("/sessions", "[]\n")] {
        let reply = get(admin, path);
        assert_eq!((reply.status, &*reply.body), (200, text), "{path}");
        let reply = ask(admin, "HEAD", path);
        assert_eq!((reply.status, &*reply.body), (200, ""), "{path}");
        assert_eq!(reply.header("content-length"), Some(&*text.len().to_string()));
    }
    let page = get(admin, "/metrics");
    assert_eq!(page.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert_eq!(get(admin, "/sessions").header("content-type"), Some("application/json"));
    for (method, path, allowed) in [
        ("POST", "/livez", "GET, HEAD"),
        ("DELETE", "/sessions", "GET, HEAD"),
        ("OPTIONS", "/metrics", "GET, HEAD"),
        ("GET", "/sessions/1", "DELETE"),
        ("GET", "/drain", "POST"),
        ("PUT", "/drain", "POST"),
    ] {
        let reply = ask(admin, method, path);
        assert_eq!((reply.status, reply.header("allow")), (405, Some(allowed)), "{method} {path}");
    }
    for (method, path) in [
        ("GET", "/"),
        ("GET", "/metrics/"),
        ("POST", "/drain/now"),
        ("DELETE", "/sessions/1"),
        ("DELETE", "/sessions/x"),
    ] {
        assert_eq!(ask(admin, method, path).status, 404, "{method} {path}");
    }
    // HTTP/1.0 is answered, and a query is ignored.
    let reply = exchange(connect(admin), "GET /livez?x HTTP/1.0\r\n\r\n");
    assert_eq!(reply.status, 200);
    assert_eq!(websockify.stop(), 0);
    assert!(is_refused(Ipv4Addr::LOCALHOST, admin));
}

#[test]
fn o3_there_is_no_admin_address_unless_it_is_asked_for() {
    let (service, port) = (echo_service(), free_port());
    let websockify = Websockify::start(&format!("127.0.0.1:{port} {}", service.target()));
    websockify.wait_until_open();
    let us = Process::find(websockify.pid()).unwrap();
    assert_eq!(listeners_of(&[us]), [(Ipv4Addr::LOCALHOST, port).into()]);
    assert_eq!(websockify.logged(&["administration"]), Vec::<String>::new());
}

#[test]
fn o3_an_administrator_ends_one_session_and_no_other() {
    let (_service, websockify, port, admin) = echo_bridge("");
    let mut clients: Vec<_> = (0..3).map(|_| Client::connect(port)).collect();
    for client in &mut clients {
        client.send("hello");
        assert_eq!(client.read(5), b"hello");
    }
    let sessions: serde_json::Value = serde_json::from_str(&get(admin, "/sessions").body).unwrap();
    let session = &sessions[1];
    assert_eq!(sessions.as_array().unwrap().len(), 3);
    assert_eq!(session["id"], 2);
    assert_eq!(session["client"], "127.0.0.1");
    let own = clients[1].stream().local_addr().unwrap();
    assert_eq!(session["port"], own.port());
    assert_eq!(session["version"], "13");
    assert_eq!(session["path"], "/");
    assert_eq!(session["received_bytes"], 5);
    assert_eq!(session["sent_bytes"], 5);
    let since = session["since"].as_str().unwrap();
    assert!(since.len() == 27 && since.starts_with("20") && since.ends_with('Z'), "{since}");
    for nothing in ["via", "user", "token", "name", "tls"] {
        assert!(session[nothing].is_null(), "{session}");
    }
    assert_eq!(ask(admin, "DELETE", "/sessions/2").status, 202);
    let ended = clients.remove(1).closing();
    assert_eq!((ended.code, &*ended.reason), (1008, "ended by the administrator"));
    websockify.wait_for_log(&["session ended: 2,", "code 1008 \"ended by the administrator\""]);
    wait_until("it to be gone", || ask(admin, "DELETE", "/sessions/2").status == 404);
    for mut client in clients {
        client.send("again");
        assert_eq!(client.read(5), b"again");
        assert_eq!(client.close().code, 1000);
    }
    let ended =
        || metric(&get(admin, "/metrics").body, "websockify_sessions_ended_total{code=\"1008\"}");
    assert!((ended() - 1.0).abs() < f64::EPSILON);
}

/// O3: also a session whose client is held because the program does not listen.
#[test]
fn o3_a_held_session_is_ended_too() {
    let (port, admin, notes) = (free_port(), free_port(), Notes::new());
    let script = notes.note("script");
    crate::support::write_script(
        &script,
        &format!(
            "#!/bin/sh\nif mkdir {0} 2>/dev/null\nthen exec {Actor} bind {port} listen accept greet echo\n\
             else exec {Actor} sleep\nfi\n",
            notes.note("began")
        ),
    );
    let websockify = Websockify::start(&format!(
        "{port} --admin=127.0.0.1:{admin} --wrap-mode=respawn -- {script}"
    ));
    let mut first = Client::connect_once_open(port);
    first.read_line();
    first.close();
    websockify.nth_start(2);
    wait_until("not ready", || get(admin, "/readyz").status == 503);
    let held = Client::connect(port);
    assert_eq!(ask(admin, "DELETE", "/sessions/2").status, 202);
    assert_eq!(held.closing().code, 1008);
}

#[test]
fn o3_ready_is_who_serves_clients_now() {
    let (port, admin, notes) = (free_port(), free_port(), Notes::new());
    let websockify = Websockify::start(&format!(
        "{port} --admin=127.0.0.1:{admin} --wrap-mode=respawn --stop-timeout=1 -- \
         {Actor} await {} bind {port} listen accept close-listener greet echo await {} exit 1",
        notes.note("go"),
        notes.note("end"),
    ));
    websockify.wait_for_log(&["administration at", &format!("http://127.0.0.1:{admin}")]);
    websockify.nth_start(1);
    let reply = get(admin, "/readyz");
    assert_eq!((reply.status, &*reply.body), (503, "the program does not listen\n"));
    assert_eq!(get(admin, "/livez").status, 200);
    assert!(is_refused(Ipv4Addr::LOCALHOST, port), "the program does not listen yet");
    let program = |page: &str| {
        ["starts_total", "exits_total{outcome=\"failure\"}", "listening"]
            .map(|name| metric(page, &format!("websockify_program_{name}")).to_string())
    };
    let page = get(admin, "/metrics").body;
    assert_eq!(program(&page), ["1", "0", "0"]);
    assert!(metric(&page, "websockify_program_start_time_seconds") > 1e9, "{page}");
    notes.give("go");
    let mut client = Client::connect_once_open(port);
    client.read_line();
    wait_until("no listener", || get(admin, "/readyz").body == "the program does not listen\n");
    client.close();
    notes.give("end");
    // The second instance listens again.
    websockify.nth_start(2);
    wait_until("the second instance", || get(admin, "/readyz").status == 200);
    assert_eq!(program(&get(admin, "/metrics").body), ["2", "1", "1"]);
}

/// O3, W9: several requests for a drain begin one drain; only a SIGTERM that follows ends the program at once.
#[test]
fn o3_a_drain_is_begun_once_however_often_it_is_asked_for() {
    let (port, admin) = (free_port(), free_port());
    let mut websockify = Websockify::start(&format!(
        "{port} --admin=127.0.0.1:{admin} --stop-timeout=60 -- \
         {Actor} ignore-term bind {port} listen serve"
    ));
    let mut client = Client::connect_once_open(port);
    client.read_line();
    let leader = websockify.leader();
    for _ in 0..3 {
        let reply = ask(admin, "POST", "/drain");
        assert_eq!((reply.status, &*reply.body), (202, "draining\n"));
        let reply = get(admin, "/readyz");
        assert_eq!((reply.status, &*reply.body), (503, "draining\n"));
    }
    assert_eq!(client.closing().code, 1001);
    let goes_on = || leader.is_alive() && get(admin, "/livez").status == 200;
    stays(Duration::from_millis(500), "the program's time", goes_on);
    let listens = metric(&get(admin, "/metrics").body, "websockify_ready");
    assert!(listens.abs() < f64::EPSILON);
    websockify.signal(Signal::SIGTERM);
    assert_eq!(websockify.wait(), 0);
    assert!(!leader.is_alive());
}

/// O1: with `--drain-timeout` sessions go on, with a program and without, until the last has ended.
#[test]
fn o3_o1_sessions_go_on_in_a_drain_that_is_asked_for() {
    let (echo, port) = (echo_service().target(), free_port());
    let program = format!("-- {Actor} bind {port} listen accept greet echo exit 0");
    for target in [echo, program] {
        let admin = free_port();
        let mut websockify = Websockify::start(&format!(
            "{port} --admin=127.0.0.1:{admin} --drain-timeout=1000 {target}"
        ));
        let mut client = Client::connect_once_open(port);
        client.send("hello");
        client.read_until("hello");
        for _ in 0..2 {
            assert_eq!(ask(admin, "POST", "/drain").status, 202);
        }
        wait_until("a closed port", || is_refused(Ipv4Addr::LOCALHOST, port));
        assert_eq!(get(admin, "/readyz").status, 503, "{target}");
        assert_eq!(get(admin, "/livez").status, 200, "{target}");
        client.send("again");
        client.read_until("again");
        assert_eq!(client.close().code, 1000, "{target}");
        assert_eq!(websockify.wait(), 0, "{target}");
    }
}

#[test]
fn o3_a_bridge_without_sessions_drains_at_once_and_answers_first() {
    for _ in 0..10 {
        let (_service, mut websockify, _, admin) = echo_bridge("");
        assert_eq!(ask(admin, "POST", "/drain").status, 202);
        assert_eq!(websockify.wait(), 0);
    }
}

/// O3, D1: an admin port that is taken is an error while the caller can still see it, also with `-D`; the daemon
/// keeps the admin address that was opened before.
#[test]
fn o3_the_address_is_opened_while_the_caller_can_be_told() {
    let (service, directory) = (echo_service(), TempDir::new().unwrap());
    let (port, admin) = (free_port(), free_port());
    let taken = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, admin)).unwrap();
    let start = |option: &str| {
        let mut command = Command::new(WEBSOCKIFY);
        command.args([&port.to_string(), option, "--pid-file=pid", "--log-file=log"]);
        command.arg(format!("--admin=127.0.0.1:{admin}")).arg(service.target());
        Websockify::launch(command.current_dir(&directory))
    };
    for option in ["-D", "-v"] {
        let output = start(option).output();
        let expected = format!(
            "websockify: cannot open the admin address: cannot bind port {admin} of 127.0.0.1: address already in use"
        );
        assert_eq!((output.status, output.err), (1, vec![expected]), "{option}");
    }
    drop(taken);
    // A process that another test is just starting may have a copy of the listener for a moment.
    wait_until("the free port", || listening(admin).is_empty());
    let mut daemon = start("-D");
    assert_eq!(daemon.wait(), 0);
    assert_eq!(get(admin, "/readyz").status, 200);
    assert_eq!(exchange(connect(admin), &head("POST", "/drain", "")).status, 202);
    wait_until("the daemon's end", || daemon.remnants().is_empty());
    assert!(is_refused(Ipv4Addr::LOCALHOST, admin));
}
