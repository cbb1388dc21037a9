//! The log as a person at a terminal sees it.

use std::fs::File;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::support::{
    Caller, Client, Heard, OF_SYSTEMD, SERVERS, WEBSOCKIFY, connect, echo_service, frame,
    free_port, terminal, wait_for, wait_until,
};

struct AtTerminal {
    child: Child,
    shown: Heard,
}

impl AtTerminal {
    fn start(port: u16, prepare: impl FnOnce(&mut Command)) -> Self {
        Self::start_by(WEBSOCKIFY, port, prepare)
    }

    /// Starts a program that becomes websockify by `exec`; `prepare` gives its first arguments, before the port and the target.
    fn start_by(program: &str, port: u16, prepare: impl FnOnce(&mut Command)) -> Self {
        let pty = terminal();
        let mut command = Command::new(program);
        for name in OF_SYSTEMD {
            command.env_remove(name);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(pty.slave);
        prepare(&mut command);
        command.args([port.to_string(), echo_service().target()]);
        let child = command.spawn().unwrap();
        drop(command);
        let shown = Heard::of(File::from(pty.master));
        let terminal = Self { child, shown };
        wait_until("an open bridge", || terminal.shown.text().contains("listening on"));
        terminal
    }

    /// Stops websockify; gives what was shown until its end.
    fn stop(self) -> String {
        self.stop_by(Signal::SIGTERM)
    }

    fn stop_by(mut self, signal: Signal) -> String {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
        let status = wait_for("its end", || self.child.try_wait().unwrap());
        assert_eq!(status.code(), Some(0));
        wait_until("the end of the log", || self.shown.ended());
        self.shown.text()
    }
}

impl Drop for AtTerminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a client sends cannot move the cursor of a terminal that shows the log.
#[test]
fn d3_lines_at_a_terminal_have_no_control_characters_of_a_client() {
    let port = free_port();
    let terminal = AtTerminal::start(port, |_| {});
    let mut client = Client::connect(port);
    // A close frame: 4000, and a reason.
    let reason = [&4000_u16.to_be_bytes()[..], b"\x1b[2J\n\xc2\x9b"].concat();
    std::io::Write::write_all(client.stream(), &frame(0x88, &reason)).unwrap();
    wait_until("a session's end", || terminal.shown.text().contains("session ended"));
    let shown = terminal.stop();
    let ended = shown.lines().find(|line| line.contains("session ended")).unwrap();
    assert!(ended.contains(r"\u{1b}[2J\n\u{9b}"), "{ended:?}");
    assert!(!ended.contains("\x1b[2J") && !ended.contains('\u{9b}'), "{ended:?}");
}

#[test]
fn f51_d3_lines_at_a_terminal_are_short_and_coloured() {
    let port = free_port();
    let terminal = AtTerminal::start(port, |command| {
        command.env_remove("NO_COLOR");
    });
    let shown = terminal.stop();
    let line = shown.lines().find(|line| line.contains("listening on")).unwrap();
    assert!(line.starts_with("\x1b[32m INFO"), "green, and no date: {line:?}");
    assert!(!line.contains("websockify"), "no module: {line:?}");

    let plain = AtTerminal::start(port, |command| {
        command.env("NO_COLOR", "1");
    });
    assert!(!plain.stop().contains('\x1b'));
}

/// A websockify that is started by nohup(1), or with `trap '' HUP`, outlives the terminal.
#[test]
fn f33_sighup_that_was_ignored_stays_ignored() {
    let port = free_port();
    let mut terminal = AtTerminal::start_by("env", port, |command| {
        command.args(["--ignore-signal=HUP", WEBSOCKIFY]);
    });
    let mut client = Client::connect(port);
    let pid = terminal.child.id().try_into().unwrap();
    kill(Pid::from_raw(pid), Signal::SIGHUP).unwrap();
    let status = procfs::process::Process::new(pid).unwrap().status().unwrap();
    assert_eq!(status.sigign & 1, 1, "it could still come");
    client.send("hello");
    assert_eq!(client.read(5), b"hello");
    assert_eq!(client.close().code, 1000);
    assert!(terminal.child.try_wait().unwrap().is_none());
    terminal.stop();
}

/// T5: SIGHUP says that the terminal is gone.
#[test]
fn t5_at_a_terminal_sighup_is_a_stop() {
    AtTerminal::start(free_port(), |_| {}).stop_by(Signal::SIGHUP);
}

/// A connection without a byte, or with half a head, or with a TLS handshake and no close_notify, is a
/// health check or a scanner: no line.
#[test]
fn d3_health_checks_make_no_noise() {
    let (port, directory) = (free_port(), TempDir::new().unwrap());
    std::fs::write(directory.path().join("self.pem"), SERVERS.issue("localhost").pem()).unwrap();
    let terminal = AtTerminal::start(port, |command| {
        command.current_dir(&directory);
    });
    for _ in 0..3 {
        drop(connect(port));
        drop(Caller::anonymous().call(port).unwrap());
        let mut half = connect(port);
        std::io::Write::write_all(&mut half, b"GET / HTT").unwrap();
        drop(half);
    }
    let mut client = Client::connect(port);
    client.send("hello");
    client.read(5);
    client.close();
    wait_until("a session's end", || terminal.shown.text().contains("session ended"));
    let shown = terminal.stop();
    let lines: Vec<_> = shown.lines().collect();
    assert_eq!(lines.len(), 4, "listening, proxying, session started, session ended: {shown}");
    let ended = lines[3].trim_end();
    assert!(ended.contains("ended: 1, 127.0.0.1:") && ended.ends_with(" code 1000"), "{ended}");
    assert!(!ended.contains('='), "in words: {ended}");
}
