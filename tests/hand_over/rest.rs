//! The rest: the forked copy of the old process that carries the TLS sessions of before a hand-over to their end,
//! with their keys and nothing else of the old process (O2).

use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::support::{
    Caller, Client, Process, SERVERS, Service, TlsConnection, Websockify, echo_service, free_port,
    is_refused, stays, wait_for, wait_until,
};

/// Longer than a test.
const LONG: &str = "--drain-timeout=1000";

/// A websockify with a certificate, its port, and all that it needs.
struct Stage {
    websockify: Websockify,
    port: u16,
    directory: TempDir,
    _service: Service,
}

impl Stage {
    fn new(options: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let pem = SERVERS.issue("localhost").pem();
        std::fs::write(directory.path().join("self.pem"), pem).unwrap();
        let (service, port) = (echo_service(), free_port());
        let websockify = Websockify::start_with("", |command| {
            command.current_dir(&directory).args(["--cert=self.pem", "--record=session"]);
            command.args(options.split_whitespace()).arg(format!("127.0.0.1:{port}"));
            command.arg(service.target());
        });
        websockify.wait_until_open();
        Self { websockify, port, directory, _service: service }
    }

    fn hand_over(&self, times: usize) {
        let before = self.websockify.logged(&["taken over"]).len();
        for nth in 1..=times {
            self.websockify.signal(Signal::SIGUSR2);
            wait_until("a hand-over", || {
                self.websockify.logged(&["taken over"]).len() == before + nth
            });
        }
    }

    fn encrypted(&self) -> TlsConnection {
        Caller::anonymous().session(self.port, &[]).unwrap()
    }

    /// The rests that are alive.
    fn rests(&self) -> Vec<Process> {
        self.websockify.remnants()
    }
}

#[test]
fn o2_encrypted_sessions_go_on_and_each_rest_ends_with_its_last() {
    let mut stage = Stage::new("");
    let (mut first, mut old) = (stage.encrypted(), Caller::old().session(stage.port, &[]).unwrap());
    let mut plain = Client::connect(stage.port);
    stage.hand_over(3);
    assert_eq!(stage.rests().len(), 1, "one image had encrypted sessions");
    let mut second = stage.encrypted();
    stage.hand_over(1);
    for session in [&mut first, &mut old, &mut second] {
        session.exchange(b"hello");
    }
    plain.send("hello");
    assert_eq!(plain.read(5), b"hello");
    assert_eq!(stage.rests().len(), 2);
    drop(second);
    wait_until("the end of a rest", || stage.rests().len() == 1);
    first.exchange(b"hello");
    drop((first, old));
    wait_until("the end of the other", || stage.rests().is_empty());
    plain.send("hello");
    assert_eq!(plain.read(5), b"hello");
    assert_eq!(stage.websockify.stop(), 0);
    stage.websockify.assert_logged(&["session ended"], 4);
}

/// S1: what passes after the hand-over is recorded after what passed before it.
#[test]
fn o2_the_recording_of_an_encrypted_session_goes_on() {
    let stage = Stage::new("");
    let mut session = stage.encrypted();
    session.exchange(b"before");
    stage.hand_over(1);
    session.exchange(b"behind");
    drop(session);
    let file = stage.directory.path().join("session.1");
    wait_until("the end of the recording", || {
        std::fs::read_to_string(&file).is_ok_and(|text| text.ends_with("'EOF'];\n"))
    });
    let text = std::fs::read_to_string(&file).unwrap();
    let position = |text_of: &str| text.find(text_of).unwrap_or_else(|| panic!("{text}"));
    assert!(position("}before") < position("}behind"), "{text}");
    assert_eq!(text.matches("VNC_frame_data").count(), 1);
}

/// L1: where the sessions and their recordings have nearly all descriptors that there may be, all of them go on.
#[test]
fn o2_l1_no_recorded_session_ends_where_descriptors_are_few() {
    const SESSIONS: usize = 60;
    let stage = Stage::new("");
    let mut sessions: Vec<_> = (0..SESSIONS).map(|_| stage.encrypted()).collect();
    let file = |nth: usize| stage.directory.path().join(format!("session.{nth}"));
    wait_until("all recordings", || (1..=SESSIONS).all(|nth| file(nth).exists()));
    let open =
        || std::fs::read_dir(format!("/proc/{}/fd", stage.websockify.pid())).unwrap().count();
    // Enough for what a hand-over opens, and far less than one for each session.
    let most = open() + 30;
    let limit = [format!("--nofile={most}:"), format!("--pid={}", stage.websockify.pid())];
    assert!(Command::new("prlimit").args(limit).status().unwrap().success());
    stage.hand_over(1);
    for session in &mut sessions {
        session.exchange(b"behind");
    }
    drop(sessions);
    wait_until("the ends of all recordings", || {
        let texts = (1..=SESSIONS).map(|nth| std::fs::read_to_string(file(nth)).unwrap());
        texts.into_iter().all(|text| text.contains("}behind") && text.ends_with("'EOF'];\n"))
    });
}

/// B8: websockify is not idle while a rest has sessions.
#[test]
fn o2_b8_an_idle_timeout_waits_for_the_sessions_of_a_rest() {
    let mut stage = Stage::new("--idle-timeout=2");
    let mut session = stage.encrypted();
    stage.hand_over(1);
    stays(Duration::from_secs(4), "websockify", || stage.websockify.is_running());
    let mut other = stage.encrypted();
    other.exchange(b"hello");
    drop(other);
    session.exchange(b"hello");
    drop(session);
    assert_eq!(stage.websockify.wait(), 0);
    stage.websockify.assert_logged(&["--idle-timeout reached"], 1);
    assert!(stage.rests().is_empty());
}

/// W9: a rest is asked to stop when websockify is, and leaves no process.
#[test]
fn o2_w9_a_stop_closes_the_sessions_of_a_rest_too() {
    let mut stage = Stage::new("");
    let mut session = stage.encrypted();
    stage.hand_over(1);
    session.exchange(b"hello");
    let rests = stage.rests();
    assert_eq!(stage.websockify.stop(), 0);
    assert!(rests.len() == 1 && !rests[0].is_alive(), "{rests:?}");
    stage.websockify.assert_logged(&["session ended", "1001"], 1);
    assert!(is_refused(std::net::Ipv4Addr::LOCALHOST, stage.port));
}

/// O1: a drain waits for the sessions of a rest, and a second signal does not.
#[test]
fn o2_o1_a_drain_is_one_of_a_rest_too() {
    for is_cut_short in [false, true] {
        let mut stage = Stage::new(LONG);
        let mut session = stage.encrypted();
        stage.hand_over(1);
        stage.websockify.signal(Signal::SIGTERM);
        wait_until("a drain", || is_refused(std::net::Ipv4Addr::LOCALHOST, stage.port));
        stays(Duration::from_millis(300), "websockify", || stage.websockify.is_running());
        session.exchange(b"hello");
        if is_cut_short {
            stage.websockify.signal(Signal::SIGTERM);
        } else {
            drop(session);
        }
        assert_eq!(stage.websockify.wait(), 0, "{is_cut_short}");
    }
}

/// W10: when websockify is killed, its rest ends, too.
#[test]
fn o2_w10_a_rest_ends_when_we_are_killed() {
    let mut stage = Stage::new("");
    let mut session = stage.encrypted();
    stage.hand_over(1);
    session.exchange(b"hello");
    let rest = wait_for("a rest", || stage.rests().pop());
    stage.websockify.signal(Signal::SIGKILL);
    stage.websockify.wait();
    wait_until("the end of the rest", || !rest.is_alive());
}
