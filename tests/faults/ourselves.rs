//! websockify itself killed, and stopped for a while.

use std::fs;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::{Actor, Client, Footprint, Process, Websockify, free_port, stays, wait_until};
use crate::wrap::Notes;

/// L6, W10, F20: websockify killed by SIGKILL: its clients' connections end, its program is told and ends; the next start
/// has the port at once, and removes what was left.
#[test]
fn l6_after_a_kill_the_next_start_finds_nothing_in_its_way() {
    let notes = Notes::new();
    let port = free_port();
    let start = || {
        let line = format!("{port} --wrap-mode=respawn -- {Actor} bind {port} listen serve");
        Websockify::start_with(&line, |command| {
            command.env("TMPDIR", notes.path());
        })
    };
    let mut first = start();
    let mut client = Client::connect_once_open(port);
    client.read_line();
    let others = first.tree();
    assert_eq!(others.len(), 2, "the program and a session of it");
    first.signal(Signal::SIGKILL);
    assert_eq!(first.wait(), 128 + 9);
    assert_eq!(client.closing().code, 1006);
    wait_until("the end of its program", || others.iter().all(|process| !process.is_alive()));

    let mut next = start();
    Client::connect_once_open(port).read_line();
    next.assert_alone_on(port);
    assert_eq!(next.stop(), 0);
    assert_eq!(next.remnants(), []);
    assert_eq!(fs::read_dir(notes.path()).unwrap().count(), 0, "what the first has left, too");
}

/// L6: websockify stopped and continued: what came meanwhile is passed on, who came meanwhile is served, and a program that
/// has ended meanwhile is started again.
#[test]
fn l6_stopped_and_continued_it_has_missed_nothing() {
    let port = free_port();
    let mut websockify = Websockify::start(&format!(
        "{port} --wrap-mode=respawn -- {Actor} bind {port} listen serve"
    ));
    // Its session outlives the program's first process.
    let mut client = Client::connect_once_open(port);
    client.read_line();
    let before = Footprint::at_rest(&websockify);
    let leader = websockify.leader();
    websockify.signal(Signal::SIGSTOP);
    let us = Process::find(websockify.pid()).unwrap();
    wait_until("a stop", || us.stat().state == 'T');

    let bytes: Vec<u8> = (0..50_000_u32).map(|at| u8::try_from(at % 251).unwrap()).collect();
    client.send(&bytes);
    let late = thread::spawn(move || {
        let mut client = Client::connect(port);
        client.read_line();
        client.close()
    });
    leader.signal(Signal::SIGKILL);
    stays(Duration::from_secs(1), "it is stopped", || us.stat().state == 'T');

    websockify.signal(Signal::SIGCONT);
    assert_eq!(client.read(bytes.len()), bytes);
    assert_eq!(late.join().unwrap().code, 1000);
    websockify.nth_start(2);
    // What is left of the first instance is a child of ours now.
    let mut last = Client::connect(port);
    last.read_line();
    assert_eq!(client.close().code, 1000);
    assert_eq!(last.close().code, 1000);
    before.wait_until_back(&websockify);
    assert_eq!(websockify.stop(), 0);
}
