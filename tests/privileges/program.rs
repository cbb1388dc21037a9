//! `--program-user`: the program runs as that user, and websockify stays as it is.

use std::net::{Ipv4Addr, Ipv6Addr, TcpStream};

use super::{NOBODY, Place, Rights, assert_stops, engines, greeted, low_port, ours, rights};
use crate::support::{
    Websockify, can_copy_sockets, copy_program, free_port, has_ipv6, needs_root, static_actor,
};

/// Under both engines, each time that the program is started, and as a daemon.
#[test]
fn w16_the_program_alone_is_the_user() {
    if !needs_root() {
        return;
    }
    for engine in engines() {
        if engine == "seccomp" && !can_copy_sockets() {
            continue;
        }
        let (place, port) = (Place::new(), low_port());
        let actor = place.actor();
        let options = format!("--program-user=nobody --rebind-engine={engine} --wrap-mode=respawn");
        let play = format!("bind {port} listen accept greet echo");
        let websockify = Websockify::start(&format!("{port} {options} -- {actor} {play}"));
        for nth in 1..=3 {
            let leader = websockify.nth_leader(nth);
            rights(&leader).assert_of(NOBODY, "65534");
            // The filter that root gives to the program takes no rights from setuid programs.
            rights(&leader).assert_open();
            assert_eq!(leader.variable("HOME"), "/nonexistent");
            greeted(port);
        }
        let us = Rights::of(format!("/proc/{}/status", websockify.pid()).as_ref());
        let (ids, caps) = ("0 0 0 0", ours().is("CapEff").to_owned());
        assert_eq!((us.is("Uid"), us.is("CapEff")), (ids, &*caps));
        assert_stops(websockify);

        let port = free_port();
        let daemon = format!("{actor} bind {port} listen fork-exit 0 serve");
        let websockify = Websockify::start(&format!("{port} {options} -- {daemon}"));
        greeted(port);
        websockify.wait_for_log(&["daemonized"]);
        websockify.assert_alone_on(port);
        assert_stops(websockify);
    }
}

/// A server that listens on IPv4 before it binds IPv6, as redis and nginx do, gets both. A process of the program that
/// has no listener gets nothing beside it: `preload` gives each its socket, and knows which process asks.
#[test]
fn w16_r2_the_user_has_both_families_and_nobody_beside_the_listener() {
    if !needs_root() || !has_ipv6() {
        return;
    }
    for engine in engines() {
        if engine == "seccomp" && !can_copy_sockets() {
            continue;
        }
        let (place, port) = (Place::new(), free_port());
        let actor = place.actor();
        let options = format!("--program-user=nobody --rebind-engine={engine} -v");
        let play = format!("bind {port} listen listen-beside serve");
        let websockify = Websockify::start(&format!("{port} {options} -- {actor} {play}"));
        greeted(port);
        let relocated = websockify.relocated_port();
        TcpStream::connect((Ipv4Addr::LOCALHOST, relocated)).expect("IPv4");
        TcpStream::connect((Ipv6Addr::LOCALHOST, relocated)).expect("IPv6");
        websockify.assert_alone_on(port);
        assert_stops(websockify);

        if engine == "preload" {
            let play = format!("bind {port} listen serve-beside bind-v6 {port} listen sleep");
            let websockify = Websockify::start(&format!("{port} {options} -- {actor} {play}"));
            websockify.wait_for_log(&["wants the relocated port, and is not given it"]);
            websockify.wait_for_log(&["bind: Address already in use"]);
            greeted(port);
            TcpStream::connect((Ipv6Addr::LOCALHOST, websockify.relocated_port()))
                .expect_err("nobody has got IPv6");
            assert_stops(websockify);
        }
    }
}

/// A static program, whose port only the engine `seccomp` can move; websockify chooses that engine itself.
#[test]
fn w16_a_static_program_is_the_user() {
    if !needs_root() || !can_copy_sockets() {
        return;
    }
    let (place, port) = (Place::new(), free_port());
    let program = place.named("static");
    copy_program(static_actor(), &program);
    let line = format!("{port} --program-user=www-data -- {program} bind-dual {port} listen serve");
    let websockify = Websockify::start_auto(&line);
    greeted(port);
    rights(&websockify.leader()).assert_of(super::WWW_DATA, "33");
    websockify.assert_alone_on(port);
    assert_stops(websockify);
}
