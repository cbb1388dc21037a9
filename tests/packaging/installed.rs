//! What an administrator does with the package: configures a service, starts it, reads its log, stops it,
//! upgrades, removes (D2, D4, R5). With a systemd of its own, see `machine.rs`.

use std::fs::{self, Permissions};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use serde_json::Value;

use super::machine::Machine;
use super::{PACKAGE, can_package};
use crate::support::{
    Caller, Client, SERVERS, Service, echo_service, free_port, is_refused, stays, wait_until,
};

fn machine() -> Option<Machine> {
    if can_package() { Machine::boot(&PACKAGE) } else { None }
}

fn exchange(client: &mut Client) {
    client.send("hello");
    assert_eq!(client.read(5), b"hello");
}

/// The settings of a service whose target is an echo service.
fn configure(machine: &Machine, source: &str) -> Service {
    let service = echo_service();
    let settings = format!("SOURCE={source}\nTARGET={}\nOPTIONS=\n", service.target());
    machine.write("/etc/default/websockify", &settings);
    service
}

#[test]
fn d4_the_service_runs_under_systemd() {
    let Some(machine) = machine() else { return };
    let unit = "websockify.service";
    let port = free_port();
    let _service = configure(&machine, &format!("127.0.0.1:{port}"));
    // The unit must allow netlink, by which websockify asks the kernel about slow peers (B4). Without it, this command fails,
    // and the service does not start.
    machine.write(
        "/etc/systemd/system/websockify.service.d/ask.conf",
        "[Service]\nExecStartPre=python3 -c \"import socket as s; s.socket(s.AF_NETLINK, 2, 4)\"\n",
    );
    machine.control(&["daemon-reload"]);
    machine.control(&["start", unit]);
    // It is ready when it accepts, and not before.
    let mut client = Client::connect(port);
    exchange(&mut client);
    assert!(machine.property(unit, "StatusText").starts_with("Bridging to"));
    let status = machine.status_of(unit);
    let line = |name: &str| status.lines().find(|line| line.starts_with(name)).unwrap();
    assert_ne!(line("Uid:").split_whitespace().nth(1), Some("0"), "nobody of its own");
    // CAP_NET_BIND_SERVICE, and nothing else.
    assert_eq!(line("CapEff:"), "CapEff:\t0000000000000400");
    assert_eq!((line("NoNewPrivs:"), line("Seccomp:")), ("NoNewPrivs:\t1", "Seccomp:\t2"));

    machine.control(&["reload", unit]);
    exchange(&mut client);
    assert_eq!(client.close().code, 1000);
    let of_client = ["_SYSTEMD_UNIT=websockify.service", "WEBSOCKIFY_CLIENT=127.0.0.1"];
    wait_until("both records of a session", || machine.records(&of_client).len() == 2);
    let record = &machine.records(&of_client)[1];
    assert_eq!(record["SYSLOG_IDENTIFIER"], Value::from("websockify"));
    assert_eq!(record["WEBSOCKIFY_SENT"], Value::from("10"));

    // After SIGKILL, systemd starts it again.
    machine.control(&["kill", "--signal=SIGKILL", "--kill-whom=main", unit]);
    wait_until("its restart", || machine.property(unit, "NRestarts") == "1");
    let mut client = Client::connect_once_open(port);
    exchange(&mut client);
    machine.control(&["stop", "--no-block", unit]);
    assert_eq!(client.closing().code, 1001);
    wait_until("its end", || machine.property(unit, "ActiveState") == "inactive");
    assert_eq!(machine.property(unit, "Result"), "success");
}

/// O1, D4: a drain may take longer than `TimeoutStopSec`, which is how long systemd waits for the end of a service.
#[test]
fn o1_systemd_waits_for_a_drain_beyond_its_timeout() {
    let Some(machine) = machine() else { return };
    let unit = "websockify.service";
    let (port, service) = (free_port(), echo_service());
    let settings = format!(
        "SOURCE=127.0.0.1:{port}\nTARGET={}\nOPTIONS=--drain-timeout=600\n",
        service.target()
    );
    machine.write("/etc/default/websockify", &settings);
    machine.write(
        "/etc/systemd/system/websockify.service.d/short.conf",
        "[Service]\nTimeoutStopSec=2\n",
    );
    machine.control(&["daemon-reload"]);
    machine.control(&["start", unit]);
    let mut client = Client::connect(port);
    exchange(&mut client);
    machine.control(&["stop", "--no-block", unit]);
    wait_until("a drain", || {
        machine.property(unit, "StatusText").starts_with("Draining: 1 session goes on for ")
    });
    assert_eq!(machine.property(unit, "ActiveState"), "deactivating");
    stays(Duration::from_secs(5), "a session", || {
        exchange(&mut client);
        true
    });
    assert_eq!(client.close().code, 1000);
    wait_until("its end", || machine.property(unit, "ActiveState") == "inactive");
    assert_eq!(machine.property(unit, "Result"), "success");
}

/// D4, T2, T5: the service reads a key that only a group may read if it is in that group, and can read it again.
#[test]
fn d4_the_service_reads_a_key_of_its_group() {
    let Some(machine) = machine() else { return };
    let unit = "websockify.service";
    let (port, service) = (free_port(), echo_service());
    let pem = "/etc/ssl/server.pem";
    machine.write(pem, &SERVERS.issue("localhost").pem());
    assert!(machine.run(&["chown", "root:adm", pem]).0);
    fs::set_permissions(machine.file(pem), Permissions::from_mode(0o640)).unwrap();
    machine.write(
        "/etc/systemd/system/websockify.service.d/group.conf",
        "[Service]\nSupplementaryGroups=adm\n",
    );
    let (source, target) = (format!("127.0.0.1:{port}"), service.target());
    let settings = format!("SOURCE={source}\nTARGET={target}\nOPTIONS=--cert={pem}\n");
    machine.write("/etc/default/websockify", &settings);
    machine.control(&["daemon-reload"]);
    machine.control(&["start", unit]);
    let caller = Caller::anonymous();
    let mut connection = caller.session(port, &[]).unwrap();
    let before = connection.certificate();
    machine.write(pem, &SERVERS.issue("localhost").pem());
    machine.control(&["reload", unit]);
    wait_until("the other certificate", || caller.call(port).unwrap().certificate() != before);
    connection.exchange(b"hello");
}

/// D4: the port is open before the service is started, and after it was stopped.
#[test]
fn d4_the_socket_starts_the_service_with_its_first_client() {
    let Some(machine) = machine() else { return };
    let port = free_port();
    let _service = configure(&machine, "1");
    machine.write(
        "/etc/systemd/system/websockify.socket.d/port.conf",
        &format!("[Socket]\nListenStream=\nListenStream=127.0.0.1:{port}\n"),
    );
    machine.control(&["daemon-reload"]);
    machine.control(&["start", "websockify.socket"]);
    for _ in 0..2 {
        assert_eq!(machine.property("websockify.service", "ActiveState"), "inactive");
        let mut client = Client::connect(port);
        exchange(&mut client);
        assert_eq!(client.close().code, 1000);
        machine.control(&["stop", "websockify.service"]);
    }
    machine.control(&["stop", "websockify.socket"]);
    assert!(is_refused(Ipv4Addr::LOCALHOST, port));
}

/// D4, W9, W11: each instance of the unit wraps a program of its own. O2, R5: an upgrade of the package keeps the sessions
/// that run; its removal ends them.
#[test]
fn d4_a_wrapped_program_is_a_service_until_the_package_is_removed() {
    let Some(machine) = machine() else { return };
    let unit = "websockify@actor.service";
    let port = free_port();
    let settings = format!(
        "SOURCE=127.0.0.1:{port}\nPROGRAM=sh /etc/websockify/play\nOPTIONS=--wrap-mode=respawn\n"
    );
    machine.write("/etc/websockify/actor.conf", &settings);
    let play = "echo hello\nwhile sleep 0.1; do echo alive; done &\nexec actor bind";
    let play = format!("{play} {port} listen serve\n");
    machine.write("/etc/websockify/play", &play);
    machine.control(&["start", unit]);
    let mut client = Client::connect(port);
    client.read_line();
    exchange(&mut client);
    assert_eq!(machine.property(unit, "StatusText"), "Bridging to the program");
    let started = &machine.records(&["WEBSOCKIFY_PROGRAM=sh"])[0];
    let of_program = &machine.records(&["SYSLOG_IDENTIFIER=sh", "MESSAGE=hello"])[0];
    assert_eq!(of_program["_PID"], started["WEBSOCKIFY_PID"]);
    assert_eq!(of_program["_SYSTEMD_UNIT"], Value::from(unit));

    // journald may be restarted: systemd keeps the streams that services write to.
    machine.control(&["restart", "systemd-journald.service"]);
    assert_eq!(Client::connect(port).close().code, 1000);
    machine.records(&["_SYSTEMD_UNIT=websockify@actor.service", "WEBSOCKIFY_SESSION=2"]);
    let before = machine.records(&["MESSAGE=alive"]).len();
    wait_until("more from the program", || machine.records(&["MESSAGE=alive"]).len() > before);
    exchange(&mut client);

    let install = ["dpkg", "--force-unsafe-io", "--install", "/websockify.deb"];
    let (is_well, said) = machine.run(&install);
    assert!(is_well && !said.contains("the old websockify"), "{said}");
    let taken_over = || {
        let records = machine.records(&["_SYSTEMD_UNIT=websockify@actor.service"]);
        let messages = records.iter().filter_map(|record| record["MESSAGE"].as_str());
        messages.filter(|message| message.starts_with("taken over: 1 session, pause")).count()
    };
    wait_until("the new program", || taken_over() == 1);
    exchange(&mut client);
    assert_eq!(machine.property(unit, "StatusText"), "Bridging to the program");

    // Settings that are wrong now matter at the next start only, not in an upgrade.
    machine.write("/etc/websockify/actor.conf", "SOURCE=nonsense\nPROGRAM=true\n");
    let (is_well, said) = machine.run(&install);
    assert!(is_well && !said.contains("the old websockify"), "{said}");
    wait_until("the new program", || taken_over() == 2);
    exchange(&mut client);
    let mut other = Client::connect(port);
    other.read_line();
    exchange(&mut other);
    assert_eq!(machine.records(&["MESSAGE=hello"]).len(), 1, "the program was not started again");
    machine.write("/etc/websockify/actor.conf", &settings);

    // A process that runs the installed program already is not asked to hand over to it.
    let configure = ["/var/lib/dpkg/info/websockify-rs.postinst", "configure", "1"];
    let (is_well, said) = machine.run(&configure);
    assert!(is_well, "{said}");
    exchange(&mut client);
    assert_eq!(taken_over(), 2);

    machine.control(&["enable", unit, "websockify.socket"]);
    let wants = [
        "multi-user.target.wants/websockify@actor.service",
        "sockets.target.wants/websockify.socket",
    ];
    let is_wanted = |link: &&str| {
        machine.file(&format!("/etc/systemd/system/{link}")).symlink_metadata().is_ok()
    };
    assert!(wants.iter().all(is_wanted));

    let (is_well, said) = machine.run(&["dpkg", "--force-depends", "--purge", "websockify-rs"]);
    assert!(is_well, "{said}");
    assert_eq!(client.closing().code, 1001, "stopped");
    assert!(is_refused(Ipv4Addr::LOCALHOST, port));
    assert_eq!(machine.run(&["pidof", "websockify", "actor"]).1, "", "nobody is left");
    assert!(!wants.iter().any(is_wanted), "enabled still");
    assert!(!machine.file("/etc/websockify/example.conf").exists());
    assert!(machine.file("/etc/websockify/actor.conf").exists(), "the administrator's own");
}
