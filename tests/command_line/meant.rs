//! Error lines that say what was meant, for users who mistype or are used to another websockify.

use std::fs::{Permissions, set_permissions};
use std::net::Ipv6Addr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use tempfile::TempDir;

use super::refused;
use crate::support::{
    Client, Lan, Service, WEBSOCKIFY, Websockify, copy_program, echo, echo_service, free_port,
    has_ipv6,
};

#[test]
fn f41_a_program_without_dashes_before_it_is_shown_behind_them() {
    for (typed, meant) in [
        ("2023 telnetd -debug 2023", "websockify 2023 -- telnetd -debug 2023"),
        ("2023 vncserver :1", "websockify 2023 -- vncserver :1"),
        (
            "5901 -v vncserver -geometry 1024x768 :1",
            "websockify 5901 -v -- vncserver -geometry 1024x768 :1",
        ),
        (
            "--wrap-mode respawn 5901 sh -c exit",
            "websockify --wrap-mode respawn 5901 -- sh -c exit",
        ),
        ("5901 /bin/echo --geometry=x", "websockify 5901 -- /bin/echo --geometry=x"),
        ("5901 sh -vx $HOME", "websockify 5901 -- sh -vx '$HOME'"),
        ("5901 sh", "websockify ... -- sh"),
        ("5901 sh -v", "websockify ... -- sh"),
    ] {
        refused(typed, 2, &["a program stands behind '--'", meant]);
    }
    // A password is not repeated.
    for (option, shown) in
        [("--auth-source=me:secret", "--auth-source=..."), ("--auth-so me:secret", "--auth-so ...")]
    {
        let meant = format!("websockify {shown} 5901 -- vncserver -geometry 1024x768");
        refused(&format!("{option} 5901 vncserver -geometry 1024x768"), 2, &[&meant]);
    }
}

#[test]
fn f42_an_option_that_there_is_not_has_the_nearest_one_named() {
    for (typed, culprit, meant) in [
        ("--warp-mode=exit 1 a:1", "'--warp-mode'", "'--wrap-mode'"),
        ("1 a:1 --webb=.", "'--webb'", "'--web'"),
        ("--ssl_only 1 a:1", "'--ssl_only'", "'--ssl-only'"),
        ("-web . 1 a:1", "'-web'", "'--web'"),
        ("1 -ssl-only a:1", "'-ssl-only'", "'--ssl-only'"),
        ("1 a:1 -run_once", "'-run_once'", "'--run-once'"),
        ("--ver 1 a:1", "'--ver'", "'--verbose' or '--verify-client' or '--version'"),
        ("5901 localhost --webb=x", "'--webb'", "'--web'"),
    ] {
        let meant = format!("did you mean {meant}?");
        refused(typed, 2, &[culprit, &meant, "'websockify --help'"]);
    }
    refused("1 a:1 --no-such-option", 2, &["'--no-such-option'", "'websockify --help'"]);
}

#[test]
fn f43_an_address_that_lacks_a_part_is_shown_with_it() {
    refused("8080 localhost", 2, &["localhost has no port (localhost:80?)"]);
    refused("8080 192.0.2.1", 2, &["192.0.2.1 has no port (192.0.2.1:80?)"]);
    refused("8080 localhost 5900", 2, &["HOST:PORT (localhost:5900?)"]);
    refused("8080 5900", 2, &["with a host (localhost:5900?)"]);
}

#[test]
fn f44_a_url_is_no_address() {
    for (typed, parts) in [
        ("8080 http://localhost:80", ["HOST:PORT without 'http://'", "(localhost:80?)"]),
        ("8080 wss://localhost/path", ["without 'wss://' and '/path'", "(localhost:443?)"]),
        ("8080 tcp://[::1]:5900", ["without 'tcp://'", "([::1]:5900?)"]),
        ("ws://0.0.0.0:8080 a:1", ["[HOST:]PORT without 'ws://'", "(0.0.0.0:8080?)"]),
    ] {
        refused(typed, 2, &parts);
    }
}

#[test]
fn f45_what_says_how_to_wrap_is_refused_beside_a_target() {
    for option in ["--wrap-timeout=5", "--stop-timeout=5", "--program-port=5", "--rebind-lib=x"] {
        let (name, _) = option.split_once('=').unwrap();
        let needs = format!("option '{name}' needs a program after '--'");
        refused(&format!("5901 a:1 {option}"), 2, &[&needs]);
    }
}

/// The Python websockify takes `--wrap-mode` beside a target without a word, so it is in people's command lines.
#[test]
fn f45_a_wrap_mode_beside_a_target_is_warned_of_once() {
    let (service, port) = (echo_service(), free_port());
    let websockify = Websockify::start(&format!("{port} --wrap-mode=respawn {}", service.target()));
    Client::connect_once_open(port).close();
    websockify.wait_for_log(&["session ended"]);
    let said = websockify.logged(&["--wrap-mode"]);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("WARN") && said[0].contains("without a program"), "{said:?}");
}

#[test]
fn f32_a_number_that_cannot_be_is_answered_with_the_limits() {
    refused("5901 a:1 --timeout=5000000000", 2, &["'5000000000' for '--timeout'", "4294967295"]);
    refused("5901 a:1 --max-connections -1", 2, &["'-1' for '--max-connections'", "from 1 to"]);
    refused("5901 --program-port=1.5 -- touch ran", 2, &["'1.5'", "from 1 to 65535"]);
}

#[test]
fn f32_decades_are_taken() {
    for seconds in ["999999999", "4294967295"] {
        let (service, port) = (echo_service(), free_port());
        let limits = format!("--timeout={seconds} --idle-timeout={seconds}");
        let mut websockify = Websockify::start(&format!("{port} {limits} {}", service.target()));
        let mut client = Client::connect_once_open(port);
        client.send("hello");
        assert_eq!(client.read(5), b"hello");
        client.close();
        websockify.wait_for_log(&["session ended"]);
        assert!(websockify.is_running());
        assert_eq!(websockify.stop(), 0);
        assert_eq!(websockify.logged(&["timeout reached"]), Vec::<String>::new());
    }
}

#[test]
fn f74_a_port_of_roots_is_refused_with_who_may_have_it() {
    let Some(lan) = Lan::new() else { return };
    let directory = TempDir::new().unwrap();
    set_permissions(&directory, Permissions::from_mode(0o755)).unwrap();
    let binary = directory.path().join("websockify");
    copy_program(WEBSOCKIFY, &binary);
    lan.here.set("net/ipv4/ip_unprivileged_port_start", 1024);
    for source in ["443", "127.0.0.1:80"] {
        let mut command = Command::new(&binary);
        command.args([source, "localhost:9"]).uid(65534).gid(65534);
        let output = lan.here.run(|| Websockify::launch(&mut command)).output();
        assert_eq!((output.status, output.err.len()), (1, 1), "{output:?}");
        let said = &output.err[0];
        for part in ["permission denied", "root", "CAP_NET_BIND_SERVICE", "socket from systemd"] {
            assert!(said.contains(part), "no {part} in {said}");
        }
    }
}

#[test]
fn f70_a_program_where_only_root_looks_is_named() {
    let directory = TempDir::new().unwrap();
    let of_inetd = directory.path().join("in.guestbookd");
    copy_program("/bin/true", &of_inetd);
    let path = format!("{}:/usr/bin:/bin", directory.path().display());
    let of_inetd = of_inetd.to_str().unwrap();
    for (program, at) in [("ldconfig", "sbin/ldconfig"), ("guestbookd", of_inetd)] {
        let line = format!("{} -- {program}", free_port());
        let output = Websockify::start_with(&line, |command| {
            command.env("PATH", &path);
        })
        .output();
        assert_eq!((output.status, output.err.len()), (127, 1), "{output:?}");
        let said = &output.err[0];
        assert!(said.contains(&format!("{program}: not found in PATH, but there is /")), "{said}");
        assert!(said.ends_with(at), "{said}");
    }
}

#[test]
fn f31_an_address_may_have_a_zone() {
    let port = free_port();
    let absent = format!("[fe80::5%nowhere]:{port}");
    refused(&format!("{absent} a:1"), 1, &["fe80::5%nowhere", "there is no interface nowhere"]);
    let websockify = Websockify::start(&format!("{port} {absent}"));
    assert_eq!(Client::connect_once_open(port).closing().code, 1011);
    websockify.wait_for_log(&["there is no interface nowhere"]);
    if !has_ipv6() {
        return;
    }
    let service = Service::at((Ipv6Addr::LOCALHOST, 0), echo);
    for zone in ["lo", "1"] {
        let (port, target) = (free_port(), service.address.port());
        let line = format!("[::1%{zone}]:{port} [::1%{zone}]:{target}");
        let websockify = Websockify::start(&line);
        websockify.wait_until_open();
        let mut client = Client::dial((Ipv6Addr::LOCALHOST, port)).unwrap();
        client.send("hello");
        assert_eq!(client.read(5), b"hello");
        assert_eq!(client.close().code, 1000);
    }
}
