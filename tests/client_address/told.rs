//! rebind.so tells the wrapped program its clients' addresses: in each address family, and also after fork, exec,
//! daemonizing, chroot and a change of user.

use std::io::Read;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use tempfile::TempDir;

use super::{ask, client, engine_for, session_from, start_address_reporter, wait_for_open};
use crate::support::{Lan, has_ipv6, needs, needs_root, run, stays};

const SOCKET: &str = "--client-address=socket";

#[test]
fn a1_with_socket_the_program_sees_the_client_itself() {
    if !needs(&["python3"]) {
        return;
    }
    for (words, prefix) in [
        ("", ""),
        ("nonblocking", ""),
        ("edge", ""),
        ("select", ""),
        ("dual", "::ffff:"),
        ("v6", "::ffff:"),
        ("one", "::ffff:"),
    ] {
        if !words.is_empty() && !prefix.is_empty() && !has_ipv6() {
            continue;
        }
        let (websockify, port) = start_address_reporter(SOCKET, words);
        for n in [1, 2, 1] {
            let (mut one, from) = session_from(client(n), port);
            let expected = format!("{prefix}{} {}", from.ip(), from.port());
            assert_eq!(ask(&mut one), (expected.clone(), expected), "{words}");
        }
        websockify.assert_alone_on(port);
        assert_eq!(websockify.warnings(), Vec::<String>::new());
    }
}

/// A program that listens for IPv6 sees every client's own address. One that listens for IPv4 alone sees an IPv6
/// client with an address of 240/4, which no real client has.
#[test]
fn a1_with_socket_ipv6_clients_are_shown_as_the_family_can() {
    if !needs(&["python3"]) || !has_ipv6() {
        return;
    }
    for (words, is_v6) in
        [("v6", true), ("one", true), ("dual", true), ("both", true), ("v4", false)]
    {
        let (websockify, port) = start_address_reporter(SOCKET, words);
        let (mut one, from) = session_from(Ipv6Addr::LOCALHOST, port);
        let (accepted, known) = ask(&mut one);
        assert_eq!(accepted, known);
        let (ip, number) = accepted.split_once(' ').unwrap();
        assert_eq!(number, from.port().to_string());
        if is_v6 {
            assert_eq!(ip, "::1", "{words}");
        } else {
            assert_eq!(ip.parse::<Ipv4Addr>().unwrap().octets()[0] & 0xf0, 0xf0, "{ip}");
            websockify.wait_for_log(&[&format!("::1 is shown as {ip}")]);
        }
    }
}

/// A1: a program of IPv4 sees two clients of one IPv6 network (/64) as one, and clients of two networks as two; a
/// program of both families sees the address itself.
#[test]
fn a1_with_socket_ipv6_networks_are_told_apart() {
    let Some(lan) = Lan::new() else { return };
    if !needs(&["python3"]) {
        return;
    }
    lan.here.run(|| {
        for address in ["2001:db8::7/128", "2001:db8::8/128", "2001:db8:1::7/128"] {
            let words = ["-6", "address", "add", address, "dev", "lo", "nodad"];
            assert!(std::process::Command::new("ip").args(words).status().unwrap().success());
        }
        let (_websockify, port) = start_address_reporter(SOCKET, "v4");
        let seen = ["2001:db8::7", "2001:db8::8", "2001:db8:1::7"].map(|address| {
            let address: Ipv6Addr = address.parse().unwrap();
            let (mut one, _) = session_from(address, port);
            let (ip, _) =
                ask(&mut one).0.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
            ip
        });
        assert_eq!(seen[0], seen[1]);
        assert_ne!(seen[0], seen[2]);
        let (_websockify, port) = start_address_reporter(SOCKET, "dual");
        let (mut one, from) = session_from("2001:db8:1::7".parse::<Ipv6Addr>().unwrap(), port);
        assert_eq!(ask(&mut one).0, format!("2001:db8:1::7 {}", from.port()));
    });
}

/// A2: also when the program forks, executes another program, daemonizes, or changes its root directory or its user.
#[test]
fn a2_forked_executed_daemonized_chrooted_and_as_another_user() {
    if !needs(&["python3"]) {
        return;
    }
    let is_root = needs_root();
    let jail = TempDir::new().unwrap();
    let chroot = format!("chroot={} user=65534", jail.path().display());
    let mut table = vec![("fork", ""), ("exec", ""), ("daemon", "--wrap-mode=ignore")];
    if is_root {
        table.extend([("user=65534", ""), (&*chroot, "")]);
    }
    for (words, mode) in table {
        let (mut websockify, port) = start_address_reporter(&format!("{SOCKET} {mode}"), words);
        let (mut one, from) = session_from(client(1), port);
        let expected = format!("{} {}", from.ip(), from.port());
        assert_eq!(ask(&mut one), (expected.clone(), expected), "{words}");
        websockify.stop();
    }
}

/// Connections that are not the bridge's keep their real address, by `accept` and by `getpeername`.
#[test]
fn a1_with_socket_connections_that_are_not_the_bridges_are_unchanged() {
    if !needs(&["python3"]) {
        return;
    }
    let (websockify, _) = start_address_reporter(&format!("-v {SOCKET}"), "");
    let moved = websockify.relocated_port();
    let mut stranger = std::net::TcpStream::connect(("127.0.0.1", moved)).unwrap();
    let mut said = String::new();
    stranger.read_to_string(&mut said).unwrap();
    let us = format!(
        "{} {}\n",
        stranger.local_addr().unwrap().ip(),
        stranger.local_addr().unwrap().port()
    );
    assert_eq!(said, us.repeat(2));
}

/// A statically linked program cannot be told its clients' addresses: websockify says so, and ends with 1.
#[test]
fn a1_with_socket_a_program_that_cannot_be_told_is_named() {
    if !needs(&["cc"]) {
        return;
    }
    let program = crate::support::static_actor();
    for option in [SOCKET, "--program-access=bridge"] {
        let port = crate::support::free_port();
        let output = run(&format!("{port} --rebind-engine=auto {option} -- {program} {port}"));
        assert_eq!(output.status, 1, "{output:?}");
        let line = output.err.join("\n");
        assert!(line.contains("statically linked") && line.contains(option), "{line}");
    }
}

/// The row of a client that has left stays as it is: a program that is slow to accept sees each client with its own
/// address, also a client that has left by then.
#[test]
fn a1_with_socket_who_leaves_before_the_accept_keeps_the_name() {
    if !needs(&["python3"]) {
        return;
    }
    let directory = TempDir::new().unwrap();
    let log = directory.path().join("seen");
    let script = directory.path().join("slow.py");
    std::fs::write(
        &script,
        "import socket,sys,os,time\n\
         s=socket.socket(); s.setsockopt(1,2,1); s.bind(('0.0.0.0',int(sys.argv[1]))); s.listen(100)\n\
         out=open(sys.argv[2],'a',1)\n\
         sys.stdin=None\n\
         while not os.path.exists(sys.argv[2]+'.go'): time.sleep(0.01)\n\
         while True:\n\
        \x20 c,a=s.accept(); c.settimeout(5)\n\
        \x20 got=c.recv(100)\n\
        \x20 out.write('%s %s %s\\n'%(a[0],got.decode(),len(got)))\n",
    )
    .unwrap();
    let port = crate::support::free_port();
    let websockify = crate::support::Websockify::start(&format!(
        "{port} {} {SOCKET} -- python3 {} {port} {}",
        engine_for(SOCKET),
        script.display(),
        log.display()
    ));
    wait_for_open(&websockify);
    for n in 1..=20 {
        let (mut one, _) = session_from(client(n), port);
        one.send(format!("i-am-{}", client(n)));
        drop(one);
    }
    crate::support::wait_until("the end of the sessions", || {
        websockify.logged(&["session ended"]).len() == 20
    });
    std::fs::write(directory.path().join("seen.go"), "").unwrap();
    let seen = crate::support::wait_for("all to be accepted", || {
        let seen = std::fs::read_to_string(&log).unwrap_or_default();
        (seen.lines().count() == 20).then_some(seen)
    });
    for line in seen.lines() {
        let (ip, rest) = line.split_once(' ').unwrap();
        assert!(rest.starts_with(&format!("i-am-{ip} ")), "{line}");
    }
    stays(Duration::from_millis(100), "no more", || {
        std::fs::read_to_string(&log).unwrap().lines().count() == 20
    });
}

/// A1, W4: a client that waits in the accept queue of an instance that ends is served by the next instance, with its
/// own address, and so is a client that comes then. The rows of clients that have left name no client of the next
/// instance.
#[test]
fn a1_with_socket_a_respawned_program_sees_its_own_clients() {
    if !needs(&["python3"]) {
        return;
    }
    let directory = TempDir::new().unwrap();
    let first = directory.path().join("first");
    let options = format!("{SOCKET} --wrap-mode=respawn");
    let (websockify, port) =
        start_address_reporter(&options, &format!("first={}", first.display()));
    let mut waiting: Vec<_> = (1..=6).map(|n| session_from(client(n), port)).collect();
    let queued = || websockify.logged(&["session started"]).len();
    crate::support::wait_until("all to be there", || queued() == 6);
    // Every other client leaves.
    for at in [4, 2, 0] {
        waiting.remove(at);
    }
    crate::support::wait_until("their end", || websockify.logged(&["session ended"]).len() == 3);
    std::fs::write(directory.path().join("first.end"), "").unwrap();
    websockify.wait_for_log(&["first process has ended"]);
    let later = [2, 7, 8, 1].map(|n| session_from(client(n), port));
    for (mut one, from) in waiting.into_iter().chain(later) {
        one.be_patient(3 * crate::support::DEADLINE);
        let expected = format!("{} {}", from.ip(), from.port());
        assert_eq!(ask(&mut one), (expected.clone(), expected));
    }
    websockify.assert_logged(&["program started"], 2);
}

/// A1, W14: where the options exclude the other engine, the advice to use it says which options to change with it.
#[test]
fn a1_with_socket_a_script_that_starts_a_static_program_is_given_good_advice() {
    if !needs(&["cc"]) {
        return;
    }
    let directory = TempDir::new().unwrap();
    let script = directory.path().join("script");
    let sleeps = format!("#!/bin/sh\n{} sleep\n", crate::support::static_actor());
    crate::support::write_script(&script, &sleeps);
    for (option, instead, left_out) in [
        (SOCKET, "--client-address=loopback", SOCKET),
        ("--program-access=bridge", "", "--program-access=bridge"),
    ] {
        let port = crate::support::free_port();
        let line = |options: &str| {
            let script = script.display();
            format!("{port} --rebind-engine=auto --wrap-timeout=1 {options} -- {script}")
        };
        let websockify = crate::support::Websockify::start(&line(option));
        let warning = websockify.wait_for_log(&["WARN", "(actor-static)"]);
        let advice = warning.split(": use ").last().unwrap();
        assert!(advice.starts_with("--rebind-engine=seccomp with"), "{warning}");
        assert!(advice.contains(instead) && !advice.contains(SOCKET), "{warning}");
        assert!(!advice.contains(left_out) || advice.contains(&format!("without {left_out}")));
        drop(websockify);
        if crate::support::needs_copied_sockets() {
            let taken = line(instead).replace("=auto", "=seccomp");
            let websockify = crate::support::Websockify::start(&taken);
            websockify.wait_for_log(&["program started"]);
        }
    }
}
