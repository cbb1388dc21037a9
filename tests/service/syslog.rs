//! `--syslog`: what a server receives, in either format, and that a server that is away holds up nothing (U7).

use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use tempfile::TempDir;

use crate::support::{
    Client, Footprint, Websockify, echo_service, free_port, wait_for, wait_until,
};

/// The first record with this part in it.
fn heard(receive: impl Fn(&mut [u8]) -> std::io::Result<usize>, part: &str) -> String {
    wait_for(&format!("{part:?} at the server"), || {
        let mut room = [0; 9000];
        let length = receive(&mut room).ok()?;
        Some(String::from_utf8_lossy(&room[..length]).into_owned()).filter(|it| it.contains(part))
    })
}

#[test]
fn u7_a_local_syslog_hears_each_record_and_so_does_standard_error() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("log");
    let server = UnixDatagram::bind(&path).unwrap();
    server.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let options = format!("--syslog={}", path.display());
    let (service, port) = (echo_service(), free_port());
    let line = format!("{options} {port} {}", service.target());
    let mut websockify = Websockify::start(&line);
    let said = heard(|room| server.recv(room), "listening on");
    let head = format!(" websockify {} - - listening on", websockify.pid());
    assert!(said.starts_with("<14>1 20") && said.contains(&head), "{said}");
    websockify.wait_for_log(&["listening on"]);

    // A server that goes away and comes back, as at its update.
    drop(server);
    std::fs::remove_file(&path).unwrap();
    let mut client = Client::connect(port);
    client.send("hello");
    assert_eq!(client.read(5), b"hello");
    websockify.wait_for_log(&["session started"]);
    let server = UnixDatagram::bind(&path).unwrap();
    server.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    client.close();
    heard(|room| server.recv(room), "session ended");
    assert_eq!(websockify.stop(), 0);
}

#[test]
fn u7_a_syslog_by_udp_hears_the_older_format_and_the_programs_output() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let address = server.local_addr().unwrap();
    let line = format!("--syslog={address} --legacy-syslog {}", free_port());
    let mut websockify = Websockify::start_with(&line, |command| {
        command.args(["--", "sh", "-c", "echo from the program; exit 3"]);
    });
    assert_eq!(websockify.wait(), 3);
    let said = heard(|room| server.recv(room), "from the program");
    let tag = format!(" websockify[{}]: sh[", websockify.pid());
    assert!(said.starts_with("<14>") && !said.starts_with("<14>1 "), "{said}");
    assert!(said.contains(&tag) && said.ends_with("]: from the program"), "{said}");
}

#[test]
fn u7_a_syslog_that_is_away_is_said_once_and_holds_up_nobody() {
    let directory = TempDir::new().unwrap();
    let (service, port) = (echo_service(), free_port());
    let line = format!("--syslog={}/log {port} {}", directory.path().display(), service.target());
    let mut websockify = Websockify::start(&line);
    let mut client = Client::connect_once_open(port);
    client.send("hello");
    assert_eq!(client.read(5), b"hello");
    websockify.assert_logged(&["cannot reach syslog at", "no such file"], 1);
    assert_eq!(websockify.stop(), 0);
}

/// L6, U7: syslog hung: no session is held up, and not our end; the records that wait arrive when it goes on.
#[test]
fn u7_a_syslog_that_hangs_holds_up_nobody() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("log");
    let server = UnixDatagram::bind(&path).unwrap();
    server.set_nonblocking(true).unwrap();
    let (service, port) = (echo_service(), free_port());
    let line = format!("--syslog={} {port} {}", path.display(), service.target());
    let mut websockify = Websockify::start(&line);
    let session = || {
        let mut client = Client::connect_once_open(port);
        client.send("hello");
        assert_eq!(client.read(5), b"hello");
        client.close();
    };
    session();
    let before = Footprint::at_rest(&websockify);
    // The socket has room for a dozen of the thousand records.
    (0..500).for_each(|_| session());
    before.wait_until_back(&websockify);
    // The server goes on, and receives the records that waited for it.
    let mut heard = 0;
    wait_until("the records", || {
        heard += usize::from(server.recv(&mut [0; 9000]).is_ok());
        heard > 500
    });
    assert_eq!(websockify.stop(), 0);
}

#[test]
fn u7_a_syslog_that_goes_away_later_is_said_once() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("log");
    let server = UnixDatagram::bind(&path).unwrap();
    let (service, port) = (echo_service(), free_port());
    let line = format!("--syslog={} {port} {}", path.display(), service.target());
    let mut websockify = Websockify::start(&line);
    websockify.wait_until_open();
    assert_eq!(websockify.warnings(), Vec::<String>::new());
    drop(server);
    std::fs::remove_file(&path).unwrap();
    for _ in 0..3 {
        Client::connect(port).close();
    }
    websockify.wait_for_log(&["WARN cannot reach syslog at", "no such file"]);
    assert_eq!(websockify.stop(), 0);
    websockify.assert_logged(&["cannot reach syslog"], 1);
}

/// U7: the start does not wait until the server's name is looked up; the log says if it has no address.
#[test]
fn u7_a_syslog_whose_host_has_no_address_is_said_once_in_the_log() {
    let service = echo_service();
    let line = format!("--syslog=nowhere.invalid:514 {} {}", free_port(), service.target());
    let mut websockify = Websockify::start(&line);
    websockify.wait_for_log(&["WARN cannot reach syslog at nowhere.invalid:514"]);
    websockify.wait_for_log(&["proxying from"]);
    assert_eq!(websockify.stop(), 0);
    websockify.assert_logged(&["cannot reach syslog"], 1);
}

#[test]
fn u7_a_daemon_has_its_own_facility() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("log");
    let server = UnixDatagram::bind(&path).unwrap();
    server.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let service = echo_service();
    let line = format!("-D --syslog={} {} {}", path.display(), free_port(), service.target());
    let mut websockify = Websockify::start(&line);
    assert_eq!(websockify.wait(), 0);
    let said = heard(|room| server.recv(room), "proxying from");
    assert!(said.starts_with("<30>1 "), "{said}");
    let daemon = super::daemon(&websockify);
    daemon.signal(nix::sys::signal::Signal::SIGTERM);
    crate::support::wait_until("the daemon's end", || !daemon.is_alive());
}
