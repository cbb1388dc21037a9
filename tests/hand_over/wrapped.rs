//! Hand-overs of a websockify that wraps a program: the program and its clients notice nothing (O2).

use std::fs;
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::client_address::{ask, client, session_from, start_address_reporter};
use crate::support::{
    Actor, Client, Process, WEBSOCKIFY, Websockify, connect_unix, free_port, in_pid_namespace,
    is_refused, needs, stays, wait_for, wait_until,
};
use crate::wrap::Notes;

/// How long a test watches for something that must not happen.
const WHILE: Duration = Duration::from_millis(500);

/// Where the stack of the process begins, by which a test knows the old binary from the new one: exec(2) makes a new
/// stack, at a place that nobody knows beforehand.
fn stack_start(websockify: &Websockify) -> u64 {
    Process::find(websockify.pid()).unwrap().stat().startstack
}

/// Has the new binary take over, and waits until it was executed.
fn hand_over(websockify: &Websockify) {
    let before = stack_start(websockify);
    websockify.signal(Signal::SIGUSR2);
    wait_until("another image", || stack_start(websockify) != before);
}

/// Asserts that no new binary has failed: the old binary, which is executed again then, says so.
fn assert_none_failed(websockify: &Websockify) {
    assert_eq!(websockify.logged(&["cannot hand over"]), Vec::<String>::new());
}

/// A session with a process that greets and echoes; gives the number of that process.
fn session(port: u16) -> String {
    let mut client = Client::connect_once_open(port);
    let pid = client.read_line();
    client.send("hello");
    assert_eq!(client.read(5), b"hello");
    assert_eq!(client.close().code, 1000);
    pid
}

/// A websockify with these options, whose program binds the port, listens and then does as `play` says; waits until
/// the port is open.
fn start(port: u16, options: &str, play: &str) -> Websockify {
    let arguments = format!("{port} {options} -- {Actor} bind {port} listen {play}");
    let websockify = Websockify::start(&arguments);
    websockify.wait_until_open();
    websockify
}

fn lines_with(log: &Path, part: &str) -> usize {
    let text = fs::read_to_string(log).unwrap_or_default();
    text.lines().filter(|line| line.contains(part)).count()
}

#[test]
fn o2_the_program_lives_on_and_is_served_before_and_after() {
    for mode in ["exit", "ignore", "respawn"] {
        let port = free_port();
        let mut websockify = start(port, &format!("--wrap-mode={mode}"), "serve");
        let leader = websockify.leader();
        session(port);
        for _ in 0..3 {
            hand_over(&websockify);
            session(port);
            websockify.assert_alone_on(port);
            assert!(leader.is_alive() && leader.stat().ppid == websockify.pid());
        }
        websockify.assert_logged(&["program started"], 1);
        assert_eq!(websockify.logged(&["first process has ended"]), Vec::<String>::new());
        assert_eq!(websockify.warnings(), Vec::<String>::new());
        assert_eq!(websockify.stop(), 0, "{mode}");
        assert!(!leader.is_alive());
        assert_eq!(websockify.remnants(), []);
    }
}

#[test]
fn o2_a_session_goes_on_and_its_program_knows_nothing() {
    let port = free_port();
    let websockify = start(port, "", "serve");
    let mut client = Client::connect(port);
    client.read_line();
    for word in ["one", "two", "three"] {
        hand_over(&websockify);
        client.send(word);
        assert_eq!(client.read(word.len()), word.as_bytes());
    }
    assert_eq!(client.close().code, 1000);
    assert_none_failed(&websockify);
}

#[test]
fn o2_the_program_is_started_again_when_it_ends_afterwards() {
    let port = free_port();
    let mut websockify = start(port, "--wrap-mode=respawn", "serve");
    session(port);
    for nth in 1..=3 {
        hand_over(&websockify);
        websockify.nth_leader(nth).signal(Signal::SIGKILL);
        websockify.nth_start(nth + 1);
        session(port);
        websockify.assert_alone_on(port);
    }
    assert_eq!(websockify.logged(&["respawning too fast"]), Vec::<String>::new(), "it has served");
    assert_eq!(websockify.stop(), 0);
    assert_none_failed(&websockify);
    assert_eq!(websockify.remnants(), []);
}

/// O2: whether the old or the new binary learns that the program has ended.
#[test]
fn o2_a_program_that_ends_meanwhile_is_started_again() {
    let port = free_port();
    let mut websockify = start(port, "--wrap-mode=respawn", "serve");
    for nth in 1..=5 {
        session(port);
        let (leader, before) = (websockify.nth_leader(nth), stack_start(&websockify));
        leader.signal(Signal::SIGKILL);
        websockify.signal(Signal::SIGUSR2);
        wait_until("another image", || stack_start(&websockify) != before);
        websockify.nth_start(nth + 1);
        assert!(leader.stat_if_there().is_none(), "it was waited for");
    }
    assert_eq!(websockify.stop(), 0);
    assert_none_failed(&websockify);
}

#[test]
fn o2_the_programs_status_is_ours_afterwards() {
    for (status, byte) in [(0, b'\0'), (7, b'\x07'), (255, b'\xff')] {
        let port = free_port();
        let mut websockify = start(port, "", "accept greet exit-byte");
        let mut client = Client::connect(port);
        client.read_line();
        hand_over(&websockify);
        client.send([byte]);
        client.closing();
        assert_eq!(websockify.wait(), status);
        assert_none_failed(&websockify);
    }
}

#[test]
fn o2_a_status_by_a_signal_is_ours_afterwards() {
    let port = free_port();
    let mut websockify = start(port, "", "serve");
    hand_over(&websockify);
    websockify.leader().signal(Signal::SIGABRT);
    assert_eq!(websockify.wait(), 134);
    assert_none_failed(&websockify);
}

/// The daemon that the log names.
fn daemon(websockify: &Websockify) -> Process {
    wait_for("a living daemon in the log", || {
        let named = websockify.logged(&["program has daemonized as "]);
        let (_, daemon) = named.last()?.split_once(" as ")?;
        Process::find(daemon.split(' ').next()?.parse().ok()?)
    })
}

#[test]
fn o2_a_daemon_stays_a_daemon_and_is_watched() {
    for mode in ["ignore", "respawn"] {
        let port = free_port();
        let websockify = start(port, &format!("--wrap-mode={mode}"), "fork-exit 0 setsid serve");
        let daemon = daemon(&websockify);
        session(port);
        hand_over(&websockify);
        session(port);
        websockify.assert_one_instance_for(WHILE);
        websockify.assert_logged(&["has daemonized"], 1);
        daemon.signal(Signal::SIGKILL);
        if mode == "respawn" {
            websockify.nth_start(2);
        } else {
            websockify.wait_for_log(&["sessions are refused"]);
            assert_eq!(Client::connect(port).closing().code, 1011);
        }
        assert_none_failed(&websockify);
    }
}

/// O2: whether the old or the new binary learns that the daemon has ended.
#[test]
fn o2_a_daemon_that_ends_meanwhile_is_missed() {
    for _ in 0..5 {
        let port = free_port();
        let websockify = start(port, "--wrap-mode=ignore", "fork-exit 0 setsid serve");
        let (daemon, before) = (daemon(&websockify), stack_start(&websockify));
        daemon.signal(Signal::SIGKILL);
        websockify.signal(Signal::SIGUSR2);
        wait_until("another image", || stack_start(&websockify) != before);
        websockify.wait_for_log(&["sessions are refused"]);
        assert_none_failed(&websockify);
    }
}

#[test]
fn o2_a_daemon_is_left_running_with_its_library() {
    let port = free_port();
    let notes = Notes::new();
    let arguments =
        format!("{port} --wrap-mode=ignore -- {Actor} bind {port} listen fork-exit 0 setsid serve");
    let mut websockify = Websockify::start_with(&arguments, |command| {
        command.env("TMPDIR", notes.note(""));
    });
    websockify.wait_until_open();
    let daemon = daemon(&websockify);
    let directory = notes.note("");
    let left = || fs::read_dir(&directory).unwrap().flatten().map(|entry| entry.path());
    let before: Vec<_> = left().collect();
    hand_over(&websockify);
    session(port);
    assert_eq!(websockify.stop(), 0);
    assert_none_failed(&websockify);
    websockify.wait_for_log(&["left running", &daemon.pid.to_string()]);
    assert!(daemon.is_alive());
    assert_eq!(left().collect::<Vec<_>>(), before, "the very library, and no other");
    daemon.signal(Signal::SIGKILL);
}

/// O2, R5: no file of `rebind.so` is left, neither the old binary's nor the new one's.
#[test]
fn o2_nothing_is_left_behind() {
    let port = free_port();
    let websockify = start(port, "--wrap-mode=respawn", "serve");
    session(port);
    hand_over(&websockify);
    websockify.nth_leader(1).signal(Signal::SIGKILL);
    websockify.nth_start(2);
    hand_over(&websockify);
    session(port);
    websockify.signal(Signal::SIGTERM);
    assert_eq!(websockify.output().status, 0);
}

#[test]
fn o2_a_program_that_fails_is_tried_again_no_sooner_than_before() {
    let port = free_port();
    let arguments = format!("{port} --wrap-mode=respawn -- {Actor} bind {port} listen exit 0");
    let mut websockify = Websockify::start(&arguments);
    for delay in ["400ms", "800ms", "1.6s"] {
        websockify.wait_for_log(&["respawning too fast", &format!("next start in {delay}")]);
        hand_over(&websockify);
    }
    websockify.wait_for_log(&["respawning too fast", "next start in 3.2s"]);
    let told = websockify.logged(&["respawning too fast"]);
    assert_eq!(told.len(), 6, "once per step: {told:?}");
    assert_eq!(websockify.stop(), 0);
    assert_none_failed(&websockify);
}

#[test]
fn o2_held_clients_are_served_by_the_next_instance() {
    let (port, notes) = (free_port(), Notes::new());
    let gate = notes.note("gate");
    let play = format!("accept close-listener greet await {gate} exit 1");
    let websockify = start(port, "--wrap-mode=respawn", &play);
    let mut first = Client::connect(port);
    let first_pid = first.read_line();
    let mut held = Client::connect(port);
    websockify.wait_for_log(&["session started: 2,"]);
    hand_over(&websockify);
    stays(WHILE, "one instance", || websockify.logged(&["program started"]).len() == 1);
    notes.give("gate");
    assert_ne!(held.read_line(), first_pid);
    assert_none_failed(&websockify);
}

/// The program does not listen yet: the port is held, and refuses clients.
#[test]
fn o2_before_the_program_listens_clients_are_refused_as_before() {
    for mode in ["exit", "ignore", "respawn"] {
        let (port, notes) = (free_port(), Notes::new());
        let (gate, begun) = (notes.note("gate"), notes.note("begun"));
        let arguments = format!(
            "{port} --wrap-mode={mode} -- {Actor} note {begun} await {gate} bind {port} listen serve"
        );
        let mut websockify = Websockify::start(&arguments);
        wait_until("the program", || Path::new(&begun).exists());
        hand_over(&websockify);
        assert!(is_refused(Ipv4Addr::LOCALHOST, port));
        hand_over(&websockify);
        notes.give("gate");
        Client::connect_once_open(port).read_line();
        session(port);
        websockify.assert_alone_on(port);
        assert_eq!(websockify.stop(), 0);
        assert_none_failed(&websockify);
    }
}

#[test]
fn o2_a_public_unix_socket_stays_the_same_file() {
    let (port, notes) = (free_port(), Notes::new());
    let (gate, path) = (notes.note("gate"), notes.note("socket"));
    let arguments =
        format!("--unix-listen={path} {port} -- {Actor} await {gate} bind {port} listen serve");
    let mut websockify = Websockify::start(&arguments);
    websockify.wait_for_log(&["program started"]);
    let path = Path::new(&path);
    wait_until("the socket's file", || path.exists());
    hand_over(&websockify);
    assert!(connect_unix(path).is_err(), "nobody listens yet");
    notes.give("gate");
    websockify.wait_until_open();
    Client::at(path).unwrap().read_line();
    hand_over(&websockify);
    Client::at(path).unwrap().read_line();
    assert_eq!(websockify.stop(), 0);
    assert_none_failed(&websockify);
    assert!(!path.exists(), "removed at the end");
}

#[test]
fn o2_on_demand_it_sleeps_on_and_is_started_and_stopped() {
    for mode in ["exit", "ignore", "respawn"] {
        let port = free_port();
        let options = format!("--start=on-demand --stop-idle=0.7 --wrap-mode={mode}");
        let mut websockify = start(port, &options, "serve");
        for time in 1..=3 {
            hand_over(&websockify);
            stays(WHILE, "no process", || websockify.tree().is_empty());
            let mut client = Client::connect(port);
            client.read_line();
            // The program has a session for longer than it may be without one (`--stop-idle`).
            hand_over(&websockify);
            stays(2 * WHILE, "the program", || !websockify.tree().is_empty());
            assert_eq!(client.close().code, 1000);
            let stopped = "program is stopped: no session is left";
            wait_until("its end", || websockify.logged(&[stopped]).len() == time);
            wait_until("no process", || websockify.tree().is_empty());
            websockify.assert_logged(&["program started"], time);
        }
        assert_eq!(websockify.stop(), 0, "{mode}");
        assert_none_failed(&websockify);
        assert_eq!(websockify.remnants(), []);
    }
}

/// O2, W11: each byte of output is in the log once, also where a hand-over comes in the middle of a line.
#[test]
fn o2_lines_of_output_go_on_in_the_log() {
    let (port, notes) = (free_port(), Notes::new());
    let log = notes.note("log");
    let script = format!(
        "echo first; printf half; : >{begun}; until [ -e {gate} ]; do sleep 0.02; done; echo -line; \
         exec {Actor} bind {port} listen serve",
        begun = notes.note("begun"),
        gate = notes.note("gate"),
    );
    let websockify = Websockify::start_with(&format!("--log-file={log} {port} --"), |command| {
        command.args(["sh", "-c", &script]);
    });
    let (log, begun) = (Path::new(&log), notes.note("begun"));
    wait_until("the half line", || Path::new(&begun).exists());
    wait_until("the first line", || lines_with(log, "]: first") == 1);
    hand_over(&websockify);
    hand_over(&websockify);
    notes.give("gate");
    wait_until("the other half", || lines_with(log, "]: half-line") == 1);
    session(port);
    assert_eq!((lines_with(log, "]: first"), lines_with(log, "half")), (1, 1));
    assert_none_failed(&websockify);
}

#[test]
fn o2_what_is_written_without_pause_is_logged_whole() {
    let (port, notes) = (free_port(), Notes::new());
    let log = notes.note("log");
    let script = format!(
        "exec 3>&1; (i=0; until [ -e {gate} ]; do i=$((i+1)); echo line $i. >&3; done; echo last $i. >&3) & \
         exec {Actor} bind {port} listen serve",
        gate = notes.note("gate"),
    );
    let websockify = Websockify::start_with(&format!("--log-file={log} {port} --"), |command| {
        command.args(["sh", "-c", &script]);
    });
    let log = Path::new(&log);
    websockify.wait_until_open();
    for _ in 0..3 {
        hand_over(&websockify);
    }
    notes.give("gate");
    wait_until("the last line", || lines_with(log, "]: last ") == 1);
    let text = fs::read_to_string(log).unwrap();
    let numbers = text.lines().filter_map(|line| {
        let (_, number) = line.split_once("]: line ")?;
        number.strip_suffix('.')?.parse::<usize>().ok()
    });
    let numbers: Vec<_> = numbers.collect();
    let last = text.lines().find_map(|line| line.split_once("]: last ")).unwrap().1;
    let last: usize = last.trim_end_matches('.').parse().unwrap();
    assert_eq!(numbers, (1..=last).collect::<Vec<_>>(), "each once, in its order");
    assert_none_failed(&websockify);
}

#[test]
fn o2_sigterm_ends_the_program_afterwards() {
    let (port, notes) = (free_port(), Notes::new());
    let farewell = notes.note("farewell");
    let mut websockify =
        start(port, "", &format!("stubborn-helper helper on-term {farewell} serve"));
    hand_over(&websockify);
    assert_eq!(websockify.stop(), 0);
    assert_none_failed(&websockify);
    assert!(Path::new(&farewell).exists(), "SIGTERM came first");
    assert_eq!(websockify.remnants(), [], "and SIGKILL for who ignores it");
}

#[test]
fn o2_an_end_that_has_begun_goes_on() {
    let port = free_port();
    let mut websockify = start(port, "--stop-timeout=2", "ignore-term serve");
    let leader = websockify.leader();
    websockify.signal(Signal::SIGTERM);
    websockify.signal(Signal::SIGUSR2);
    // Whether the hand-over still takes place is not promised; the end of both processes is.
    assert_eq!(websockify.wait(), 0);
    assert!(!leader.is_alive());
    assert_eq!(websockify.remnants(), []);
}

/// O2, W5: the new binary knows which processes are leftovers of sessions, and which children this process
/// had before it executed websockify.
#[test]
fn o2_whose_a_process_is_does_not_change() {
    let (port, notes) = (free_port(), Notes::new());
    let script = format!(
        "{Actor} note {stranger} sleep & exec {WEBSOCKIFY} {port} --wrap-mode=respawn -- \
         {Actor} bind {port} listen accept close-listener helper greet echo exit 0",
        stranger = notes.note("stranger"),
    );
    let mut websockify = Websockify::launch(Command::new("sh").args(["-c", &script]));
    websockify.wait_until_open();
    session(port);
    websockify.nth_leader(2);
    hand_over(&websockify);
    session(port);
    websockify.nth_leader(3);
    let stranger = fs::read_to_string(notes.note("stranger")).unwrap();
    let stranger = Process::find(stranger.trim().parse().unwrap()).unwrap();
    assert_eq!(websockify.logged(&["daemonized"]), Vec::<String>::new());
    assert_eq!(websockify.stop(), 0);
    assert_none_failed(&websockify);
    assert_eq!(websockify.remnants(), [stranger], "leftovers are stopped, and strangers are not");
}

/// A program that asks a question at its first start has the terminal, whichever binary has lent it.
#[test]
fn o2_the_terminal_stays_lent() {
    let port = free_port();
    let arguments = format!("{port} -- {Actor} ask bind {port} listen serve");
    let (mut websockify, mut keyboard) = Websockify::at_terminal(&arguments, |_| {});
    let leader = websockify.leader();
    let in_foreground = || leader.stat().tpgid;
    wait_until("the terminal is the program's", || in_foreground() == leader.pid);
    hand_over(&websockify);
    assert_eq!(in_foreground(), leader.pid);
    keyboard.write_all(b"secret\n").unwrap();
    websockify.wait_until_open();
    session(port);
    wait_until("the terminal is ours again", || in_foreground() == websockify.pid());
    assert_eq!(websockify.stop(), 0);
    assert_none_failed(&websockify);
}

/// O2, A1: the file of client addresses that programs have mapped stays the same.
#[test]
fn o2_the_program_sees_its_clients_afterwards() {
    if !needs(&["python3"]) {
        return;
    }
    let (websockify, port) = start_address_reporter("--client-address=socket", "");
    for n in [1, 2, 1] {
        let (mut one, from) = session_from(client(n), port);
        let expected = format!("{} {}", from.ip(), from.port());
        assert_eq!(ask(&mut one), (expected.clone(), expected));
        hand_over(&websockify);
    }
    assert_eq!(websockify.warnings(), Vec::<String>::new());
}

/// O2: in a PID namespace that was entered by nsenter(1) or made by unshare(1), the session of websockify and of the
/// program has no number, and neither has websockify's process group.
#[test]
fn o2_in_a_session_from_outside_the_pid_namespace() {
    let Some(mut command) = in_pid_namespace() else { return };
    let port = free_port();
    command.arg(WEBSOCKIFY);
    let line = format!("{port} --wrap-mode=respawn -- {Actor} bind {port} listen serve");
    let mut unshare = Websockify::launch(command.args(line.split(' ')));
    unshare.wait_until_open();
    let tree = unshare.tree();
    let websockify = tree.iter().find(|below| below.stat().ppid == unshare.pid()).unwrap();
    session(port);
    for nth in 1..=2 {
        websockify.signal(Signal::SIGUSR2);
        wait_until("taken over", || unshare.logged(&["INFO taken over: "]).len() == nth);
        session(port);
    }
    unshare.assert_logged(&["program started"], 1);
    websockify.signal(Signal::SIGTERM);
    assert_eq!(unshare.wait(), 0);
    assert_eq!(unshare.remnants(), []);
    assert_eq!(unshare.warnings(), Vec::<String>::new());
}
