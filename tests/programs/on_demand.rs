//! Debian's programs, started by their first client and stopped after the last (O5): telnetd, which serves one
//! session an instance, vncserver, which goes into the background, Python's web server and socat, which do neither; also
//! with a socket that systemd has opened (D4).

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use super::telnet::{LOGIN, session};
use super::vnc::{self, Display};
use crate::support::{
    Client, DEADLINE, WEBSOCKIFY, Websockify, free_port, needs, needs_root, stays, uninterrupted,
    wait_for_within, wait_until, write_script,
};

/// How long a test watches that something does not happen.
const WHILE: Duration = Duration::from_millis(500);

fn started(websockify: &Websockify) -> usize {
    websockify.logged(&["program started"]).len()
}

/// Checks that no process of the program runs, and that none is started.
fn assert_asleep(websockify: &Websockify) {
    stays(WHILE, "no process", || websockify.tree().is_empty());
}

fn wait_for_stop(websockify: &Websockify, times: usize) {
    wait_for_within(3 * DEADLINE, "the end of an idle program", || {
        let stops = websockify.logged(&["program is stopped: no session is left"]).len();
        (stops == times && websockify.tree().is_empty()).then_some(())
    });
    assert_asleep(websockify);
}

/// A web request through a session; gives the status line.
fn get(client: &mut Client) -> String {
    client.be_patient(2 * DEADLINE);
    client.send("GET / HTTP/1.0\r\n\r\n");
    client.read_line()
}

/// Checks a program that runs until it is stopped. `visit` is what a client does in its session.
fn comes_and_goes(command: &dyn Fn(u16) -> String, visit: fn(&mut Client)) {
    for mode in ["exit", "respawn", "ignore"] {
        let port = free_port();
        let mut websockify = Websockify::start(&format!(
            "{port} --start=on-demand --stop-idle=1 --wrap-mode={mode} -- {}",
            command(port)
        ));
        websockify.wait_until_open();
        assert_asleep(&websockify);
        for time in 1..=2 {
            let connect = |_| thread::spawn(move || Client::connect(port));
            let clients: Vec<_> = (0..20).map(connect).collect();
            let mut clients: Vec<_> = clients.into_iter().map(|it| it.join().unwrap()).collect();
            clients.iter_mut().skip(1).for_each(visit);
            websockify.assert_alone_on(port);
            websockify.assert_logged(&["program started"], time);
            visit(&mut clients[0]);
            for client in clients {
                client.close();
            }
            wait_for_stop(&websockify, time);
        }
        assert_eq!(websockify.logged(&["code 1011"]), Vec::<String>::new(), "{mode}");
        assert_eq!(websockify.stop(), 0, "{mode}");
    }
}

#[test]
fn o5_pythons_web_server_comes_and_goes() {
    if !needs(&["python3"]) {
        return;
    }
    let directory = TempDir::new().unwrap();
    let path = directory.path().display();
    let command = |port| format!("python3 -m http.server --directory {path} {port}");
    comes_and_goes(&command, |client| assert!(get(client).contains(" 200 ")));
}

#[test]
fn o5_socat_comes_and_goes() {
    if !needs(&["socat"]) {
        return;
    }
    let command = |port| format!("socat TCP-LISTEN:{port},fork,reuseaddr EXEC:cat");
    comes_and_goes(&command, |client| {
        client.be_patient(2 * DEADLINE);
        client.send("hello");
        assert_eq!(client.read(5), b"hello");
    });
}

/// O5, W4: each instance ends with its session, and the next one is started only if a client is there.
#[test]
fn o5_telnetd_runs_while_somebody_is_there() {
    // It opens a pseudo-terminal for a login.
    if !needs(&["in.telnetd"]) || !needs_root() {
        return;
    }
    let directory = TempDir::new().unwrap();
    let login = directory.path().join("login");
    write_script(&login, LOGIN);
    let port = free_port();
    let mut websockify = Websockify::start(&format!(
        "{port} --start=on-demand --stop-idle=60 --wrap-mode=respawn -- in.telnetd -L {} -debug {port}",
        login.display()
    ));
    websockify.wait_until_open();
    assert_asleep(&websockify);
    for number in 0..2 {
        session(port, number);
        let ended = usize::try_from(number).unwrap() + 1;
        wait_until("its end", || websockify.logged(&["first process has ended"]).len() == ended);
        stays(WHILE, "no other instance", || started(&websockify) == ended);
    }
    thread::scope(|scope| {
        for number in 2..5 {
            scope.spawn(move || session(port, number));
        }
    });
    wait_until("the last end", || websockify.logged(&["first process has ended"]).len() == 5);
    stays(WHILE, "no other instance", || started(&websockify) == 5);
    assert_eq!(websockify.stop(), 0);
    assert_eq!(websockify.remnants(), []);
}

/// A session with a desktop, as far as its greeting.
fn look(port: u16) -> Client {
    let mut client = Client::connect(port);
    client.be_patient(3 * DEADLINE);
    assert_eq!(client.read(12), b"RFB 003.008\n");
    client
}

/// O5, W13: a desktop that runs while somebody looks at it.
#[test]
fn o5_a_desktop_of_vncserver_comes_and_goes() {
    if !vnc::installed() {
        return;
    }
    for mode in ["respawn", "ignore"] {
        let display = Display::new();
        let (port, number) = (display.port(), display.number);
        let arguments = format!(
            "{port} --start=on-demand --stop-idle=1 --wrap-mode={mode} -- vncserver :{number} \
             -SecurityTypes None --I-KNOW-THIS-IS-INSECURE -xstartup /usr/bin/xterm"
        );
        let mut websockify = Websockify::start_with(&arguments, |command| {
            command.env("HOME", display.home.path());
            command.env_remove("DISPLAY").env_remove("XAUTHORITY");
        });
        websockify.wait_until_open();
        assert_asleep(&websockify);
        for time in 1..=2 {
            let client = look(port);
            wait_for_within(3 * DEADLINE, "a desktop in the background", || {
                let daemons = websockify.logged(&["has daemonized as", "(Xtigervnc)"]).len();
                (daemons == time).then_some(())
            });
            client.close();
            wait_for_stop(&websockify, time);
        }
        websockify.assert_logged(&["program started"], 2);
        assert_eq!(websockify.stop(), 0, "{mode}");
        assert_eq!(websockify.remnants(), [], "{mode}");
    }
}

fn next(manager: &UnixDatagram) -> String {
    let mut message = [0; 4096];
    let length = uninterrupted(|| manager.recv(&mut message)).expect("a notification in time");
    String::from_utf8(message[..length].to_vec()).unwrap()
}

/// O5, D4: with a socket that systemd has opened. systemd is told that websockify is ready when clients can connect, and
/// the state of the program.
#[test]
fn o5_d4_systemd_opens_the_port_and_hears_how_it_stands() {
    if !needs(&["systemd-socket-activate", "python3"]) {
        return;
    }
    let directory = TempDir::new().unwrap();
    let socket = directory.path().join("notify");
    let manager = UnixDatagram::bind(&socket).unwrap();
    manager.set_read_timeout(Some(DEADLINE)).unwrap();
    let (public, port) = (free_port(), free_port());
    let mut websockify = activated(public, &socket, port, directory.path());
    // The first connection makes systemd start websockify, but not yet the program.
    drop(std::net::TcpStream::connect(("127.0.0.1", public)).unwrap());
    let asleep = "STATUS=Waiting for a client to start the program for";
    assert_eq!([next(&manager), next(&manager)], [asleep, "READY=1"]);
    assert_asleep(&websockify);
    for time in 1..=2 {
        assert!(get(&mut Client::connect(public)).contains(" 200 "));
        websockify.assert_logged(&["program started"], time);
        wait_for_stop(&websockify, time);
        let mut messages = vec![];
        while messages.last().is_none_or(|last| last != asleep) {
            messages.push(next(&manager));
        }
        let [starting, bridging, stopping, _] = &messages[..] else { panic!("{messages:?}") };
        assert!(starting.contains("Waiting for the program to listen"), "{messages:?}");
        assert!(bridging.contains("Bridging to the program"), "{messages:?}");
        assert!(stopping.contains("Stopping the program"), "{messages:?}");
    }
    assert_eq!(websockify.stop(), 0);
}

fn activated(public: u16, notify: &Path, port: u16, directory: &Path) -> Websockify {
    let mut activate = Command::new("systemd-socket-activate");
    activate.args(["-l", &format!("127.0.0.1:{public}"), "-E"]);
    activate.arg(format!("NOTIFY_SOCKET={}", notify.display()));
    for name in ["TMPDIR", "WEBSOCKIFY_TEST", "PATH", "HOME"] {
        activate.args(["-E", name]);
    }
    activate.arg(WEBSOCKIFY).args(["--start=on-demand", "--stop-idle=1", &port.to_string(), "--"]);
    activate.args(["python3", "-m", "http.server", "--directory"]).arg(directory);
    let websockify = Websockify::launch(activate.arg(port.to_string()));
    websockify.wait_for_log(&["Listening on"]);
    websockify
}
