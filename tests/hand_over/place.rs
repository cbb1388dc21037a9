//! What a hand-over leaves as it was: the process, its sockets and files, its secrets, clients that wait.

use std::fs;
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::Bridge;
use crate::admin::{get, metric};
use crate::service::systemd::Manager;
use crate::support::{
    Client, Process, UPGRADE, WEBSOCKIFY, Websockify, ask, connect, copy_program, echo_service,
    free_port, is_refused, listeners_of, text_of, wait_until,
};

#[test]
fn o2_the_new_file_takes_over_as_the_same_process_with_the_same_sockets() {
    let mut bridge = Bridge::start("");
    let process = Process::find(bridge.websockify.pid()).unwrap();
    let mut listening = listeners_of(std::slice::from_ref(&process));
    listening.sort_unstable();
    bridge.replace(|new| copy_program(WEBSOCKIFY, new));
    assert!(bridge.executed().to_str().unwrap().ends_with(" (deleted)"));
    let line = bridge.command_line();
    bridge.hand_over(1);
    assert!(process.is_alive(), "it began when it began");
    assert_eq!(Process::find(process.pid).unwrap().name, "websockify");
    assert_eq!(bridge.executed(), bridge.binary());
    assert_eq!(bridge.command_line(), line);
    let mut now = listeners_of(std::slice::from_ref(&process));
    now.sort_unstable();
    assert_eq!(now, listening);
    bridge.assert_serves();
    let pause = bridge.websockify.wait_for_log(&["INFO taken over: 0 sessions, pause ", " ms"]);
    assert!(!pause.contains("WARN"), "{pause}");
    let handing = format!("INFO handing over to {}", bridge.binary().display());
    bridge.websockify.assert_logged(&[&handing], 1);
    bridge.websockify.assert_logged(&["listening on"], 1);
    assert_eq!(bridge.websockify.stop(), 0);
    assert!(is_refused(Ipv4Addr::LOCALHOST, bridge.port));
    assert_eq!(bridge.websockify.warnings(), Vec::<String>::new());
}

/// The kernel cuts a process's name at 15 bytes, which may be within a letter. What proc(5) says beside the name is read all
/// the same: which signals websockify was started to ignore, and where its command line is, to overwrite the password.
#[test]
fn o2_c9_f33_a_websockify_whose_name_is_cut_within_a_letter_is_as_any_other() {
    let (service, port, directory) = (echo_service(), free_port(), TempDir::new().unwrap());
    let binary = directory.path().join("вебсокетифай");
    copy_program(WEBSOCKIFY, &binary);
    let mut command = Command::new("env");
    command.arg("--ignore-signal=HUP").arg(&binary).args([&port.to_string(), &service.target()]);
    command.args(["--auth-plugin=BasicHTTPAuth", "--auth-source=me:secret"]);
    let mut websockify = Websockify::launch(&mut command);
    websockify.wait_until_open();
    let read = |file: &str| fs::read(format!("/proc/{}/{file}", websockify.pid())).unwrap();
    let name = read("comm");
    assert_eq!(name.strip_suffix(b"\n"), Some(&"вебсокетифай".as_bytes()[..15]));
    websockify.signal(Signal::SIGUSR2);
    websockify.wait_for_log(&["INFO taken over: "]);
    assert_eq!(read("comm"), name);
    let line = text_of(&read("cmdline"));
    assert!(line.ends_with("--auth-source=*********\0"), "{line:?}");
    let status = text_of(&read("status"));
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:\t")).unwrap();
    assert!(ignored.ends_with(['1', '3', '5', '7', '9', 'b', 'd', 'f']), "{ignored}");
    assert_eq!(websockify.stop(), 0);
    assert_eq!(websockify.warnings(), Vec::<String>::new());
}

/// O2: ten hand-overs, also by a binary that has itself taken over; none leaves descriptors or processes behind.
#[test]
fn o2_ten_times_in_a_row_leave_nothing_behind() {
    let mut bridge = Bridge::start("");
    bridge.hand_over(1);
    bridge.assert_serves();
    let before = bridge.descriptors();
    for nth in 2..=10 {
        bridge.hand_over(nth);
        bridge.assert_serves();
    }
    wait_until("no more descriptors than before", || bridge.descriptors() <= before);
    assert_eq!(bridge.websockify.tree(), []);
    assert_eq!(bridge.websockify.stop(), 0);
}

/// O2: a request that comes during a hand-over is refused with a log line, or served later; the signal kills no
/// process.
#[test]
fn o2_a_storm_of_requests_is_survived() {
    let mut bridge = Bridge::start("");
    let process = Process::find(bridge.websockify.pid()).unwrap();
    for _ in 0..200 {
        bridge.ask();
        std::thread::yield_now();
    }
    bridge.websockify.wait_for_log(&["INFO taken over: "]);
    bridge.assert_serves();
    assert!(process.is_alive());
    assert_eq!(bridge.websockify.stop(), 0);
}

/// O2, L2: a client that waits because as many connections are open as may be goes on waiting, and is not refused for
/// the hand-over.
#[test]
fn o2_l2_who_waits_for_a_place_waits_on() {
    let mut bridge = Bridge::start("--max-connections=2");
    let mut session = Client::connect(bridge.port);
    session.send("x");
    assert_eq!(session.read(1), b"x");
    // Some of these are accepted while it is not known yet which gets the free place, others wait in the accept
    // queue.
    let port = bridge.port;
    let waiting: Vec<_> = (0..6)
        .map(|_| {
            let stream = connect(port);
            std::thread::spawn(move || {
                let address = stream.peer_addr().unwrap();
                let mut client = Client::over(stream, address).unwrap();
                client.send("y");
                assert_eq!(client.read(1), b"y");
                assert_eq!(client.close().code, 1000);
            })
        })
        .collect();
    bridge.hand_over(1);
    for waits in waiting {
        waits.join().unwrap();
    }
    session.send("x");
    assert_eq!(session.read(1), b"x");
    assert_eq!(session.close().code, 1000);
    assert_eq!(bridge.websockify.stop(), 0);
    assert_eq!(bridge.websockify.logged(&["refused a handshake"]), Vec::<String>::new());
}

/// O2, A3: the part of a PROXY header that has come is not lost.
#[test]
fn o2_a3_a_proxys_header_of_which_a_part_has_come_counts() {
    let mut bridge = Bridge::start("--trusted-proxy=127.0.0.1 --proxy-protocol");
    let mut stream = connect(bridge.port);
    stream.write_all(b"PROXY TCP4 198.51.100").unwrap();
    // websockify has looked at it by then.
    sleep(Duration::from_millis(200));
    bridge.hand_over(1);
    stream.write_all(b".7 127.0.0.1 1 2\r\n").unwrap();
    assert_eq!(ask(&mut stream, "/", &UPGRADE).status, 101);
    bridge.websockify.wait_for_log(&["started", "198.51.100.7"]);
    assert_eq!(bridge.websockify.stop(), 0);
}

/// O2, D3: the new binary keeps the pid file and its lock, and removes the file at the end.
#[test]
fn o2_d3_the_pid_file_stays_locked() {
    let mut bridge = Bridge::start("--pid-file=pid");
    let path = bridge.path("pid");
    let inode = fs::metadata(&path).unwrap().ino();
    let pid = format!("{}\n", bridge.websockify.pid());
    for nth in 1..=2 {
        bridge.hand_over(nth);
        assert_eq!(fs::read_to_string(&path).unwrap(), pid);
        assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
        let other = format!("{} a:1 --pid-file={}", free_port(), path.display());
        let refused = crate::support::run(&other);
        assert_eq!(refused.status, 1);
        assert!(refused.err[0].contains("held by process"), "{:?}", refused.err);
    }
    assert_eq!(bridge.websockify.stop(), 0);
    assert!(!path.exists());
}

/// O2, C9: a password stays hidden from `ps`, and the new binary still knows it.
#[test]
fn o2_c9_secrets_stay_hidden() {
    let secret = "--auth-plugin=BasicHTTPAuth --auth-source=me:not-for-everybody";
    let mut bridge = Bridge::start(secret);
    let line = bridge.command_line();
    bridge.hand_over(1);
    assert_eq!(bridge.command_line(), line);
    for file in ["cmdline", "environ"] {
        let shown = fs::read(format!("/proc/{}/{file}", bridge.websockify.pid())).unwrap();
        assert!(!String::from_utf8_lossy(&shown).contains("not-for-everybody"), "{file}");
    }
    let upgrade = crate::support::UPGRADE;
    assert_eq!(crate::support::request(bridge.port, "/", &upgrade).0.status, 401);
    let shown = [&upgrade[..], &["Authorization: Basic bWU6bm90LWZvci1ldmVyeWJvZHk="]].concat();
    assert_eq!(crate::support::request(bridge.port, "/", &shown).0.status, 101);
    assert_eq!(bridge.websockify.stop(), 0);
}

/// O2, U3: a Unix socket's file stays the same, and is removed when websockify ends.
#[test]
fn o2_u3_a_unix_socket_stays_where_it_is() {
    let mut bridge = Bridge::start("--admin=unix:admin.sock");
    let path = bridge.path("admin.sock");
    let inode = fs::metadata(&path).unwrap().ino();
    bridge.hand_over(1);
    assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
    assert!(crate::support::connect_unix(&path).is_ok());
    assert_eq!(bridge.websockify.stop(), 0);
    assert!(!path.exists());
}

/// O2, O3: the admin address goes on, and gives the time at which the process began.
#[test]
fn o2_o3_the_admin_address_goes_on() {
    let admin = free_port();
    let mut bridge = Bridge::start(&format!("--admin=127.0.0.1:{admin}"));
    let began = || metric(&get(admin, "/metrics").body, "websockify_start_time_seconds");
    let before = began();
    bridge.hand_over(1);
    assert_eq!(get(admin, "/readyz").status, 200);
    assert!((began() - before).abs() < 0.5);
    bridge.websockify.assert_logged(&["administration at"], 1);
    assert_eq!(bridge.websockify.stop(), 0);
}

/// O2, D4: systemd is told of a reload, and that websockify is ready again: also where the hand-over was refused.
#[test]
fn o2_d4_systemd_sees_a_reload() {
    let manager = Manager::new();
    let mut bridge = Bridge::start_with("", |command| manager.tell(command));
    manager.until("READY=1");
    bridge.hand_over(1);
    let said = manager.until("READY=1");
    assert!(said[0].starts_with("RELOADING=1\nMONOTONIC_USEC="), "{said:?}");
    bridge.replace(|new| super::write(new, b"", 0o755));
    bridge.ask();
    let said = manager.until("READY=1");
    assert!(said[0].starts_with("RELOADING=1\nMONOTONIC_USEC="), "{said:?}");
    assert_eq!(bridge.websockify.stop(), 0);
}

/// O2, D1: a daemon does not fork again.
#[test]
fn o2_d1_a_daemon_goes_on_as_itself() {
    let (service, port) = (crate::support::echo_service(), free_port());
    let directory = tempfile::TempDir::new().unwrap();
    let file = |name: &str| directory.path().join(name);
    copy_program(WEBSOCKIFY, file("websockify"));
    let status = Command::new(file("websockify"))
        .args(["-D", "--log-file=log", "--pid-file=pid", &port.to_string(), &service.target()])
        .current_dir(directory.path())
        .status()
        .unwrap();
    assert!(status.success());
    let pid = fs::read_to_string(file("pid")).unwrap();
    let process = Process::find(pid.trim().parse().unwrap()).unwrap();
    process.signal(Signal::SIGUSR2);
    wait_until("another image", || {
        fs::read_to_string(file("log")).unwrap().contains("taken over: ")
    });
    assert_eq!(fs::read_to_string(file("pid")).unwrap(), pid);
    assert!(process.is_alive());
    assert_eq!(Client::connect(port).close().code, 1000);
    process.signal(Signal::SIGTERM);
    wait_until("its end", || !process.is_alive());
    assert!(!file("pid").exists());
}
