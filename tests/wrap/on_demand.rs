//! A program that is started by its first client, and stopped when it has had no client for long (O5).

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::Notes;
use crate::support::{
    Actor, Client, Loot, Thief, Websockify, can_copy_sockets, copy_program, engine, free_port,
    is_refused, needs_root, request, run, stays, wait_until,
};

const MODES: [&str; 3] = ["exit", "ignore", "respawn"];
/// How long a test watches that something does not happen.
const WHILE: Duration = Duration::from_millis(500);
/// Another user of the machine.
const THIEF: u32 = 61_236;

/// Starts websockify with these options, for a program that binds the port, listens, and does what `play` says.
fn start(port: u16, options: &str, play: &str) -> Websockify {
    let websockify = Websockify::start(&format!(
        "{port} --start=on-demand {options} -- {Actor} bind {port} listen {play}"
    ));
    websockify.wait_until_open();
    websockify
}

/// A session with a program that greets and echoes; gives the PID that it greets with.
fn session(port: u16) -> String {
    let mut client = Client::connect(port);
    let pid = client.read_line();
    client.send("hello");
    assert_eq!(client.read(5), b"hello");
    assert_eq!(client.close().code, 1000);
    pid
}

fn wait_until_asleep(websockify: &Websockify, times: usize) {
    wait_until("an idle program's end", || {
        websockify.logged(&["program is stopped: no session is left"]).len() == times
            && websockify.logged(&["first process has ended"]).len() == times
    });
    wait_until("no process", || websockify.tree().is_empty());
}

fn started(websockify: &Websockify) -> usize {
    websockify.logged(&["program started"]).len()
}

/// When the first line with this text was logged, in seconds of its day.
fn time_of(websockify: &Websockify, text: &str) -> f64 {
    let line = websockify.wait_for_log(&[text]);
    let (_, time) = line.split_once('T').unwrap();
    let (time, _) = time.split_once('Z').unwrap();
    time.split(':').fold(0.0, |seconds, part| seconds * 60.0 + part.parse::<f64>().unwrap())
}

#[test]
fn o5_it_is_started_by_the_first_session_and_stopped_after_the_last_in_every_mode() {
    for mode in MODES {
        let port = free_port();
        let mut websockify =
            start(port, &format!("--wrap-mode={mode} --stop-idle=0.7"), "helper serve");
        stays(WHILE, "no process", || websockify.tree().is_empty());
        for time in 1..=3 {
            websockify.assert_logged(&["program started"], time - 1);
            let mut first = Client::connect(port);
            first.read_line();
            session(port);
            websockify.assert_alone_on(port);
            assert_eq!(first.close().code, 1000);
            wait_until_asleep(&websockify, time);
        }
        let ended = time_of(&websockify, "session ended: 1,");
        let idle = time_of(&websockify, "program is stopped: no session is left") - ended;
        assert!(idle.rem_euclid(86400.0) > 0.69, "{idle} s");
        assert_eq!(websockify.logged(&["code 1011"]), Vec::<String>::new());
        assert_eq!(websockify.warnings(), Vec::<String>::new());
        assert_eq!(websockify.stop(), 0, "{mode}");
        assert_eq!(websockify.remnants(), []);
    }
}

/// O5: port scanners, web requests and clients without the password are no clients of the program.
#[test]
fn o5_only_a_session_starts_it() {
    let notes = Notes::new();
    fs::write(notes.path().join("page.html"), "a page").unwrap();
    let port = free_port();
    let options = format!(
        "--web={} --auth-plugin=BasicHTTPAuth --auth-source=jane:secret",
        notes.path().display()
    );
    let websockify = start(port, &options, "serve");
    for _ in 0..20 {
        drop(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap());
    }
    assert_eq!(request(port, "/page.html", &[]).0.status, 200);
    assert_eq!(request(port, "/nothing", &[]).0.status, 404);
    let handshake = [
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ];
    assert_eq!(request(port, "/", &handshake).0.status, 401);
    stays(WHILE, "no process", || websockify.tree().is_empty());
    assert_eq!(started(&websockify), 0);
    let password = ["Authorization: Basic amFuZTpzZWNyZXQ="];
    let (head, _session) = request(port, "/", &[&handshake[..], &password].concat());
    assert_eq!(head.status, 101);
    websockify.nth_leader(1);
}

#[test]
fn o5_twenty_clients_at_once_start_it_once() {
    for mode in MODES {
        let port = free_port();
        let websockify = start(port, &format!("--wrap-mode={mode} --stop-idle=60"), "serve");
        thread::scope(|scope| {
            let sessions: Vec<_> = (0..20).map(|_| scope.spawn(|| session(port))).collect();
            for session in sessions {
                session.join().unwrap();
            }
        });
        websockify.assert_logged(&["program started"], 1);
    }
}

#[test]
fn o5_without_a_time_it_goes_on() {
    let port = free_port();
    let websockify = start(port, "", "serve");
    session(port);
    let leader = websockify.leader();
    stays(2 * WHILE, "the program runs", || leader.is_alive());
    session(port);
    websockify.assert_logged(&["program started"], 1);
}

/// O5, W9: a program that does not end by SIGTERM is killed; a client that comes meanwhile gets the next instance.
#[test]
fn o5_who_comes_while_it_is_stopped_gets_the_next_instance() {
    for mode in MODES {
        let port = free_port();
        let options = format!("--wrap-mode={mode} --stop-idle=0.1 --stop-timeout=2");
        let mut websockify = start(port, &options, "ignore-term stubborn-helper serve");
        for time in 1..=3 {
            session(port);
            wait_until("the stop", || websockify.logged(&["program is stopped"]).len() == time);
        }
        // Two instances were started for clients that came during a stop.
        websockify.assert_logged(&["program started"], 3);
        let log = websockify.err.text();
        let at = |text: &str| log.find(text).unwrap();
        assert!(at("session started: 2,") < at("first process has ended"), "not during the stop");
        assert_eq!(websockify.logged(&["program has ended without"]), Vec::<String>::new());
        wait_until_asleep(&websockify, 3);
        assert_eq!(websockify.stop(), 0);
    }
}

/// O5: a client that comes at the moment at which the program is stopped is not cut off.
#[test]
fn o5_no_session_is_lost_to_a_stop() {
    let port = free_port();
    let websockify = start(port, "--stop-idle=0.02", "serve");
    for number in 0_u64..60 {
        session(port);
        thread::sleep(Duration::from_millis(15 + number % 12));
    }
    let stops = websockify.logged(&["program is stopped"]).len();
    assert!(stops > 0 && started(&websockify) >= stops, "{stops}");
    assert_eq!(websockify.logged(&["code 1011"]), Vec::<String>::new());
}

/// O5: a client that leaves before the program listens has started it, and the idle time counts from then.
#[test]
fn o5_a_client_that_leaves_before_it_listens_leaves_an_idle_program() {
    let notes = Notes::new();
    let port = free_port();
    let gate = notes.note("gate");
    let mut websockify = Websockify::start(&format!(
        "{port} --start=on-demand --stop-idle=0.5 -- {Actor} await {gate} bind {port} listen serve"
    ));
    websockify.wait_until_open();
    let client = Client::connect(port);
    websockify.nth_leader(1);
    assert_eq!(client.close().code, 1000);
    wait_until_asleep(&websockify, 1);
    assert!(websockify.is_running());
    notes.give("gate");
    session(port);
    websockify.assert_logged(&["program started"], 2);
    assert_eq!(websockify.warnings(), Vec::<String>::new(), "it has had no time to listen");
    assert_eq!(websockify.stop(), 0);
}

/// O5, W4: a client is held no longer than the wrap timeout, as with any program.
#[test]
fn o5_w4_a_client_is_held_until_it_listens_or_for_the_wrap_timeout() {
    let port = free_port();
    let websockify = Websockify::start(&format!(
        "{port} --start=on-demand --stop-idle=0.2 --wrap-timeout=1 -- {Actor} sleep"
    ));
    websockify.wait_until_open();
    let began = Instant::now();
    let closing = Client::connect(port).closing();
    assert_eq!(closing.code, 1011);
    assert!(closing.reason.contains("did not listen within 1 s"), "{closing:?}");
    assert!(began.elapsed() >= Duration::from_secs(1));
    wait_until_asleep(&websockify, 1);
}

/// O5, W6, W8: a program that ends by itself has exited, whether a client is there or not.
#[test]
fn o5_w6_an_exit_of_its_own_ends_us_under_exit() {
    let notes = Notes::new();
    for is_there in [true, false] {
        let port = free_port();
        let gate = notes.note(&format!("gate-{is_there}"));
        let play = format!("accept greet echo await {gate} exit 7");
        let mut websockify = start(port, "--stop-idle=60", &play);
        let mut client = Client::connect(port);
        client.read_line();
        if is_there {
            notes.give(&format!("gate-{is_there}"));
            assert_eq!(client.close().code, 1000);
        } else {
            client.close();
            notes.give(&format!("gate-{is_there}"));
        }
        assert_eq!(websockify.wait(), 7);
    }
    // Also if it has not listened; the client that waits is told.
    let port = free_port();
    let mut websockify = Websockify::start(&format!("{port} --start=on-demand -- {Actor} exit 9"));
    websockify.wait_until_open();
    let closing = Client::connect(port).closing();
    assert_eq!((closing.code, &*closing.reason), (1011, "program cannot be started"));
    assert_eq!(websockify.wait(), 9);
}

#[test]
fn o5_w6_after_an_exit_of_its_own_sessions_are_refused_under_ignore() {
    let port = free_port();
    let mut websockify = start(port, "--wrap-mode=ignore", "accept greet exit 7");
    assert_eq!(Client::connect(port).closing().code, 1000);
    websockify.wait_for_log(&["sessions are refused"]);
    let closing = Client::connect(port).closing();
    assert_eq!((closing.code, &*closing.reason), (1011, "program has ended"));
    assert_eq!(websockify.stop(), 0);
}

#[test]
fn o5_w6_under_respawn_it_is_started_again_when_somebody_is_there() {
    let port = free_port();
    let play = "accept close-listener greet echo exit 1";
    let mut websockify = start(port, "--wrap-mode=respawn", play);
    for time in 1..=3 {
        session(port);
        wait_until("its end", || websockify.logged(&["first process has ended"]).len() == time);
        stays(WHILE, "no process", || websockify.tree().is_empty());
        websockify.assert_logged(&["program started"], time);
    }
    // Two at once: the second is there when the first instance ends.
    let mut first = Client::connect(port);
    first.read_line();
    let mut second = Client::connect(port);
    assert_eq!(first.close().code, 1000);
    second.read_line();
    websockify.assert_logged(&["program started"], 5);
    assert_eq!(second.close().code, 1000);
    assert_eq!(websockify.logged(&["respawning too fast"]), Vec::<String>::new());
    assert_eq!(websockify.stop(), 0);
}

/// O5, W7: a program that fails at once is started again after ever longer delays while a client waits, and not at all if
/// none waits.
#[test]
fn o5_w7_a_program_that_fails_is_left_alone_when_nobody_waits() {
    let port = free_port();
    let mut websockify = start(port, "--wrap-mode=respawn", "exit 1");
    let client = Client::connect(port);
    websockify.wait_for_log(&["respawning too fast", "next start in 400ms"]);
    assert_eq!(client.close().code, 1000);
    websockify.wait_for_log(&["session ended"]);
    wait_until("its end", || {
        started(&websockify) == websockify.logged(&["first process has ended"]).len()
    });
    let before = started(&websockify);
    stays(Duration::from_secs(2), "no start", || started(&websockify) == before);
    assert_eq!(websockify.stop(), 0);
}

/// O5, W8: a program that does not exist is named at the start. If it vanishes later, clients are told, and it is
/// tried again.
#[test]
fn o5_w8_a_program_that_cannot_be_started_is_told_of() {
    let notes = Notes::new();
    let port = free_port();
    for (program, status, why) in [
        ("no-such-program", 127, "not found"),
        ("/nowhere/program", 127, "not found"),
        ("/etc/passwd", 126, "permission denied"),
    ] {
        let output = run(&format!("{port} --start=on-demand -- {program}"));
        assert_eq!((output.status, output.err.len()), (status, 1), "{output:?}");
        assert!(output.err[0].contains(program) && output.err[0].contains(why), "{output:?}");
    }
    for mode in MODES {
        let port = free_port();
        let program = notes.note(mode);
        copy_program(Actor, &program);
        let mut websockify = Websockify::start(&format!(
            "{port} -v --start=on-demand --wrap-mode={mode} -- {program} bind {port} listen serve"
        ));
        websockify.wait_until_open();
        fs::remove_file(&program).unwrap();
        for _ in 0..3 {
            let closing = Client::connect(port).closing();
            assert_eq!((closing.code, &*closing.reason), (1011, "program cannot be started"));
        }
        websockify.wait_for_log(&["ERROR", "cannot start program", "not found"]);
        // A client that comes before it is tried again is told at once, too.
        wait_until("sleep", || {
            let states = websockify.logged(&["DEBUG ", " on "]);
            states.last().is_some_and(|line| line.ends_with(": asleep"))
        });
        copy_program(Actor, &program);
        session(port);
        assert_eq!(websockify.stop(), 0, "{mode}");
    }
}

/// O5, W5: an idle daemon is stopped as well, also under `ignore`, which leaves it running when websockify ends.
#[test]
fn o5_w5_a_daemon_is_stopped_and_started_again() {
    for mode in ["ignore", "respawn"] {
        for play in ["fork-exit 0 serve", "fork-exit 0 setsid fork-exit 0 serve"] {
            let port = free_port();
            let options = format!("--wrap-mode={mode} --stop-idle=0.3");
            let mut websockify = start(port, &options, play);
            for time in 1..=2 {
                session(port);
                websockify.wait_for_log(&["has daemonized"]);
                wait_until_asleep(&websockify, time);
            }
            let mut client = Client::connect(port);
            client.read_line();
            wait_until("the third", || websockify.logged(&["has daemonized"]).len() == 3);
            websockify.tree();
            assert_eq!(websockify.stop(), 0);
            assert_eq!(client.closing().code, 1001);
            assert_eq!(websockify.remnants().is_empty(), mode == "respawn", "{play}");
        }
    }
    // Under `exit` a daemon ends websockify, as with any program.
    let port = free_port();
    let mut websockify = start(port, "--wrap-mode=exit", "fork-exit 0 serve");
    let client = Client::connect(port);
    websockify.wait_for_log(&["has daemonized", "--wrap-mode=ignore"]);
    drop(client);
    assert_eq!(websockify.wait(), 0);
    assert_eq!(websockify.remnants(), []);
}

/// O5, W9, B8: the end of websockify while its program runs, and while it does not.
#[test]
fn o5_w9_nothing_keeps_us_from_ending() {
    let port = free_port();
    let mut websockify = start(port, "--stop-timeout=100", "serve");
    let began = Instant::now();
    assert_eq!(websockify.stop(), 0);
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert_eq!(started(&websockify), 0);
    assert!(is_refused(Ipv4Addr::LOCALHOST, port));

    for option in ["--timeout=1", "--idle-timeout=1"] {
        let port = free_port();
        let mut websockify = start(port, option, "serve");
        assert_eq!(websockify.wait(), 0, "asleep, {option}");
        let port = free_port();
        let mut websockify = start(port, &format!("{option} --stop-idle=0.1"), "serve");
        session(port);
        assert_eq!(websockify.wait(), 0, "{option}");
        assert_eq!(websockify.remnants(), []);
    }
    let port = free_port();
    let mut websockify = start(port, "--run-once --stop-idle=100", "serve");
    session(port);
    assert_eq!(websockify.wait(), 0);
    assert_eq!(websockify.remnants(), []);

    // While the program is being stopped.
    let port = free_port();
    let mut websockify = start(port, "--stop-idle=0.1 --stop-timeout=1", "ignore-term serve");
    session(port);
    websockify.wait_for_log(&["program is stopped"]);
    assert_eq!(websockify.stop(), 0);
    assert_eq!(websockify.remnants(), []);
}

/// O5, A1, W14: with the other options for a program.
#[test]
fn o5_it_comes_and_goes_with_the_options_of_a_program() {
    let mut all = vec!["--client-address=loopback"];
    if engine().is_none() {
        all.extend(["--client-address=socket", "--rebind-engine=preload"]);
    }
    if can_copy_sockets() {
        all.push("--rebind-engine=seccomp");
    }
    for options in all {
        let port = free_port();
        let options = format!("--wrap-mode=respawn --stop-idle=0.3 {options}");
        let mut websockify = start(port, &options, "serve");
        for time in 1..=3 {
            session(port);
            wait_until_asleep(&websockify, time);
        }
        assert_eq!(websockify.warnings(), Vec::<String>::new(), "{options}");
        assert_eq!(websockify.stop(), 0, "{options}");
    }
}

/// O5, F1, W2: while the program does not run, its ports are kept for it.
#[test]
fn o5_f1_nobody_takes_its_ports_while_it_sleeps() {
    let notes = Notes::new();
    let port = free_port();
    let websockify = start(port, "-v --wrap-mode=respawn --stop-idle=0.2", "serve");
    let relocated = websockify.relocated_port();
    let bound = |port| std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    let thief =
        nix::unistd::geteuid().is_root().then(|| Thief::start(notes.path(), THIEF, relocated, 10));
    for time in 1..=5 {
        assert!(bound(relocated).is_err() && bound(port).is_err(), "held");
        session(port);
        wait_until_asleep(&websockify, time);
    }
    if let Some(thief) = thief {
        let Loot { attempts, bound, listened, clients, bytes } = thief.stop();
        assert_eq!([bound, listened, clients, bytes], [0; 4], "in {attempts} attempts");
        assert!(attempts > 0);
    } else {
        needs_root();
    }
}

/// O5, D1: with `-D`, the command returns when clients can connect, before the program is started.
#[test]
fn o5_d1_in_the_background_we_are_up_before_the_program() {
    let notes = Notes::new();
    let (port, log) = (free_port(), notes.note("log"));
    let mut websockify = Websockify::start(&format!(
        "{port} -D --log-file={log} --start=on-demand --stop-idle=0.3 -- \
         {Actor} bind {port} listen serve"
    ));
    assert_eq!(websockify.wait(), 0);
    let said = |what: &str| {
        let text = fs::read_to_string(&log).unwrap();
        text.lines().filter(|line| line.contains(what)).count()
    };
    assert_eq!((said("listening on"), said("program started")), (1, 0));
    assert_eq!(websockify.remnants().len(), 1, "we alone");
    session(port);
    wait_until("its end", || said("program is stopped: no session is left") == 1);
    wait_until("us alone", || websockify.remnants().len() == 1);
    assert_eq!(said("program started"), 1);
    websockify.remnants()[0].signal(Signal::SIGTERM);
    wait_until("our end", || websockify.remnants().is_empty());
    assert!(is_refused(Ipv4Addr::LOCALHOST, port));
}
