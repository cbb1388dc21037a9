//! Many hand-overs in a row, under load, with every byte compared (O2). `WEBSOCKIFY_HAND_OVERS=100` makes 100 of
//! them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::sys::signal::Signal;

use crate::support::{Client, Websockify, copy_program, echo_service, free_port, wait_until};

/// How many sessions send nothing until the last hand-over, and how many send all the time.
const IDLE: usize = 100;
const BUSY: usize = 10;

/// How many hand-overs there are where the variable is not set.
const HAND_OVERS: usize = 10;

#[test]
fn o2_hand_overs_in_a_row_under_load_lose_and_double_no_byte() {
    let hand_overs = std::env::var("WEBSOCKIFY_HAND_OVERS").ok();
    let hand_overs = hand_overs.map_or(HAND_OVERS, |number| number.parse().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let binary = directory.path().join("websockify");
    copy_program(crate::support::WEBSOCKIFY, &binary);
    let (service, port) = (echo_service(), free_port());
    let mut command = std::process::Command::new(&binary);
    command.args([format!("127.0.0.1:{port}"), service.target()]);
    let mut websockify = Websockify::launch(&mut command);
    websockify.wait_until_open();
    let mut idle: Vec<_> = (0..IDLE).map(|_| Client::connect(port)).collect();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let is_over = &is_over;
        let chatter = |number| scope.spawn(move || chatter(port, number, is_over));
        let busy: Vec<_> = (0..BUSY).map(chatter).collect();
        for number in 1..=hand_overs {
            // Another file each time, as an upgrade makes it.
            let new = directory.path().join("websockify.new");
            copy_program(crate::support::WEBSOCKIFY, &new);
            std::fs::rename(&new, &binary).unwrap();
            websockify.signal(Signal::SIGUSR2);
            wait_until("a hand-over", || websockify.logged(&["taken over"]).len() == number);
            exchange(&mut Client::connect(port), b"new");
        }
        is_over.store(true, Ordering::Relaxed);
        let messages: usize = busy.into_iter().map(|busy| busy.join().unwrap()).sum();
        println!("{hand_overs} hand-overs, {messages} messages, none of them wrong");
    });
    for client in &mut idle {
        exchange(client, b"idle");
    }
    websockify.assert_logged(&["session started"], IDLE + BUSY + hand_overs);
    assert_eq!(websockify.stop(), 0);
}

fn exchange(client: &mut Client, message: &[u8]) {
    client.send(message);
    assert_eq!(client.read(message.len()), message);
}

/// Sends messages of many lengths and compares what comes back, until `is_over`. Gives how many messages.
fn chatter(port: u16, number: usize, is_over: &AtomicBool) -> usize {
    let mut client = Client::connect(port);
    let mut messages = 0;
    while !is_over.load(Ordering::Relaxed) {
        let length = [1, 126, 4_000, 70_000][messages % 4] + number;
        let message: Vec<u8> =
            (0..length).map(|at| u8::try_from((at * 7 + messages) % 251).unwrap()).collect();
        exchange(&mut client, &message);
        messages += 1;
    }
    messages
}
