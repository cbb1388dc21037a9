//! The manual page's `websockify 2023 --wrap-mode=respawn -- telnetd -debug 2023` with the telnetd
//! of telnetd-ssl, and as much of a telnet client as that takes (W4, W13).

use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use crate::support::{Client, Websockify, free_port, needs, needs_root, wait_until, write_script};

/// Telnet commands (RFC 854).
const IAC: u8 = 255;
const DONT: u8 = 254;
const DO: u8 = 253;
const WONT: u8 = 252;
const WILL: u8 = 251;
const SB: u8 = 250;
const SE: u8 = 240;

/// A session takes telnetd four seconds: with `-debug` it sleeps before it begins to speak. Of ten clients that come
/// together, the last one is held for longer than `--wrap-timeout`: that time begins anew whenever another one is accepted.
const PATIENCE: Duration = Duration::from_secs(120);

/// A telnet client that refuses every option.
pub(crate) struct Telnet {
    client: Client,
    /// What was received without the commands.
    text: String,
}

impl Telnet {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, text: String::new() }
    }

    fn type_line(&mut self, line: &str) {
        self.client.send(format!("{line}\r\n"));
    }

    /// The text up to `end` and with it.
    pub(crate) fn read_until(&mut self, end: &str) -> String {
        while !self.text.contains(end) {
            match self.byte() {
                IAC => self.command(),
                byte => self.text.push(byte.into()),
            }
        }
        let at = self.text.find(end).unwrap() + end.len();
        let rest = self.text.split_off(at);
        std::mem::replace(&mut self.text, rest)
    }

    fn command(&mut self) {
        match self.byte() {
            verb @ (DO | WILL) => {
                let option = self.byte();
                self.client.send([IAC, if verb == DO { WONT } else { DONT }, option]);
            }
            DONT | WONT => drop(self.byte()),
            SB => while (self.byte(), self.byte()) != (IAC, SE) {},
            IAC => self.text.push('\u{ff}'),
            _ => {}
        }
    }

    fn byte(&mut self) -> u8 {
        self.client.read(1)[0]
    }

    fn client(self) -> Client {
        self.client
    }
}

/// A login program that lets everybody in, and prints its PID.
pub(super) const LOGIN: &str = "#!/bin/sh
echo \"session $$ begins\"
while read -r line; do
    case $line in
    bye*) exit ;;
    *) echo \"it was: $line\" ;;
    esac
done
";

/// telnetd as the manual page has it, but for the login.
struct Telnetd {
    _directory: TempDir,
    websockify: Websockify,
    port: u16,
}

impl Telnetd {
    fn start() -> Option<Self> {
        // It opens a pseudo-terminal for a login.
        if !needs(&["in.telnetd"]) || !needs_root() {
            return None;
        }
        let directory = TempDir::new().unwrap();
        let login = directory.path().join("login");
        write_script(&login, LOGIN);
        let port = free_port();
        let websockify = Websockify::start(&format!(
            "{port} --wrap-mode=respawn -- in.telnetd -L {} -debug {port}",
            login.display()
        ));
        websockify.wait_until_open();
        Some(Self { _directory: directory, websockify, port })
    }

    fn assert_served(mut self, mut pids: Vec<String>) {
        pids.sort();
        pids.dedup();
        assert_eq!(pids.len(), 10, "each client its own session: {pids:?}");
        let ended = ["session ended"];
        wait_until("ten records", || self.websockify.logged(&ended).len() == 10);
        assert!(self.websockify.logged(&["code 1011"]).is_empty());
        self.websockify.nth_leader(11);
        assert_eq!(self.websockify.stop(), 0);
        assert_eq!(self.websockify.remnants(), []);
    }
}

/// A whole telnet session; gives the PID of the login. A session with an even number is ended by the login, one with an
/// odd number by the client.
pub(super) fn session(port: u16, number: u32) -> String {
    let mut client = Client::connect(port);
    client.be_patient(PATIENCE);
    let mut telnet = Telnet::new(client);
    let line = &format!("client {number}");
    telnet.read_until("session ");
    let pid = telnet.read_until(" begins");
    telnet.type_line(line);
    telnet.read_until(&format!("it was: {line}"));
    let closing = if number.is_multiple_of(2) {
        telnet.type_line("bye");
        telnet.client().closing()
    } else {
        telnet.client().close()
    };
    assert_eq!(closing.code, 1000, "{closing:?}");
    pid
}

#[test]
fn w13_ten_telnet_clients_one_after_the_other_are_ten_sessions() {
    let Some(telnetd) = Telnetd::start() else { return };
    telnetd.websockify.assert_alone_on(telnetd.port);
    let pids = (0..10).map(|number| session(telnetd.port, number)).collect();
    assert_eq!(telnetd.websockify.logged(&["respawning too fast"]), Vec::<String>::new());
    telnetd.assert_served(pids);
}

#[test]
fn w13_ten_telnet_clients_together_are_ten_sessions() {
    let Some(telnetd) = Telnetd::start() else { return };
    let pids = thread::scope(|scope| {
        let port = telnetd.port;
        let client = move |number| session(port, number);
        let sessions: Vec<_> = (0..10).map(|number| scope.spawn(move || client(number))).collect();
        sessions.into_iter().map(|session| session.join().unwrap()).collect()
    });
    telnetd.assert_served(pids);
}

/// W4: clients that hang up in the middle, as a closed browser tab does.
#[test]
fn w4_telnet_clients_that_vanish_leave_the_next_ones_a_session() {
    let Some(telnetd) = Telnetd::start() else { return };
    for number in 0..2 {
        Telnet::new(Client::connect(telnetd.port)).read_until(" begins");
        session(telnetd.port, number);
    }
}
